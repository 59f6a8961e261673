/**
 * The browser's side of heroimg. It makes a photograph fit, talks to the API, keeps the claim that makes a broken connection
 * harmless, and never touches the page.
 *
 *     const imageId = await uploadImage(file);
 *     const clientSecret = await createCheckoutSession(imageId);
 *     // ... Stripe's checkout; the customer pays, and comes back with ?session_id= ...
 *     const { status, metadata } = await sessionStatus(sessionId);
 *     const blob = await retrieveImage(metadata.imageId);
 *
 * Every function rejects with a {@link HeroimgError}, or with the reason of the signal that stopped it.
 *
 * @module heroimg
 */

import {
  HeroimgError,
  UPLOAD_PATIENCE,
  ask,
  connectionLost,
  failure,
  isAskedToWait,
  patiently,
  understand,
} from "./http.js";

export { fitImage, serverLimits, setHeicDecoder } from "./fit.js";
export { HeroimgError, setBaseUrl } from "./http.js";
export { uploadImage } from "./upload.js";

/** @typedef {import("./fit.js").FitOptions} FitOptions */
/** @typedef {import("./fit.js").ServerLimits} ServerLimits */
/** @typedef {import("./http.js").OnWait} OnWait */
/** @typedef {import("./upload.js").OnProgress} OnProgress */

/**
 * How a Checkout Session stands, in Stripe's words.
 *
 * `complete` and `unpaid` is a delayed payment, such as a bank debit: the money comes days later, or not.
 *
 * @typedef {object} SessionStatus
 * @property {"open" | "complete" | "expired"} status
 * @property {"paid" | "unpaid" | "no_payment_required"} payment_status
 * @property {{ imageId: string }} metadata empty for a session that is not heroimg's
 */

const RETRIEVE = "/api/temp-image-retrieve";
const SESSION = "/api/checkout/embedded-session";
const STATUS = "/api/checkout/session-status";

/**
 * Open a checkout for a picture, or get the one that is open. Stripe takes this as its `fetchClientSecret`:
 * `stripe.createEmbeddedCheckoutPage({ fetchClientSecret: () => createCheckoutSession(imageId) })`.
 *
 * Asks again after 503 if the server says when, for two minutes at most.
 *
 * @param {string} imageId
 * @param {object} [options]
 * @param {OnWait} [options.onWait]
 * @returns {Promise<string>} the session's client secret
 */
export async function createCheckoutSession(imageId, { onWait } = {}) {
  const init = {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ imageId, claim: heldClaim(imageId) }),
  };
  const canPass = (/** @type {HeroimgError} */ error) => error.status === 503 && isAskedToWait(error);
  const answer = await patiently(() => ask(SESSION, init), { onWait, canPass, patience: UPLOAD_PATIENCE });
  return understand(200, null, await answer.text(), "client_secret").client_secret;
}

/**
 * Ask for a checkout's status; again while the connection breaks or the server has a temporary problem.
 *
 * @param {string} sessionId as Stripe adds it to the address to which customers return
 * @param {object} [options]
 * @param {OnWait} [options.onWait]
 * @returns {Promise<SessionStatus>}
 */
export async function sessionStatus(sessionId, { onWait } = {}) {
  const path = `${STATUS}?session_id=${encodeURIComponent(sessionId)}`;
  const answer = await patiently(() => ask(path), { onWait });
  return understand(200, null, await answer.text(), "status");
}

/** @type {Map<string, { blob: Promise<Blob>, listeners: Set<OnWait> }>} */
const retrievals = new Map();

/**
 * Fetch a picture under a claim of this page's own, and confirm once all of it has arrived.
 *
 * If the connection breaks, another page holds the picture or the server has a temporary problem, it tries again, for five
 * and a half minutes. All calls for one picture share one result, also after it has arrived: React's StrictMode makes two
 * at once. Then this page has the only copy, and a reload no longer finds the picture.
 *
 * @param {string} imageId
 * @param {object} [options]
 * @param {OnWait} [options.onWait]
 * @returns {Promise<Blob>} the very bytes that were uploaded
 */
export function retrieveImage(imageId, { onWait } = {}) {
  let retrieval = retrievals.get(imageId);
  if (!retrieval) {
    /** @type {Set<OnWait>} */
    const listeners = new Set();
    const blob = fetchAndConfirm(imageId, (error, seconds) => listeners.forEach((tell) => tell(error, seconds)));
    retrieval = { blob, listeners };
    retrievals.set(imageId, retrieval);
    blob.catch(() => retrievals.delete(imageId));
  }
  if (onWait) {
    retrieval.listeners.add(onWait);
  }
  return retrieval.blob;
}

/**
 * @param {string} imageId
 * @param {OnWait} onWait
 */
async function fetchAndConfirm(imageId, onWait) {
  const path = `${RETRIEVE}?imageId=${encodeURIComponent(imageId)}&claim=${claimFor(imageId)}`;
  const blob = await patiently(() => askForPicture(path), { onWait });
  // Nobody waits for this: the picture has arrived. Unconfirmed, it is deleted when its time is over.
  patiently(() => ask(path, { method: "DELETE", keepalive: true })).then(
    () => forgetClaim(imageId),
    () => {},
  );
  return blob;
}

/**
 * @param {string} path
 * @returns {Promise<Blob>} the complete picture
 */
async function askForPicture(path) {
  const answer = await ask(path);
  const blob = await answer.blob();
  // Not Content-Length: proxies drop it, or change it when they compress.
  const size = answer.headers.get("Image-Size");
  if (size === null) {
    throw failure(200); // a page of some gateway or development server: do not confirm
  }
  if (blob.size !== Number(size)) {
    throw connectionLost(`${blob.size} bytes arrived of ${size}`);
  }
  return blob;
}

/** @type {Map<string, string>} for browsers without a sessionStorage */
const claims = new Map();

/**
 * Get the page's token for a picture, or make one: 128 random bits, which survive a reload if there is a sessionStorage.
 *
 * @param {string} imageId
 */
function claimFor(imageId) {
  const random = () =>
    Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0"));
  const token = heldClaim(imageId) ?? random().join("");
  claims.set(imageId, token);
  stored((storage) => storage.setItem(claimKey(imageId), token));
  return token;
}

/** @param {string} imageId */
function heldClaim(imageId) {
  return claims.get(imageId) ?? stored((storage) => storage.getItem(claimKey(imageId))) ?? undefined;
}

/** @param {string} imageId */
function forgetClaim(imageId) {
  claims.delete(imageId);
  stored((storage) => storage.removeItem(claimKey(imageId)));
}

/** @param {string} imageId */
const claimKey = (imageId) => `heroimg.claim.${imageId}`;

/**
 * Work with the sessionStorage. If there is none, or the browser forbids it, nothing is stored.
 *
 * @template T
 * @param {(storage: Storage) => T} work
 */
function stored(work) {
  try {
    return work(sessionStorage);
  } catch {
    return undefined;
  }
}
