/**
 * heroimg's client for browsers. It calls the API, and repeats a retrieval safely if the connection breaks. It does not
 * touch the page.
 *
 *     const imageId = await uploadImage(file);
 *     const clientSecret = await createCheckoutSession(imageId);
 *     // ... the customer pays in Stripe's checkout and returns with ?session_id= ...
 *     const { status, metadata } = await sessionStatus(sessionId);
 *     const blob = await retrieveImage(metadata.imageId);
 *
 * Every function rejects with a {@link HeroimgError}. Only an upload that its signal stopped rejects with the reason of
 * the signal.
 *
 * @module heroimg
 */

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

/**
 * Called before each wait, with its reason and the seconds until the next attempt.
 *
 * @callback OnWait
 * @param {HeroimgError} error
 * @param {number} seconds
 * @returns {void}
 */

// All in seconds. Another page's claim lapses after HEROIMG_CLAIM_SECONDS, by default 300: wait a little longer.
const PATIENCE = 330;
const LONGEST_PAUSE = 16;
// A phone that changed its network does not notice that its connection is dead, so end a request if no data come for
// this time. It is longer than the 20 seconds that a call to Stripe may take.
const LONGEST_SILENCE = 60;

const UPLOAD = "/api/temp-image-upload";
const RETRIEVE = "/api/temp-image-retrieve";
const SESSION = "/api/checkout/embedded-session";
const STATUS = "/api/checkout/session-status";

/** A failure. Its `message` is a sentence for the customer. */
export class HeroimgError extends Error {
  /**
   * @param {string} code the API's code; or `connection_lost` if no complete answer arrived, or `answer_unreadable` if
   *   the answer is not heroimg's
   * @param {string} message
   * @param {{ status?: number, retryAfter?: number, cause?: unknown }} [details]
   */
  constructor(code, message, { status = 0, retryAfter, cause } = {}) {
    super(message, { cause });
    this.name = "HeroimgError";
    this.code = code;
    /** The HTTP status; 0 if no complete answer arrived. */
    this.status = status;
    /** The seconds to wait before another try, if the server sent them. */
    this.retryAfter = retryAfter;
  }
}

let base = "";

/**
 * Set heroimg's address if it is not the page's own origin: `setBaseUrl("https://pictures.example.com")`.
 * FRONTEND_URL of that server must be the page's origin.
 *
 * @param {string} url
 */
export function setBaseUrl(url) {
  base = url.replace(/\/+$/, "");
}

/**
 * Upload a picture, which heroimg keeps for an hour.
 *
 * @param {Blob} file a PNG or JPEG, as a file input returns it
 * @param {object} [options]
 * @param {(sent: number) => void} [options.onProgress] called with the share that was sent, from 0 to 1
 * @param {AbortSignal} [options.signal] stops the upload; the promise rejects with the signal's reason, as `fetch` does
 * @returns {Promise<string>} the picture's id. Anyone with the id can retrieve it: keep the id out of addresses and logs
 */
export function uploadImage(file, { onProgress, signal } = {}) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const request = new XMLHttpRequest(); // fetch does not report progress
    const stop = () => request.abort();
    request.open("POST", base + UPLOAD);
    request.onload = () => {
      try {
        resolve(
          understand(request.status, request.getResponseHeader("Retry-After"), request.responseText, "imageId").imageId,
        );
      } catch (error) {
        reject(error);
      }
    };
    request.onerror = () => reject(connectionLost());
    request.onabort = () => reject(signal?.aborted ? signal.reason : connectionLost());
    request.onloadend = () => signal?.removeEventListener("abort", stop);
    if (onProgress) {
      request.upload.onprogress = ({ loaded, total }) => onProgress(loaded / total);
    }
    signal?.addEventListener("abort", stop);
    const form = new FormData();
    form.append("image", file);
    request.send(form);
  });
}

/**
 * Open a checkout for a picture, or return the one that is open. Call this in Stripe's `fetchClientSecret`:
 * `stripe.createEmbeddedCheckoutPage({ fetchClientSecret: () => createCheckoutSession(imageId) })`.
 *
 * @param {string} imageId
 * @returns {Promise<string>} the session's client secret
 */
export async function createCheckoutSession(imageId) {
  const body = JSON.stringify({ imageId });
  const init = { method: "POST", headers: { "Content-Type": "application/json" }, body };
  const answer = await ask(SESSION, init);
  return understand(200, null, await answer.text(), "client_secret").client_secret;
}

/**
 * Request the state of a checkout. Retries if the connection breaks or the server is overloaded.
 *
 * @param {string} sessionId the `session_id` in the address to which the customer returns
 * @param {object} [options]
 * @param {OnWait} [options.onWait]
 * @returns {Promise<SessionStatus>}
 */
export async function sessionStatus(sessionId, { onWait } = {}) {
  const path = `${STATUS}?session_id=${encodeURIComponent(sessionId)}`;
  const answer = await patiently(() => ask(path), onWait);
  return understand(200, null, await answer.text(), "status");
}

/** @type {Map<string, { blob: Promise<Blob>, listeners: Set<OnWait> }>} */
const retrievals = new Map();

/**
 * Retrieve a picture, and confirm it once it has arrived completely. Then heroimg deletes it, and the page has the only
 * copy.
 *
 * Retries for up to five and a half minutes if the connection breaks or another page is retrieving the picture. If the
 * page is reloaded before the end, it can call this again. All calls for one picture share one result, because React's
 * StrictMode makes two.
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
  const blob = await patiently(() => askForPicture(path), onWait);
  // The caller does not wait for this. A picture that is not confirmed expires.
  patiently(() => ask(path, { method: "DELETE", keepalive: true })).then(
    () => forgetClaim(imageId),
    () => {},
  );
  return blob;
}

/** @type {Map<string, string>} for browsers without sessionStorage */
const claims = new Map();

/**
 * Return the page's token for a picture, or make one of 128 random bits. It survives a reload if there is sessionStorage.
 *
 * @param {string} imageId
 */
function claimFor(imageId) {
  const random = () =>
    Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0"));
  const token = claims.get(imageId) ?? stored((storage) => storage.getItem(claimKey(imageId))) ?? random().join("");
  claims.set(imageId, token);
  stored((storage) => storage.setItem(claimKey(imageId), token));
  return token;
}

/** @param {string} imageId */
function forgetClaim(imageId) {
  claims.delete(imageId);
  stored((storage) => storage.removeItem(claimKey(imageId)));
}

/** @param {string} imageId */
const claimKey = (imageId) => `heroimg.claim.${imageId}`;

/**
 * Use sessionStorage. Does nothing if the browser has none or forbids it.
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

/**
 * Attempt until it succeeds or fails for good. Waits as long as the server asks, or twice as long each time.
 *
 * @template T
 * @param {() => Promise<T>} attempt
 * @param {OnWait} [onWait]
 */
async function patiently(attempt, onWait) {
  const start = Date.now();
  for (let pause = 1; ; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
    try {
      return await attempt();
    } catch (error) {
      const seconds = error instanceof HeroimgError && mayPass(error) ? (error.retryAfter ?? pause) : Infinity;
      if ((Date.now() - start) / 1000 + seconds > PATIENCE) {
        throw error;
      }
      onWait?.(/** @type {HeroimgError} */ (error), seconds);
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
  }
}

/** @param {HeroimgError} error */
function mayPass({ code, status }) {
  // A proxy answers while heroimg restarts; deploy/nginx.conf has its own code for that.
  const isFromProxy = ["answer_unreadable", "server_unreachable"].includes(code) && (status === 502 || status === 504);
  const isOverloaded = [409, 429, 503].includes(status) && code !== "checkout_not_configured";
  return code === "connection_lost" || isOverloaded || isFromProxy;
}

/**
 * @param {string} path
 * @returns {Promise<Blob>} the complete picture
 */
async function askForPicture(path) {
  const answer = await ask(path);
  const blob = await answer.blob();
  // Do not use Content-Length: some proxies drop it, or change it when they compress.
  const size = answer.headers.get("Image-Size");
  if (size === null) {
    throw failure(200); // the answer of a gateway or development server, which must not be confirmed
  }
  if (blob.size !== Number(size)) {
    throw connectionLost(`${blob.size} bytes arrived of ${size}`);
  }
  return blob;
}

/**
 * Send one request to the API.
 *
 * @param {string} path
 * @param {RequestInit} [init]
 * @returns {Promise<Response>} a successful answer with its complete body
 */
async function ask(path, init) {
  const silence = new AbortController();
  let timer = 0;
  const listen = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), LONGEST_SILENCE * 1000);
  };
  let answer;
  try {
    listen();
    const response = await fetch(base + path, { ...init, signal: silence.signal });
    const body = await readWhole(response, listen);
    if (body?.size === 0) {
      throw new TypeError("an empty answer, because the connection broke before its body");
    }
    answer = new Response(body, { status: response.status, headers: response.headers });
  } catch (cause) {
    throw connectionLost(cause);
  } finally {
    clearTimeout(timer);
  }
  if (!answer.ok) {
    throw failure(answer.status, answer.headers.get("Retry-After"), parsed(await answer.text()));
  }
  return answer;
}

/**
 * @param {Response} response
 * @param {() => void} listen called whenever data arrives
 * @returns {Promise<Blob | null>}
 */
async function readWhole(response, listen) {
  if (response.status === 204) {
    return null;
  }
  if (!response.body) {
    return response.blob(); // the browser has no streams
  }
  const parts = [];
  const reader = response.body.getReader();
  for (let part = await reader.read(); part.value; part = await reader.read()) {
    parts.push(part.value);
    listen();
  }
  return new Blob(parts, { type: response.headers.get("Content-Type") ?? "" });
}

/**
 * Parse an answer of the API. A successful one is an object with a string under this name.
 *
 * @param {number} status
 * @param {string | null} retryAfter
 * @param {string} text
 * @param {string} name
 */
function understand(status, retryAfter, text, name) {
  const answer = parsed(text);
  if (status === 200 && typeof answer?.[name] === "string") {
    return answer;
  }
  throw failure(status, retryAfter, answer);
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * @param {number} status
 * @param {string | null} [retryAfter]
 * @param {any} [answer] anything, if it is not the API's answer
 */
function failure(status, retryAfter, answer) {
  const isApis = typeof answer?.code === "string" && typeof answer.error === "string";
  const sentence = `The server sent an unexpected answer (${status}). Please try again in a moment.`;
  return new HeroimgError(isApis ? answer.code : "answer_unreadable", isApis ? answer.error : sentence, {
    status,
    retryAfter: /^\d+$/.test(retryAfter ?? "") ? Math.max(1, Number(retryAfter)) : undefined,
  });
}

/** @param {unknown} [cause] */
function connectionLost(cause) {
  const sentence = "The connection broke. Please check that you are online, and try again.";
  return new HeroimgError("connection_lost", sentence, { cause });
}
