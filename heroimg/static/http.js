/**
 * Sends requests to heroimg, aborts requests without progress, tries again, and turns failures into errors.
 *
 * @module http
 */

/**
 * Called before each pause, with the error of the last attempt and the seconds until the next attempt.
 *
 * @callback OnWait
 * @param {HeroimgError} error
 * @param {number} seconds
 * @returns {void}
 */

// In seconds. Another page's claim lapses after HEROIMG_CLAIM_SECONDS, by default 300: try for a little longer.
const PATIENCE = 330;
// Uploads and checkouts give up earlier, because the customer is waiting and can try again.
export const UPLOAD_PATIENCE = 120;
const LONGEST_PAUSE = 16;
// In seconds. After a change of network, a dead connection stays silent. A server that waits for Stripe may be silent
// for more than 20 s.
const LONGEST_SILENCE = 60;
// In seconds. When the last byte has left the browser, megabytes may still be in the system's buffers.
export const LONGEST_SILENCE_AFTER_UPLOAD = 120;

// After these codes, a retry would fail. After payment_failed, a retry may work, because Stripe may recover.
const HOPELESS = ["checkout_complete", "checkout_not_configured", "clock_wrong"];

/** A failure. Its `message` is a sentence for the customer. */
export class HeroimgError extends Error {
  /**
   * @param {string} code a code of the API or of this module: see docs/front-end.md
   * @param {string} message
   * @param {{ status?: number, retryAfter?: number, found?: string, cause?: unknown }} [details]
   */
  constructor(code, message, { status = 0, retryAfter, found, cause } = {}) {
    super(message, { cause });
    this.name = "HeroimgError";
    this.code = code;
    /** The HTTP status; 0 if no complete answer arrived. */
    this.status = status;
    /** The seconds to wait before another try, if the server sent them. */
    this.retryAfter = retryAfter;
    /** The kind of a file that the server refused with `not_a_picture`, such as "heic". */
    this.found = found;
  }
}

let base = "";

/**
 * Set heroimg's address if it differs from the page's origin: `setBaseUrl("https://pictures.example.com")`.
 * heroimg's FRONTEND_URL must contain the page's origin.
 *
 * @param {string} url
 */
export function setBaseUrl(url) {
  base = url.replace(/\/+$/, "");
}

/** @param {string} path */
export const urlOf = (path) => base + path;

/**
 * Repeat an attempt until it succeeds, fails for good, or the patience ends. A pause is as long as the server asks. If
 * the server does not ask, the pauses are 1, 2, 4, 8 and then 16 seconds.
 *
 * @template T
 * @param {() => Promise<T>} attempt
 * @param {object} [options]
 * @param {OnWait} [options.onWait]
 * @param {AbortSignal} [options.signal]
 * @param {(error: HeroimgError) => boolean} [options.canPass] tells whether a later attempt may work
 * @param {number} [options.patience] in seconds
 */
export async function patiently(attempt, { onWait, signal, canPass = isTemporary, patience = PATIENCE } = {}) {
  let spent = 0;
  for (let pause = 1; ; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
    const start = Date.now();
    try {
      return await orStopped(attempt, signal);
    } catch (error) {
      // An attempt counts for at most LONGEST_SILENCE. If it took longer, it made progress, or the device slept.
      spent += Math.min((Date.now() - start) / 1000, LONGEST_SILENCE);
      const seconds = error instanceof HeroimgError && canPass(error) ? (error.retryAfter ?? pause) : Infinity;
      if (spent + seconds > patience) {
        throw error;
      }
      callPage(onWait, /** @type {HeroimgError} */ (error), seconds);
      spent += await waited(seconds, signal);
    }
  }
}

/** @param {HeroimgError} error */
function isTemporary({ code, status }) {
  const isStatusTemporary = status >= 500 || [408, 409, 425, 429].includes(status);
  return code === "connection_lost" || (isStatusTemporary && !HOPELESS.includes(code));
}

/**
 * Tell whether the server asked to try again after some seconds.
 *
 * @param {HeroimgError} error
 */
export function isAskedToWait({ code, status, retryAfter }) {
  return [429, 503].includes(status) && retryAfter !== undefined && !HOPELESS.includes(code);
}

/**
 * Wait these seconds. Stop early when the browser is online again, or when the device wakes.
 *
 * @param {number} seconds
 * @param {AbortSignal} [signal]
 * @returns {Promise<number>} the seconds that have passed, at most `seconds`
 */
async function waited(seconds, signal) {
  signal?.throwIfAborted(); // onWait may have aborted the signal
  const start = Date.now();
  return new Promise((resolve, reject) => {
    let last = start;
    const end = () => {
      clearInterval(timer);
      removeEventListener("online", end);
      signal?.removeEventListener("abort", end);
      if (signal?.aborted) {
        reject(signal.reason);
      }
      resolve(Math.min((Date.now() - start) / 1000, seconds));
    };
    const timer = setInterval(() => {
      const now = Date.now();
      if (now - start >= seconds * 1000 || Math.abs(now - last) > 20_000) {
        end(); // the device has slept, the page was in the background, or the clock was set
      }
      last = now;
    }, 500);
    addEventListener("online", end);
    signal?.addEventListener("abort", end);
  });
}

/**
 * Do the work, and reject as soon as the signal is aborted.
 *
 * @template T
 * @param {() => Promise<T>} work
 * @param {AbortSignal} [signal]
 */
export async function orStopped(work, signal) {
  signal?.throwIfAborted();
  const stopped = new Promise((/** @type {(reason: T) => void} */ _, reject) =>
    signal?.addEventListener("abort", () => reject(signal.reason)),
  );
  return Promise.race([work(), stopped]);
}

/**
 * Call a callback of the page. If the callback throws, the browser reports the error, as for an event listener.
 *
 * @template {any[]} A
 * @param {((...args: A) => void) | undefined} callback
 * @param {A} args
 */
export function callPage(callback, ...args) {
  try {
    callback?.(...args);
  } catch (error) {
    reportError(error);
  }
}

/**
 * Abort a request after a silence. Also abort the request when the browser is online again, because the old
 * connection is dead then. This compares times, because timers stop while the device sleeps.
 *
 * @param {() => void} giveUp
 */
export function watchSilence(giveUp) {
  let deadline = Infinity;
  const timer = setInterval(() => Date.now() > deadline && giveUp(), 1000);
  addEventListener("online", giveUp);
  return {
    /** Restart the wait, because bytes have left or arrived. */
    hear(silence = LONGEST_SILENCE) {
      deadline = Date.now() + silence * 1000;
    },
    end() {
      clearInterval(timer);
      removeEventListener("online", giveUp);
    },
  };
}

/**
 * Send one request to the API.
 *
 * @param {string} path
 * @param {RequestInit} [init]
 * @returns {Promise<Response>} a successful answer with its complete body
 */
export async function ask(path, init) {
  const controller = new AbortController();
  const silence = watchSilence(() => controller.abort());
  let answer;
  try {
    silence.hear();
    const response = await fetch(urlOf(path), { ...init, signal: controller.signal });
    const body = await readWhole(response, () => silence.hear());
    if (response.status < 400 && body?.size === 0) {
      throw new TypeError("an empty answer, because the connection broke before its body");
    }
    answer = new Response(body, { status: response.status, headers: response.headers });
  } catch (cause) {
    throw connectionLost(cause);
  } finally {
    silence.end();
  }
  if (!answer.ok) {
    throw failure(answer.status, answer.headers.get("Retry-After"), parsed(await answer.text()));
  }
  return answer;
}

/**
 * @param {Response} response
 * @param {() => void} onData
 * @returns {Promise<Blob | null>}
 */
async function readWhole(response, onData) {
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
    onData();
  }
  return new Blob(parts, { type: response.headers.get("Content-Type") ?? "" });
}

/**
 * Read an answer of the API: an object with the property `name`.
 *
 * @param {number} status
 * @param {string | null} retryAfter
 * @param {string} text
 * @param {string} name
 * @param {"string" | "number"} [type] the property's type
 */
export function understand(status, retryAfter, text, name, type = "string") {
  const answer = parsed(text);
  if (status === 200 && typeof answer?.[name] === type) {
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
 * @param {any} [answer] an error of the API, unless something other than heroimg answered
 */
export function failure(status, retryAfter, answer) {
  const details = { status, retryAfter: /^\d+$/.test(retryAfter ?? "") ? Math.max(1, Number(retryAfter)) : undefined };
  if (typeof answer?.code === "string" && typeof answer.error === "string") {
    return new HeroimgError(answer.code, answer.error, { ...details, found: answer.found });
  }
  if (status === 413) {
    const sentence = "The picture is too large for the server. Please choose a smaller one.";
    return new HeroimgError("image_too_large", sentence, details);
  }
  const sentence = `The server sent an unexpected answer (${status}). Please try again in a moment.`;
  return new HeroimgError("answer_unreadable", sentence, details);
}

/**
 * @param {unknown} [cause]
 * @param {string} [sentence]
 */
export function connectionLost(
  cause,
  sentence = "The connection broke. Please check that you are online, and try again.",
) {
  return new HeroimgError("connection_lost", sentence, { cause });
}
