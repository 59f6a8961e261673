/**
 * Uploads a picture, and tries again where that does no harm.
 *
 * @module upload
 */
export type FitOptions = import("./fit.js").FitOptions;
export type OnWait = import("./http.js").OnWait;
export type OnProgress = (sent: number, state: "preparing" | "sending" | "waiting" | "retrying") => void;
/**
 * Upload a picture, which is kept for an hour. It is made to fit the server's limits first.
 *
 * It is sent again if no answer arrived, and after 429 and 503 if the server says when; for two minutes at most.
 *
 * @param {Blob} file a photograph of any kind, as a file input gives it
 * @param {object} [options]
 * @param {boolean | FitOptions} [options.fit] false sends the file as it is
 * @param {OnProgress} [options.onProgress]
 * @param {OnWait} [options.onWait]
 * @param {AbortSignal} [options.signal] stops it; the promise then rejects with the signal's reason, as `fetch` does
 * @returns {Promise<string>} the picture's id, which opens it: keep it out of addresses and logs
 */
export declare function uploadImage(file: Blob, { fit, onProgress: callback, onWait, signal }?: {
    fit?: boolean | FitOptions;
    onProgress?: OnProgress;
    onWait?: OnWait;
    signal?: AbortSignal;
}): Promise<string>;
