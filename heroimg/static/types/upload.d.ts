/**
 * Uploads a picture, and tries again if that does no harm.
 *
 * @module upload
 */
export type FitOptions = import("./fit.js").FitOptions;
export type OnWait = import("./http.js").OnWait;
export type OnProgress = (sent: number, state: "preparing" | "sending" | "waiting" | "retrying") => void;
/**
 * Make a picture fit the server's limits, and upload it. The server keeps it for an hour.
 *
 * Without an answer, or after 429 or 503 with Retry-After, this sends the picture again, for two minutes.
 *
 * @param {Blob} file a photograph of any kind, such as a `File` of a file input
 * @param {object} [options]
 * @param {boolean | FitOptions} [options.fit] false sends the file as it is
 * @param {OnProgress} [options.onProgress]
 * @param {OnWait} [options.onWait]
 * @param {AbortSignal} [options.signal] stops it; the promise then rejects with the signal's reason, as `fetch` does
 * @returns {Promise<string>} the picture's id: keep it secret, because anyone who has it can fetch the picture
 */
export declare function uploadImage(file: Blob, { fit, onProgress: callback, onWait, signal }?: {
    fit?: boolean | FitOptions;
    onProgress?: OnProgress;
    onWait?: OnWait;
    signal?: AbortSignal;
}): Promise<string>;
