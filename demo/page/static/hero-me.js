// The page's script: the customer chooses a picture, pays in Stripe's embedded checkout, returns, and gets it back.

import {
  HeroimgError,
  createCheckoutSession,
  fitImage,
  retrieveImage,
  sessionStatus,
  uploadImage,
} from "/static/heroimg.js";

const { stripeJs = "", publishableKey = "", unitAmount, currency, decimals } = document.body.dataset;

/** @type {Record<string, string>} each section of the page, and its entry in the list of steps */
const STEPS = {
  choose: "at-picture",
  picture: "at-picture",
  payment: "at-payment",
  return: "at-return",
  received: "at-return",
};

// Codes of errors after which the customer must choose another picture.
const REFUSED = [
  "no_image",
  "file_unreadable",
  "heic_unsupported",
  "image_too_large",
  "request_too_large",
  "not_a_picture",
  "image_damaged",
  "too_many_pixels",
  "image_too_complex",
];

// In pixels. Enough for most prints, and quick to send.
const MAX_EDGE = 2048;

const PROGRESS = { preparing: "Preparing", sending: "Uploading", waiting: "Checking", retrying: "Waiting" };

/** @type {[label: string, action: () => void]} */
const START_AGAIN = ["Start again", startAnew];

/** @type {Blob | undefined} */
let file;
let imageId = "";
// The picture's Checkout Session: from the address after the payment, or opened by pay().
let sessionId = new URLSearchParams(location.search).get("session_id") ?? "";
// Counts how often the customer started again, so that earlier requests do not change the page.
let run = 0;
let upload = new AbortController();
/** @type {{ mount(at: string): void, destroy(): void } | undefined} */
let checkout;

start();

function start() {
  for (const text of document.querySelectorAll("[data-price]")) {
    text.textContent = price();
  }
  for (const id of ["file", "camera"]) {
    const input = element(id, HTMLInputElement);
    input.addEventListener("change", () => {
      take(input.files?.[0]);
      input.value = ""; // choosing the same file again must fire "change"
    });
  }
  acceptDrops();
  document.addEventListener("paste", ({ clipboardData }) => takeFrom(clipboardData));
  addEventListener("pageshow", leaveOldCheckout);
  element("pay", HTMLButtonElement).addEventListener("click", pay);
  element("back", HTMLButtonElement).addEventListener("click", backToPicture);
  element("another", HTMLButtonElement).addEventListener("click", startAnew);
  element("anew", HTMLButtonElement).addEventListener("click", startAnew);
  element("save", HTMLAnchorElement).addEventListener("click", () =>
    removeEventListener("beforeunload", askBeforeLeaving),
  );
  if (sessionId) {
    // Some browsers lose localStorage on the way through Stripe's pages. This page shows that heroimg does not need it.
    inStorage((storage) => storage.removeItem("hero-me"));
    comeBack();
  } else {
    show("choose");
  }
}

// Choose and upload a picture

function acceptDrops() {
  const zone = element("drop", HTMLElement);
  document.addEventListener("dragover", (event) => {
    event.preventDefault(); // otherwise the browser opens the file instead of this page
    zone.classList.toggle("is-over", zone.contains(/** @type {Node} */ (event.target)));
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("is-over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("is-over");
    takeFrom(event.dataTransfer);
  });
}

/** @param {DataTransfer | null} data dropped or pasted */
function takeFrom(data) {
  if (!element("choose", HTMLElement).hidden) {
    take(data?.files[0]);
  }
}

/** @param {File} [chosen] */
function take(chosen) {
  if (!chosen) {
    return;
  }
  file = chosen;
  element("preview", HTMLImageElement).hidden = true; // the browser may be unable to show the file itself
  show("picture");
  send();
}

/** Upload the chosen file and offer the payment. */
async function send() {
  try {
    await uploadOnce(/** @type {Blob} */ (file));
  } catch (error) {
    showError(error, send);
  }
}

/** @param {Blob} chosen */
async function uploadOnce(chosen) {
  upload = new AbortController();
  const { signal } = upload;
  const progress = element("progress", HTMLProgressElement);
  const uploading = element("uploading", HTMLElement);
  /** @type {import("/static/heroimg.js").OnProgress} */
  const onProgress = (sent, state) => {
    progress.value = sent;
    const percent = state === "sending" ? ` ${Math.floor(sent * 100)} %` : "";
    element("progress-label", HTMLElement).textContent = PROGRESS[state] + percent;
    if (state !== "retrying") {
      showStatus("");
    }
  };
  const onWait = (/** @type {HeroimgError} */ error, /** @type {number} */ seconds) =>
    showStatus(`${error.message} We try again in ${seconds} s.`);
  clearProblem();
  element("pay", HTMLButtonElement).hidden = true;
  onProgress(0, "preparing");
  uploading.hidden = false;
  try {
    file = await fitImage(chosen, { maxEdge: MAX_EDGE, onWait, signal });
    showPicture("preview", file);
    imageId = await uploadImage(file, { onProgress, onWait, signal });
    showStatus("Your picture is safe with us while you pay.");
    element("pay", HTMLButtonElement).hidden = false;
  } finally {
    // A later upload may show its progress already.
    if (signal === upload.signal) {
      uploading.hidden = true;
    }
  }
}

function startAnew() {
  run += 1;
  upload.abort();
  closeCheckout();
  removeEventListener("beforeunload", askBeforeLeaving);
  file = undefined;
  imageId = sessionId = "";
  history.replaceState(null, "", location.pathname);
  show("choose");
}

// Pay

async function pay() {
  const thisRun = run;
  const button = element("pay", HTMLButtonElement);
  button.disabled = true;
  clearProblem();
  showStatus("Opening the checkout…");
  try {
    const { clientSecret, isUploadedAgain } = await openSession();
    const stripe = await loadStripe();
    if (thisRun !== run) {
      return; // the customer chose another picture
    }
    [sessionId] = clientSecret.split("_secret_");
    const opened = await stripe.createEmbeddedCheckoutPage({ fetchClientSecret: async () => clientSecret });
    if (thisRun !== run) {
      opened.destroy();
      return;
    }
    checkout = opened;
    inStorage((storage) => storage.setItem("hero-me", JSON.stringify({ size: file?.size })));
    show("payment");
    opened.mount("#checkout");
    if (isUploadedAgain) {
      showStatus("Your picture had expired, so we uploaded it again. Nothing is lost.");
    }
  } catch (error) {
    if (thisRun === run) {
      closeCheckout();
      showStatus("");
      showError(error, pay);
    }
  } finally {
    button.disabled = false;
  }
}

/** Open a session. If the picture has expired, upload it again, unless another window has paid for it. */
async function openSession() {
  // The signal is that of the last upload. It is aborted when the customer chooses another picture.
  const open = () => createCheckoutSession(imageId, { onWait: explainWait, signal: upload.signal });
  try {
    return { clientSecret: await open(), isUploadedAgain: false };
  } catch (error) {
    if (codeOf(error) !== "image_not_found" || !file) {
      throw error;
    }
  }
  if (sessionId && (await sessionStatus(sessionId, { onWait: explainWait })).status === "complete") {
    throw new HeroimgError("checkout_complete", "This picture has been paid for already.");
  }
  await uploadOnce(file);
  return { clientSecret: await open(), isUploadedAgain: true };
}

/** Load Stripe.js from Stripe. It must not be bundled: https://docs.stripe.com/js/including */
async function loadStripe() {
  const page = /** @type {any} */ (window);
  if (!page.Stripe) {
    const script = document.createElement("script");
    script.src = stripeJs;
    document.head.append(script);
    await new Promise((resolve) => {
      script.onload = script.onerror = resolve;
    });
    if (!page.Stripe) {
      script.remove();
      throw new Error("The checkout could not be loaded. Please check your connection and your content blocker.");
    }
  }
  return page.Stripe(publishableKey);
}

function backToPicture() {
  closeCheckout();
  if (file) {
    show("picture");
    showStatus("Your picture is still safe with us.");
  } else {
    comeBack(); // the customer returned without having paid, and continued to the payment
  }
}

/**
 * Request the state of the old checkout if the browser shows this page from its back/forward cache: the customer may
 * have paid.
 *
 * @param {PageTransitionEvent} event
 */
function leaveOldCheckout({ persisted }) {
  if (persisted && checkout) {
    closeCheckout();
    comeBack();
  }
}

function closeCheckout() {
  checkout?.destroy(); // Stripe.js allows one at a time
  checkout = undefined;
}

// Return

async function comeBack() {
  show("return");
  try {
    const { status, payment_status: payment, metadata } = await sessionStatus(sessionId, { onWait: explainWait });
    imageId = metadata.imageId ?? "";
    if (!imageId) {
      throw new HeroimgError("session_not_found", "This session is not for a picture.");
    }
    if (status === "open") {
      showProblem("You have not paid yet.", ["Continue to the payment", pay], START_AGAIN);
    } else if (status === "expired") {
      showProblem("The time to pay ran out. Nothing was charged.", START_AGAIN);
    } else if (payment === "unpaid") {
      const sentence = "Your bank has not confirmed the payment yet. Keep this page's address and check again later.";
      showProblem(sentence, ["Check again", comeBack], START_AGAIN);
    } else {
      await fetchPicture();
    }
  } catch (error) {
    showError(error, comeBack);
  }
}

async function fetchPicture() {
  let isElsewhere = false;
  show("return");
  try {
    const blob = await retrieveImage(imageId, {
      onWait(error, seconds) {
        isElsewhere ||= error.code === "image_claimed";
        explainWait(error, seconds);
      },
    });
    history.replaceState(null, "", location.pathname);
    showPicture("returned", blob);
    element("size", HTMLElement).textContent = megabytes(blob.size);
    const save = element("save", HTMLAnchorElement);
    save.href = element("returned", HTMLImageElement).src;
    save.download = `hero-me.${blob.type === "image/jpeg" ? "jpg" : blob.type.slice(6)}`;
    show("received");
    addEventListener("beforeunload", askBeforeLeaving);
  } catch (error) {
    if (codeOf(error) !== "image_not_found") {
      showError(error, fetchPicture);
    } else if (isElsewhere) {
      showProblem("Another window has received this picture. Please look there.", START_AGAIN);
    } else {
      showProblem(
        "This picture was handed over already, or it has expired. Is it in another window? " +
          `If not, please contact us and mention this payment: ${sessionId}`,
        START_AGAIN,
      );
    }
  }
}

/**
 * Ask before the customer leaves without saving the picture: this page has the only copy.
 *
 * @param {Event} event
 */
function askBeforeLeaving(event) {
  event.preventDefault();
}

/** @type {import("/static/heroimg.js").OnWait} */
function explainWait(error, seconds) {
  if (error.code === "image_claimed") {
    const minutes = Math.ceil(seconds / 60);
    showStatus(
      "Another window is opening this picture. Please look there. " +
        `If that window is closed, the picture appears here in ${minutes} min.`,
    );
  } else {
    const cause = error.code === "connection_lost" ? "The connection broke." : error.message;
    showStatus(`${cause} Your picture is safe. We try again in ${seconds} s.`);
  }
}

// Show sections and messages

/** @param {string} step */
function show(step) {
  const isFirst = Object.keys(STEPS).every((id) => element(id, HTMLElement).hidden);
  for (const [id, entry] of Object.entries(STEPS)) {
    element(id, HTMLElement).hidden = id !== step;
    element(entry, HTMLElement).removeAttribute("aria-current");
  }
  element(STEPS[step], HTMLElement).setAttribute("aria-current", "step");
  element("fetching", HTMLElement).hidden = false;
  clearProblem();
  showStatus("");
  if (!isFirst) {
    focusHeading();
  }
}

/**
 * Show a sentence and a button for each way to continue.
 *
 * @param {string} sentence
 * @param {...[label: string, action: () => void]} ways
 */
function showProblem(sentence, ...ways) {
  const text = document.createElement("p");
  text.textContent = sentence;
  const choices = document.createElement("div");
  choices.className = "choices";
  for (const [label, action] of ways) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.addEventListener("click", action);
    choices.append(button);
  }
  element("fetching", HTMLElement).hidden = true;
  showStatus("");
  const notice = element("problem", HTMLElement);
  notice.className = "notice";
  notice.replaceChildren(text, ...(ways.length ? [choices] : []));
  notice.scrollIntoView({ block: "nearest" });
  choices.querySelector("button")?.focus();
}

/**
 * @param {unknown} error
 * @param {() => void} again
 */
function showError(error, again) {
  if (error instanceof DOMException && error.name === "AbortError") {
    return; // the customer stopped the upload
  }
  const code = codeOf(error);
  const sentence = error instanceof Error ? error.message : String(error);
  if (REFUSED.includes(code)) {
    startAnew();
    showProblem(sentence);
  } else if (code === "checkout_complete") {
    showProblem("This picture has been paid for already.", ["Get the picture", comeBack]);
  } else if (code === "image_not_found") {
    showProblem("This picture has expired, and we no longer have it.", START_AGAIN);
  } else if (code === "session_id_malformed" || code === "session_not_found") {
    showProblem("This address is not complete. Please open the link that brought you here again.", START_AGAIN);
  } else {
    showProblem(sentence, ["Try again", again], ...(file ? [] : [START_AGAIN]));
  }
  element("problem", HTMLElement).className = "notice bad";
}

function clearProblem() {
  const notice = element("problem", HTMLElement);
  if (notice.contains(document.activeElement)) {
    focusHeading(); // otherwise the focus disappears with the button
  }
  notice.replaceChildren();
}

function focusHeading() {
  /** @type {HTMLElement | null} */ (document.querySelector("section:not([hidden]) h1"))?.focus();
}

/** @param {string} sentence */
function showStatus(sentence) {
  element("status", HTMLElement).textContent = sentence;
}

/**
 * @param {string} id
 * @param {Blob} blob
 */
function showPicture(id, blob) {
  const image = element(id, HTMLImageElement);
  URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(blob);
  image.hidden = false;
}

/** @param {unknown} error */
function codeOf(error) {
  return error instanceof HeroimgError ? error.code : "";
}

/** @param {number} bytes */
function megabytes(bytes) {
  return `${Math.ceil((bytes / 1024 / 1024) * 10) / 10} MB`;
}

function price() {
  const digits = { minimumFractionDigits: Number(decimals), maximumFractionDigits: Number(decimals) };
  const money = new Intl.NumberFormat(undefined, { style: "currency", currency, ...digits });
  return money.format(Number(unitAmount) / 10 ** Number(decimals));
}

/**
 * Use localStorage, if the browser allows it.
 *
 * @param {(storage: Storage) => void} work
 */
function inStorage(work) {
  try {
    work(localStorage);
  } catch {
    // heroimg does not need it.
  }
}

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
function element(id, type) {
  const candidate = document.getElementById(id);
  if (!(candidate instanceof type)) {
    throw new Error(`The page has no ${type.name} with the id ${id}.`);
  }
  return candidate;
}
