/**
 * heroimg's client for browsers. It makes a photograph fit, calls the API, and safely repeats an upload or a retrieval
 * if the connection breaks. It does not change the page.
 *
 *     const imageId = await uploadImage(file);
 *     const clientSecret = await createCheckoutSession(imageId);
 *     // ... the customer pays in Stripe's checkout and returns with ?session_id= ...
 *     const { status, metadata } = await sessionStatus(sessionId);
 *     const blob = await retrieveImage(metadata.imageId);
 *
 * A function that fails rejects with a {@link HeroimgError}, or with a `RangeError` for a wrong `maxEdge`. If the page
 * aborts the signal, the function rejects with the signal's reason.
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
 * The state of a Checkout Session, as Stripe names it.
 *
 * `complete` and `unpaid` means a delayed payment, such as a bank debit: the money arrives days later, or never.
 *
 * @typedef {object} SessionStatus
 * @property {"open" | "complete" | "expired"} status
 * @property {"paid" | "unpaid" | "no_payment_required"} payment_status
 * @property {{ imageId: string }} metadata empty if heroimg did not make the session
 */

const RETRIEVE = "/api/temp-image-retrieve";
const SESSION = "/api/checkout/embedded-session";
const STATUS = "/api/checkout/session-status";

/**
 * Open a checkout for a picture, or return its open checkout. Call this function in Stripe's `fetchClientSecret`:
 * `stripe.createEmbeddedCheckoutPage({ fetchClientSecret: () => createCheckoutSession(imageId) })`.
 *
 * After 503 with Retry-After, this function tries again, for up to two minutes.
 *
 * @param {string} imageId
 * @param {object} [options]
 * @param {OnWait} [options.onWait]
 * @param {AbortSignal} [options.signal]
 * @returns {Promise<string>} the session's client secret
 */
export async function createCheckoutSession(imageId, { onWait, signal } = {}) {
  const init = {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ imageId, claim: heldClaim(imageId) }),
  };
  const canPass = (/** @type {HeroimgError} */ error) => error.status === 503 && isAskedToWait(error);
  const answer = await patiently(() => ask(SESSION, init), { onWait, signal, canPass, patience: UPLOAD_PATIENCE });
  return understand(200, null, await answer.text(), "client_secret").client_secret;
}

/**
 * Request the state of a checkout. Tries again if the connection breaks or the server has a temporary problem.
 *
 * @param {string} sessionId the `session_id` in the address to which the customer returns
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
 * Retrieve a picture, and confirm that it has arrived completely. heroimg then deletes the picture, and the page has
 * the only copy.
 *
 * Tries again for up to five and a half minutes if the connection breaks, the server has a temporary problem or another
 * page is retrieving the picture. After a reload, the page can call this function again. All calls for one picture
 * share one result, because React's StrictMode makes two calls.
 *
 * @param {string} imageId
 * @param {object} [options]
 * @param {OnWait} [options.onWait]
 * @returns {Promise<Blob>} the uploaded bytes
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
  // The confirmation runs in the background. If it fails, the picture expires anyway.
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
  // Proxies may drop Content-Length, or change it when they compress.
  const size = answer.headers.get("Image-Size");
  if (size === null) {
    throw failure(200); // a gateway or development server answered: this is not the picture
  }
  if (blob.size !== Number(size)) {
    throw connectionLost(`${blob.size} bytes arrived of ${size}`);
  }
  return blob;
}

/** @type {Map<string, string>} for browsers without sessionStorage */
const claims = new Map();

/**
 * Return the page's token for a picture, or make a token of 128 random bits. In sessionStorage, the token survives a
 * reload.
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
 * Use sessionStorage. Do nothing if the browser has no sessionStorage or forbids it.
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
