/**
 * The browser's side of heroimg. It talks to the API, keeps the claim that makes a broken connection harmless, and never
 * touches the page.
 *
 *     const imageId = await uploadImage(file);
 *     const clientSecret = await createCheckoutSession(imageId);
 *     // ... Stripe's checkout; the customer pays, and comes back with ?session_id= ...
 *     const { status, metadata } = await sessionStatus(sessionId);
 *     const blob = await retrieveImage(metadata.imageId);
 *
 * Every function rejects with a {@link HeroimgError}; only an upload stopped by its signal does so with that's reason.
 *
 * @module heroimg
 */

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

/**
 * Is told before each wait: why there is one, and how many seconds it takes until the next attempt.
 *
 * @callback OnWait
 * @param {HeroimgError} error
 * @param {number} seconds
 * @returns {void}
 */

// In seconds. A claim of another page lapses after HEROIMG_CLAIM_SECONDS, 300 unless set otherwise: wait a little longer.
const PATIENCE = 330;
const LONGEST_PAUSE = 16;
// A phone that has changed its network is not told that its connection is dead. Stripe may take 28 seconds (payments.py).
const LONGEST_SILENCE = 60;

const UPLOAD = "/api/temp-image-upload";
const RETRIEVE = "/api/temp-image-retrieve";
const SESSION = "/api/checkout/embedded-session";
const STATUS = "/api/checkout/session-status";

/** A failure. Its `message` is a sentence for the customer. */
export class HeroimgError extends Error {
  /**
   * @param {string} code the API's stable word; or `connection_lost`, where no answer arrived whole, or
   *   `answer_unreadable`, where what answered was not heroimg
   * @param {string} message
   * @param {{ status?: number, retryAfter?: number, cause?: unknown }} [details]
   */
  constructor(code, message, { status = 0, retryAfter, cause } = {}) {
    super(message, { cause });
    this.name = "HeroimgError";
    this.code = code;
    /** The HTTP status; 0 where no answer arrived whole. */
    this.status = status;
    /** Seconds after which asking again makes sense, where the server said so. */
    this.retryAfter = retryAfter;
  }
}

let base = "";

/**
 * Say where heroimg is, where that is not the page's own origin: `setBaseUrl("https://pictures.example.com")`.
 * The page's origin must be that server's FRONTEND_URL.
 *
 * @param {string} url
 */
export function setBaseUrl(url) {
  base = url.replace(/\/+$/, "");
}

/**
 * Upload a picture, to be kept for an hour.
 *
 * @param {Blob} file a PNG or a JPEG, as a file input gives it
 * @param {object} [options]
 * @param {(sent: number) => void} [options.onProgress] is told how much has gone up, from 0 to 1
 * @param {AbortSignal} [options.signal] stops it; the promise then rejects with the signal's reason, as `fetch` does
 * @returns {Promise<string>} the picture's id, which opens it: keep it out of addresses and logs
 */
export function uploadImage(file, { onProgress, signal } = {}) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const request = new XMLHttpRequest(); // fetch does not tell how much has gone up
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
 * Open a checkout for a picture, or find the one that is open. Stripe takes this as its `fetchClientSecret`:
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
 * Ask how a checkout stands; again, where the connection breaks or the server is out of breath.
 *
 * @param {string} sessionId as Stripe adds it to the address to which customers return
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
 * Fetch a picture under a claim of this page's own, and confirm once all of it is here.
 *
 * A broken connection, a reload and another page that holds the picture are waited for, up to five and a half minutes.
 * All calls for one picture share one result, also after it has arrived: React's StrictMode makes two at once. Then
 * this page has the only copy, and a reload finds nothing any more.
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
  const blob = await patiently(() => askForPicture(path), onWait);
  // Nobody waits for this: the picture is here. Unconfirmed, it is forgotten when its time is over.
  patiently(() => ask(path, { method: "DELETE", keepalive: true })).then(
    () => forgetClaim(imageId),
    () => {},
  );
  return blob;
}

/** @type {Map<string, string>} for browsers without a sessionStorage */
const claims = new Map();

/**
 * Find the page's token for a picture, or make one: 128 random bits, which survive a reload where there is a
 * sessionStorage.
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
 * Work with the sessionStorage. Where there is none, or the browser forbids it, nothing is stored.
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
 * Attempt until it works or fails for good, waiting as long as the server says, or twice as long each time.
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
  // A proxy's, while heroimg restarts; deploy/nginx.conf has a code of its own for it.
  const isGateways = ["answer_unreadable", "server_unreachable"].includes(code) && (status === 502 || status === 504);
  const isOutOfBreath = [409, 429, 503].includes(status) && code !== "checkout_not_configured";
  return code === "connection_lost" || isOutOfBreath || isGateways;
}

/**
 * @param {string} path
 * @returns {Promise<Blob>} the picture, all of it
 */
async function askForPicture(path) {
  const answer = await ask(path);
  const blob = await answer.blob();
  // Not Content-Length: proxies drop it, or change it when they compress.
  const size = answer.headers.get("Image-Size");
  if (size === null) {
    throw failure(200); // a page of some gateway or development server, not to be confirmed
  }
  if (blob.size !== Number(size)) {
    throw connectionLost(`${blob.size} bytes arrived of ${size}`);
  }
  return blob;
}

/**
 * Ask the API once.
 *
 * @param {string} path
 * @param {RequestInit} [init]
 * @returns {Promise<Response>} a good answer, whose body is here
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
      throw new TypeError("an answer that was cut in its headers looks like an empty one");
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
 * @param {() => void} listen is called whenever something arrives
 * @returns {Promise<Blob | null>}
 */
async function readWhole(response, listen) {
  if (response.status === 204) {
    return null;
  }
  if (!response.body) {
    return response.blob(); // a browser without streams
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
 * Read an answer of the API: the object of a good one, which has a text of this name.
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
 * @param {any} [answer] of the API's shape, or of another where it was not the API that answered
 */
function failure(status, retryAfter, answer) {
  const isApis = typeof answer?.code === "string" && typeof answer.error === "string";
  const sentence = `The server gave an answer that makes no sense here (${status}). Please try again in a moment.`;
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
