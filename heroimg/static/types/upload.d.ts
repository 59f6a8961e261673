/**
 * Uploads a picture, and tries again if a retry does no harm.
 *
 * @module upload
 */
export type FitOptions = import("./fit.js").FitOptions;
export type OnWait = import("./http.js").OnWait;
export type OnProgress = (sent: number, state: "preparing" | "sending" | "waiting" | "retrying") => void;
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
export declare function uploadImage(file: Blob, { fit, onProgress: callback, onWait, signal }?: {
    fit?: boolean | FitOptions;
    onProgress?: OnProgress;
    onWait?: OnWait;
    signal?: AbortSignal;
}): Promise<string>;
