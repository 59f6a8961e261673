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
export type OnWait = (error: HeroimgError, seconds: number) => void;
/** A failure. Its `message` is a sentence for the customer. */
export declare class HeroimgError extends Error {
    code: string;
    /** The HTTP status; 0 if no complete answer arrived. */
    status: number;
    /** The seconds to wait before another try, if the server sent them. */
    retryAfter: number | undefined;
    /**
     * @param {string} code the API's code; or `connection_lost` if no complete answer arrived, or `answer_unreadable` if
     *   the answer is not heroimg's
     * @param {string} message
     * @param {{ status?: number, retryAfter?: number, cause?: unknown }} [details]
     */
    constructor(code: string, message: string, { status, retryAfter, cause }?: {
        status?: number;
        retryAfter?: number;
        cause?: unknown;
    });
}
/**
 * Set heroimg's address if it is not the page's own origin: `setBaseUrl("https://pictures.example.com")`.
 * FRONTEND_URL of that server must be the page's origin.
 *
 * @param {string} url
 */
export declare function setBaseUrl(url: string): void;
/**
 * Upload a picture, which heroimg keeps for an hour.
 *
 * @param {Blob} file a PNG or JPEG, as a file input returns it
 * @param {object} [options]
 * @param {(sent: number) => void} [options.onProgress] called with the share that was sent, from 0 to 1
 * @param {AbortSignal} [options.signal] stops the upload; the promise rejects with the signal's reason, as `fetch` does
 * @returns {Promise<string>} the picture's id. Anyone with the id can retrieve it: keep the id out of addresses and logs
 */
export declare function uploadImage(file: Blob, { onProgress, signal }?: {
    onProgress?: (sent: number) => void;
    signal?: AbortSignal;
}): Promise<string>;
/**
 * Open a checkout for a picture, or return the one that is open. Call this in Stripe's `fetchClientSecret`:
 * `stripe.createEmbeddedCheckoutPage({ fetchClientSecret: () => createCheckoutSession(imageId) })`.
 *
 * @param {string} imageId
 * @returns {Promise<string>} the session's client secret
 */
export declare function createCheckoutSession(imageId: string): Promise<string>;
/**
 * Request the state of a checkout. Retries if the connection breaks or the server is overloaded.
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
export declare function retrieveImage(imageId: string, { onWait }?: {
    onWait?: OnWait;
}): Promise<Blob>;
