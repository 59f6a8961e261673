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
export { fitImage, serverLimits, setHeicDecoder } from "./fit.js";
export { HeroimgError, setBaseUrl } from "./http.js";
export { uploadImage } from "./upload.js";
export type FitOptions = import("./fit.js").FitOptions;
export type ServerLimits = import("./fit.js").ServerLimits;
export type OnWait = import("./http.js").OnWait;
export type OnProgress = import("./upload.js").OnProgress;
export type SessionStatus = {
    status: "open" | "complete" | "expired";
    payment_status: "paid" | "unpaid" | "no_payment_required";
    /**
     * empty if heroimg did not make the session
     */
    metadata: {
        imageId: string;
    };
};
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
export declare function createCheckoutSession(imageId: string, { onWait, signal }?: {
    onWait?: OnWait;
    signal?: AbortSignal;
}): Promise<string>;
/**
 * Request the state of a checkout. Tries again if the connection breaks or the server has a temporary problem.
 *
 * @param {string} sessionId the `session_id` in the address to which the customer returns
 * @param {object} [options]
 * @param {OnWait} [options.onWait]
 * @returns {Promise<SessionStatus>}
 */
export declare function sessionStatus(sessionId: string, { onWait }?: {
    onWait?: OnWait;
}): Promise<SessionStatus>;
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
export declare function retrieveImage(imageId: string, { onWait }?: {
    onWait?: OnWait;
}): Promise<Blob>;
