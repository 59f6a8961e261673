/**
 * Uploads a picture, and tries again if a retry does no harm.
 *
 * @module upload
 */

import { LIMITS, fileUnreadable, fitImage, readFile } from "./fit.js";
import {
  HeroimgError,
  LONGEST_SILENCE_AFTER_UPLOAD,
  UPLOAD_PATIENCE,
  ask,
  callPage,
  connectionLost,
  isAskedToWait,
  orStopped,
  patiently,
  understand,
  urlOf,
  watchSilence,
} from "./http.js";

/** @typedef {import("./fit.js").FitOptions} FitOptions */
/** @typedef {import("./http.js").OnWait} OnWait */

/**
 * Called while an upload makes progress.
 *
 * @callback OnProgress
 * @param {number} sent the fraction that the browser has sent, below 1 until the server answers
 * @param {"preparing" | "sending" | "waiting" | "retrying"} state `preparing`: the picture is made to fit; `waiting`:
 *   the last byte is sent; `retrying`: the pause before the next attempt
 * @returns {void}
 */

const UPLOAD = "/api/temp-image-upload";

/**
 * Make a picture fit the server's limits, and upload it. The server keeps it for an hour.
 *
 * After 429 or 503 with Retry-After, or if no answer arrives, this function sends the picture again, for up to two
 * minutes.
 *
 * @param {Blob} file a photograph of any kind, such as a `File` of a file input
 * @param {object} [options]
 * @param {boolean | FitOptions} [options.fit] false sends the file as it is
 * @param {OnProgress} [options.onProgress]
 * @param {OnWait} [options.onWait]
 * @param {AbortSignal} [options.signal] stops the upload; the promise then rejects with the signal's reason
 * @returns {Promise<string>} the picture's id: keep it secret, because anyone with the id can fetch the picture
 */
export async function uploadImage(file, { fit = true, onProgress: callback, onWait, signal } = {}) {
  signal?.throwIfAborted();
  /** @type {OnProgress} */
  const onProgress = (sent, state) => callPage(callback, sent, state);
  onProgress(0, "preparing");
  const sayRetrying = (/** @type {HeroimgError} */ error, /** @type {number} */ seconds) => {
    onProgress(0, "retrying");
    onWait?.(error, seconds);
  };
  const options = { onWait: sayRetrying, signal };
  const picture = fit
    ? await fitImage(file, { ...(fit === true ? {} : fit), ...options })
    : new Blob([await orStopped(() => readFile(file), signal)]);
  const attempt = () => sendTwiceIfEmpty(picture, onProgress, signal);
  const canPass = (/** @type {HeroimgError} */ error) => error.code === "connection_lost" || isAskedToWait(error);
  try {
    return await patiently(attempt, { ...options, canPass, patience: UPLOAD_PATIENCE });
  } catch (error) {
    throw await orStopped(() => explained(error), signal);
  }
}

/**
 * Send a picture. If the server got an empty body, send the picture a second time: some versions of Safari need this.
 *
 * @param {Blob} picture
 * @param {OnProgress} onProgress
 * @param {AbortSignal} [signal]
 * @returns {Promise<string>}
 */
async function sendTwiceIfEmpty(picture, onProgress, signal, isSecond = false) {
  try {
    return await send(picture, onProgress, signal);
  } catch (error) {
    if (!(error instanceof HeroimgError) || error.code !== "no_image") {
      throw error;
    }
    if (isSecond) {
      throw fileUnreadable(error);
    }
    return sendTwiceIfEmpty(picture, onProgress, signal, true);
  }
}

/**
 * @param {Blob} picture
 * @param {OnProgress} onProgress
 * @param {AbortSignal} [signal]
 * @returns {Promise<string>}
 */
function send(picture, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not report progress
    const stop = () => request.abort();
    const silence = watchSilence(stop);
    request.open("POST", urlOf(UPLOAD));
    request.upload.onprogress = ({ loaded, total }) => {
      silence.hear(loaded < total ? undefined : LONGEST_SILENCE_AFTER_UPLOAD);
      onProgress(Math.min(loaded / total, 0.99), loaded < total ? "sending" : "waiting");
    };
    request.onload = () => {
      const { status, responseText } = request;
      if (status < 400 && !responseText) {
        return reject(connectionLost()); // the connection broke before the body
      }
      try {
        const { imageId } = understand(status, request.getResponseHeader("Retry-After"), responseText, "imageId");
        onProgress(1, "waiting");
        resolve(imageId);
      } catch (error) {
        reject(error);
      }
    };
    request.onerror = request.onabort = () => reject(signal?.aborted ? signal.reason : connectionLost());
    request.onloadend = () => {
      silence.end();
      signal?.removeEventListener("abort", stop);
    };
    signal?.addEventListener("abort", stop);
    const form = new FormData();
    form.append("image", picture);
    silence.hear();
    request.send(form);
  });
}

/**
 * Find out whether only the upload fails. A proxy that refuses a large body may break the connection, or answer without
 * CORS headers.
 *
 * @param {unknown} error
 */
async function explained(error) {
  const isLost = error instanceof HeroimgError && error.code === "connection_lost";
  if (isLost && (await ask(LIMITS, { cache: "no-store" }).catch(() => false))) {
    return connectionLost(error, "The picture cannot be sent. Please try again, or choose a smaller one.");
  }
  return error;
}
