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
export type OnWait = (error: HeroimgError, seconds: number) => void;
/** A failure. Its `message` is a sentence for the customer. */
export declare class HeroimgError extends Error {
    code: string;
    /** The HTTP status; 0 where no answer arrived whole. */
    status: number;
    /** Seconds after which asking again makes sense, where the server said so. */
    retryAfter: number | undefined;
    /**
     * @param {string} code the API's stable word; or `connection_lost`, where no answer arrived whole, or
     *   `answer_unreadable`, where what answered was not heroimg
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
 * Say where heroimg is, where that is not the page's own origin: `setBaseUrl("https://pictures.example.com")`.
 * The page's origin must be that server's FRONTEND_URL.
 *
 * @param {string} url
 */
export declare function setBaseUrl(url: string): void;
/**
 * Upload a picture, to be kept for an hour.
 *
 * @param {Blob} file a PNG or a JPEG, as a file input gives it
 * @param {object} [options]
 * @param {(sent: number) => void} [options.onProgress] is told how much has gone up, from 0 to 1
 * @param {AbortSignal} [options.signal] stops it; the promise then rejects with the signal's reason, as `fetch` does
 * @returns {Promise<string>} the picture's id, which opens it: keep it out of addresses and logs
 */
export declare function uploadImage(file: Blob, { onProgress, signal }?: {
    onProgress?: (sent: number) => void;
    signal?: AbortSignal;
}): Promise<string>;
/**
 * Open a checkout for a picture, or find the one that is open. Stripe takes this as its `fetchClientSecret`:
 * `stripe.createEmbeddedCheckoutPage({ fetchClientSecret: () => createCheckoutSession(imageId) })`.
 *
 * @param {string} imageId
 * @returns {Promise<string>} the session's client secret
 */
export declare function createCheckoutSession(imageId: string): Promise<string>;
/**
 * Ask how a checkout stands; again, where the connection breaks or the server is out of breath.
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
export declare function retrieveImage(imageId: string, { onWait }?: {
    onWait?: OnWait;
}): Promise<Blob>;
