// The page's one file: a picture is chosen, paid for in Stripe's embedded checkout, and fetched on the way back.

import { HeroimgError, createCheckoutSession, retrieveImage, sessionStatus, uploadImage } from "/static/heroimg.js";

const { stripeJs = "", publishableKey = "", unitAmount, currency, maxBytes } = document.body.dataset;
const sessionId = new URLSearchParams(location.search).get("session_id");

/** @type {Record<string, string>} the page's sections, and where on the journey each is */
const STEPS = {
  choose: "at-picture",
  picture: "at-picture",
  payment: "at-payment",
  return: "at-board",
  board: "at-board",
};

// The API's words for a picture that will not be taken, however often it is sent.
const HOPELESS = ["image_too_large", "not_a_picture", "image_damaged", "too_many_pixels", "image_too_complex"];

/** @type {File | undefined} */
let file;
let imageId = "";
let upload = new AbortController();
/** @type {{ mount(at: string): void, destroy(): void } | undefined} */
let checkout;

start();

function start() {
  for (const element of document.querySelectorAll("[data-price]")) {
    element.textContent = price();
  }
  for (const element of document.querySelectorAll("[data-limit]")) {
    element.textContent = megabytes(Number(maxBytes));
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
  if (sessionId) {
    // Some browsers forget it on the way through Stripe's pages. Here all do: this page is to show that it does not matter.
    localStorage.clear();
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
    const sentence = `The picture is ${megabytes(chosen.size)}; the limit is ${megabytes(Number(maxBytes))}.`;
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
  upload.abort();
  closeCheckout();
  file = undefined;
  imageId = "";
  history.replaceState(null, "", location.pathname);
  show("choose");
}

// Paying

async function pay() {
  const button = part("pay", HTMLButtonElement);
  button.disabled = true;
  clearProblem();
  say("Opening the checkout…");
  try {
    const { clientSecret, isRenewed } = await openSession();
    const stripe = await loadStripe();
    checkout = await stripe.createEmbeddedCheckoutPage({ fetchClientSecret: async () => clientSecret });
    localStorage.setItem("hero-me", JSON.stringify({ name: file?.name }));
    show("payment");
    checkout?.mount("#checkout");
    if (isRenewed) {
      say("Your picture had waited for so long that it was uploaded once more. Nothing is lost.");
    }
  } catch (error) {
    say("");
    explain(error, pay);
  } finally {
    button.disabled = false;
  }
}

/** Open a checkout for the picture. Where it has waited there for too long, the file is still at hand here. */
async function openSession() {
  try {
    return { clientSecret: await createCheckoutSession(imageId), isRenewed: false };
  } catch (error) {
    if (codeOf(error) !== "image_not_found" || !file) {
      throw error;
    }
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
    await new Promise((resolve, reject) => {
      script.onload = resolve;
      script.onerror = () => {
        script.remove();
        reject(new Error("The checkout could not be loaded. Please check your connection, or what blocks content."));
      };
    });
  }
  return page.Stripe(publishableKey);
}

function backToPicture() {
  closeCheckout();
  if (file) {
    show("picture");
    say("Nothing was charged. Your picture is still safe with us.");
  } else {
    startAnew();
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
    const { status, payment_status: payment, metadata } = await sessionStatus(sessionId ?? "", { onWait: sayWhy });
    imageId = metadata.imageId ?? "";
    if (status === "open") {
      problem("You have not paid yet, and nothing was charged.", ["Go on to pay", pay], ["Start again", startAnew]);
    } else if (status === "expired") {
      problem("The time to pay ran out. Nothing was charged.", ["Start again", startAnew]);
    } else if (payment === "unpaid") {
      problem("Your bank has not confirmed the payment yet. Your picture waits for a day; keep this page's address.", [
        "Look again",
        comeBack,
      ]);
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
    part("save", HTMLAnchorElement).href = part("recovered", HTMLImageElement).src;
    show("board");
  } catch (error) {
    if (codeOf(error) !== "image_not_found") {
      explain(error, fetchPicture);
    } else if (isElsewhere) {
      problem("Another window of yours has received this picture. Please look there.", ["Start again", startAnew]);
    } else {
      problem(
        "This picture was handed over already, or its time is over. Is it in another window? " +
          `If not, please write to us, and name this payment: ${sessionId}`,
        ["Start again", startAnew],
      );
    }
  }
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
    /** @type {HTMLElement} */ (document.querySelector(`#${step} h1`)).focus();
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
  part("problem", HTMLElement).replaceChildren(text, ...(ways.length ? [choices] : []));
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
    problem("This picture has been paid for already.", ["Fetch it", fetchPicture]);
  } else if (code === "image_not_found") {
    problem("This picture has waited too long, and is gone. Nothing was charged.", ["Start again", startAnew]);
  } else {
    problem(sentence, ["Try again", again]);
  }
}

function clearProblem() {
  part("problem", HTMLElement).replaceChildren();
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

/** @param {number} bytes */
function megabytes(bytes) {
  const size = bytes / 1024 / 1024;
  return `${Math.ceil(size * 10) / 10} MB`;
}

function price() {
  const money = new Intl.NumberFormat(undefined, { style: "currency", currency });
  return money.format(Number(unitAmount) / 10 ** (money.resolvedOptions().maximumFractionDigits ?? 2));
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
