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
     * empty for a session that is not heroimg's
     */
    metadata: {
        imageId: string;
    };
};
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
export declare function createCheckoutSession(imageId: string, { onWait }?: {
    onWait?: OnWait;
}): Promise<string>;
/**
 * Ask for a checkout's status; again while the connection breaks or the server has a temporary problem.
 *
 * @param {string} sessionId as Stripe adds it to the address to which customers return
 * @param {object} [options]
 * @param {OnWait} [options.onWait]
 * @returns {Promise<SessionStatus>}
 */
export declare function sessionStatus(sessionId: string, { onWait }?: {
    onWait?: OnWait;
}): Promise<SessionStatus>;
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
export declare function retrieveImage(imageId: string, { onWait }?: {
    onWait?: OnWait;
}): Promise<Blob>;
