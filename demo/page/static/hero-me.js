// The page's one file: a picture is chosen, paid for in Stripe's embedded checkout, and fetched on the way back.

import { HeroimgError, createCheckoutSession, retrieveImage, sessionStatus, uploadImage } from "/static/heroimg.js";

const { stripeJs = "", publishableKey = "", unitAmount, currency, decimals, maxBytes } = document.body.dataset;

/** @type {Record<string, string>} the page's sections, and where on the journey each is */
const STEPS = {
  choose: "at-picture",
  picture: "at-picture",
  payment: "at-payment",
  return: "at-board",
  board: "at-board",
};

// The API's words for a picture that will not be taken, however often it is sent.
const HOPELESS = [
  "no_image",
  "image_too_large",
  "not_a_picture",
  "image_damaged",
  "too_many_pixels",
  "image_too_complex",
];

/** @type {[label: string, action: () => void]} */
const START_AGAIN = ["Start again", startAnew];

/** @type {File | undefined} */
let file;
let imageId = "";
// The Checkout Session of the picture: in the address on the way back, else opened here.
let sessionId = new URLSearchParams(location.search).get("session_id") ?? "";
// What began in one run must not change the page in the next.
let run = 0;
let upload = new AbortController();
/** @type {{ mount(at: string): void, destroy(): void } | undefined} */
let checkout;

start();

function start() {
  for (const element of document.querySelectorAll("[data-price]")) {
    element.textContent = price();
  }
  for (const element of document.querySelectorAll("[data-limit]")) {
    element.textContent = megabytes(Number(maxBytes), Math.floor);
  }
  for (const id of ["file", "camera"]) {
    const input = part(id, HTMLInputElement);
    input.addEventListener("change", () => {
      take(input.files?.[0]);
      input.value = ""; // so that the same file can be chosen again
    });
  }
  acceptDrops();
  part("pay", HTMLButtonElement).addEventListener("click", pay);
  part("back", HTMLButtonElement).addEventListener("click", backToPicture);
  part("another", HTMLButtonElement).addEventListener("click", startAnew);
  part("anew", HTMLButtonElement).addEventListener("click", startAnew);
  part("save", HTMLAnchorElement).addEventListener("click", () =>
    removeEventListener("beforeunload", askBeforeLeaving),
  );
  if (sessionId) {
    // Some browsers lose it on the way through Stripe's pages. Here all do: this page is to show that it does not matter.
    inStorage((storage) => storage.removeItem("hero-me"));
    comeBack();
  } else {
    show("choose");
  }
}

// Choosing a picture, and uploading it

function acceptDrops() {
  const zone = part("drop", HTMLElement);
  document.addEventListener("dragover", (event) => {
    event.preventDefault(); // or the browser would leave the page for the file
    zone.classList.toggle("is-over", zone.contains(/** @type {Node} */ (event.target)));
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("is-over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("is-over");
    if (!part("choose", HTMLElement).hidden) {
      take(event.dataTransfer?.files[0]);
    }
  });
}

/** @param {File} [chosen] */
function take(chosen) {
  if (!chosen) {
    return;
  }
  file = chosen;
  showPicture("preview", chosen);
  show("picture");
  send();
}

/** Upload the chosen file, and offer to pay for it. */
async function send() {
  const chosen = /** @type {File} */ (file);
  if (chosen.size > Number(maxBytes)) {
    // The server would say the same, after a minute on a slow line.
    const limit = megabytes(Number(maxBytes), Math.floor);
    const sentence = `The picture is ${megabytes(chosen.size)}; the limit is ${limit}.`;
    return explain(new HeroimgError("image_too_large", sentence), send);
  }
  try {
    await uploadOnce(chosen);
  } catch (error) {
    explain(error, send);
  }
}

/** @param {File} chosen */
async function uploadOnce(chosen) {
  upload = new AbortController();
  const progress = part("progress", HTMLProgressElement);
  const uploading = part("uploading", HTMLElement);
  const onProgress = (/** @type {number} */ sent) => {
    progress.value = sent;
    part("percent", HTMLElement).textContent = `${Math.floor(sent * 100)} %`;
  };
  clearProblem();
  say("");
  part("pay", HTMLButtonElement).hidden = true;
  onProgress(0);
  uploading.hidden = false;
  try {
    imageId = await uploadImage(chosen, { onProgress, signal: upload.signal });
    say("Your picture is safe with us while you pay.");
    part("pay", HTMLButtonElement).hidden = false;
  } finally {
    uploading.hidden = true;
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

// Paying

async function pay() {
  const mine = run;
  const button = part("pay", HTMLButtonElement);
  button.disabled = true;
  clearProblem();
  say("Opening the checkout…");
  try {
    const { clientSecret, isRenewed } = await openSession();
    const stripe = await loadStripe();
    if (mine !== run) {
      return; // the customer has chosen another picture meanwhile
    }
    [sessionId] = clientSecret.split("_secret_");
    const opened = await stripe.createEmbeddedCheckoutPage({ fetchClientSecret: async () => clientSecret });
    if (mine !== run) {
      opened.destroy();
      return;
    }
    checkout = opened;
    inStorage((storage) => storage.setItem("hero-me", JSON.stringify({ name: file?.name })));
    show("payment");
    opened.mount("#checkout");
    if (isRenewed) {
      say("Your picture had waited for so long that it was uploaded once more. Nothing is lost.");
    }
  } catch (error) {
    if (mine === run) {
      closeCheckout();
      say("");
      explain(error, pay);
    }
  } finally {
    button.disabled = false;
  }
}

/**
 * Open a checkout for the picture. Where it has waited there for too long, the file is still at hand here; but where it
 * was paid for, in another window or by a bank's application, it is not to be paid for again.
 */
async function openSession() {
  try {
    return { clientSecret: await createCheckoutSession(imageId), isRenewed: false };
  } catch (error) {
    if (codeOf(error) !== "image_not_found" || !file) {
      throw error;
    }
  }
  if (sessionId && (await sessionStatus(sessionId, { onWait: sayWhy })).status === "complete") {
    throw new HeroimgError("checkout_complete", "This picture has been paid for already.");
  }
  await uploadOnce(file);
  return { clientSecret: await createCheckoutSession(imageId), isRenewed: true };
}

/** Stripe.js must come from Stripe, not from a bundle: https://docs.stripe.com/js/including */
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
      throw new Error("The checkout could not be loaded. Please check your connection, or what blocks content.");
    }
  }
  return page.Stripe(publishableKey);
}

function backToPicture() {
  closeCheckout();
  if (file) {
    show("picture");
    say("Your picture is still safe with us.");
  } else {
    comeBack(); // we had, too, and have been sent on to pay
  }
}

function closeCheckout() {
  checkout?.destroy(); // there can be one at a time
  checkout = undefined;
}

// Coming back

async function comeBack() {
  show("return");
  try {
    const { status, payment_status: payment, metadata } = await sessionStatus(sessionId, { onWait: sayWhy });
    imageId = metadata.imageId ?? "";
    if (!imageId) {
      throw new HeroimgError("session_not_found", "This session is not for a picture.");
    }
    if (status === "open") {
      problem("You have not paid yet.", ["Go on to pay", pay], START_AGAIN);
    } else if (status === "expired") {
      problem("The time to pay ran out. Nothing was charged.", START_AGAIN);
    } else if (payment === "unpaid") {
      const sentence = "Your bank has not confirmed the payment yet. Keep this page's address, and look again later.";
      problem(sentence, ["Look again", comeBack], START_AGAIN);
    } else {
      await fetchPicture();
    }
  } catch (error) {
    explain(error, comeBack);
  }
}

async function fetchPicture() {
  let isElsewhere = false;
  show("return");
  try {
    const blob = await retrieveImage(imageId, {
      onWait(error, seconds) {
        isElsewhere ||= error.code === "image_claimed";
        sayWhy(error, seconds);
      },
    });
    history.replaceState(null, "", location.pathname);
    showPicture("recovered", blob);
    part("size", HTMLElement).textContent = megabytes(blob.size);
    const save = part("save", HTMLAnchorElement);
    save.href = part("recovered", HTMLImageElement).src;
    save.download = `hero-me.${blob.type === "image/png" ? "png" : "jpg"}`;
    show("board");
    addEventListener("beforeunload", askBeforeLeaving);
  } catch (error) {
    if (codeOf(error) !== "image_not_found") {
      explain(error, fetchPicture);
    } else if (isElsewhere) {
      problem("Another window of yours has received this picture. Please look there.", START_AGAIN);
    } else {
      problem(
        "This picture was handed over already, or its time is over. Is it in another window? " +
          `If not, please write to us, and name this payment: ${sessionId}`,
        START_AGAIN,
      );
    }
  }
}

/** @param {Event} event the picture is nowhere else, and has not been saved */
function askBeforeLeaving(event) {
  event.preventDefault();
}

/** @type {import("/static/heroimg.js").OnWait} */
function sayWhy(error, seconds) {
  if (error.code === "image_claimed") {
    const minutes = Math.ceil(seconds / 60);
    say(
      `Another window of yours is opening this picture: look there. If that is closed, it comes here in ${minutes} min.`,
    );
  } else {
    const cause = error.code === "connection_lost" ? "The connection broke." : error.message;
    say(`${cause} Your picture is safe; we ask again in ${seconds} s.`);
  }
}

// What the page shows

/** @param {string} step */
function show(step) {
  const isFirst = Object.keys(STEPS).every((id) => part(id, HTMLElement).hidden);
  for (const [id, stage] of Object.entries(STEPS)) {
    part(id, HTMLElement).hidden = id !== step;
    part(stage, HTMLElement).removeAttribute("aria-current");
  }
  part(STEPS[step], HTMLElement).setAttribute("aria-current", "step");
  part("fetching", HTMLElement).hidden = false;
  clearProblem();
  say("");
  if (!isFirst) {
    focusHeading();
  }
}

/**
 * Say what is wrong, and offer the ways on.
 *
 * @param {string} sentence
 * @param {...[label: string, action: () => void]} ways
 */
function problem(sentence, ...ways) {
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
  part("fetching", HTMLElement).hidden = true;
  say("");
  const place = part("problem", HTMLElement);
  place.className = "notice";
  place.replaceChildren(text, ...(ways.length ? [choices] : []));
  place.scrollIntoView({ block: "nearest" });
  choices.querySelector("button")?.focus();
}

/**
 * @param {unknown} error
 * @param {() => void} again
 */
function explain(error, again) {
  if (error instanceof DOMException && error.name === "AbortError") {
    return; // the customer has stopped it
  }
  const code = codeOf(error);
  const sentence = error instanceof Error ? error.message : String(error);
  if (HOPELESS.includes(code)) {
    startAnew(); // the way on is to choose another
    problem(sentence);
  } else if (code === "checkout_complete") {
    problem("This picture has been paid for already.", ["Fetch it", comeBack]);
  } else if (code === "image_not_found") {
    problem("This picture has waited too long, and is gone.", START_AGAIN);
  } else if (code === "session_id_malformed" || code === "session_not_found") {
    problem("This address is not complete. Please open the link again that brought you here.", [
      "Start again",
      startAnew,
    ]);
  } else {
    problem(sentence, ["Try again", again], ...(file ? [] : [START_AGAIN]));
  }
  part("problem", HTMLElement).className = "notice bad";
}

function clearProblem() {
  const place = part("problem", HTMLElement);
  if (place.contains(document.activeElement)) {
    focusHeading(); // or the focus would be lost with the button that has it
  }
  place.replaceChildren();
}

function focusHeading() {
  /** @type {HTMLElement | null} */ (document.querySelector("section:not([hidden]) h1"))?.focus();
}

/** @param {string} sentence */
function say(sentence) {
  part("status", HTMLElement).textContent = sentence;
}

/**
 * @param {string} id
 * @param {Blob} blob
 */
function showPicture(id, blob) {
  const image = part(id, HTMLImageElement);
  URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(blob);
}

/** @param {unknown} error */
function codeOf(error) {
  return error instanceof HeroimgError ? error.code : "";
}

/**
 * @param {number} bytes
 * @param {(size: number) => number} [round] a picture's size up, a limit down, so that neither reads as the other
 */
function megabytes(bytes, round = Math.ceil) {
  return `${round((bytes / 1024 / 1024) * 10) / 10} MB`;
}

function price() {
  const digits = { minimumFractionDigits: Number(decimals), maximumFractionDigits: Number(decimals) };
  const money = new Intl.NumberFormat(undefined, { style: "currency", currency, ...digits });
  return money.format(Number(unitAmount) / 10 ** Number(decimals));
}

/**
 * Work with the localStorage, where the browser lets us.
 *
 * @param {(storage: Storage) => void} work
 */
function inStorage(work) {
  try {
    work(localStorage);
  } catch {
    // Nothing of ours depends on it: that is the point of this page.
  }
}

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
function part(id, type) {
  const element = document.getElementById(id);
  if (!(element instanceof type)) {
    throw new Error(`The page has no ${type.name} with the id ${id}.`);
  }
  return element;
}
