/**
 * Sends requests to heroimg, aborts requests without progress, tries again, and turns failures into errors.
 *
 * @module http
 */
export type OnWait = (error: HeroimgError, seconds: number) => void;
export declare const UPLOAD_PATIENCE = 120;
export declare const LONGEST_SILENCE_AFTER_UPLOAD = 120;
/** A failure. Its `message` is a sentence for the customer. */
export declare class HeroimgError extends Error {
    code: string;
    /** The HTTP status; 0 if no complete answer arrived. */
    status: number;
    /** The seconds to wait before another try, if the server sent them. */
    retryAfter: number | undefined;
    /** The kind of a file that the server refused with `not_a_picture`, such as "heic". */
    found: string | undefined;
    /**
     * @param {string} code a code of the API or of this module: see docs/front-end.md
     * @param {string} message
     * @param {{ status?: number, retryAfter?: number, found?: string, cause?: unknown }} [details]
     */
    constructor(code: string, message: string, { status, retryAfter, found, cause }?: {
        status?: number;
        retryAfter?: number;
        found?: string;
        cause?: unknown;
    });
}
/**
 * Set heroimg's address if it differs from the page's origin: `setBaseUrl("https://pictures.example.com")`.
 * heroimg's FRONTEND_URL must contain the page's origin.
 *
 * @param {string} url
 */
export declare function setBaseUrl(url: string): void;
/** @param {string} path */
export declare const urlOf: (path: string) => string;
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
export declare function patiently<T>(attempt: () => Promise<T>, { onWait, signal, canPass, patience }?: {
    onWait?: OnWait;
    signal?: AbortSignal;
    canPass?: (error: HeroimgError) => boolean;
    patience?: number;
}): Promise<T>;
/**
 * Tell whether the server asked to try again after some seconds.
 *
 * @param {HeroimgError} error
 */
export declare function isAskedToWait({ code, status, retryAfter }: HeroimgError): boolean;
/**
 * Do the work, and reject as soon as the signal is aborted.
 *
 * @template T
 * @param {() => Promise<T>} work
 * @param {AbortSignal} [signal]
 */
export declare function orStopped<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T>;
/**
 * Call a callback of the page. If the callback throws, the browser reports the error, as for an event listener.
 *
 * @template {any[]} A
 * @param {((...args: A) => void) | undefined} callback
 * @param {A} args
 */
export declare function callPage<A extends any[]>(callback: ((...args: A) => void) | undefined, ...args: A): void;
/**
 * Abort a request after a silence. Also abort the request when the browser is online again, because the old
 * connection is dead then. This compares times, because timers stop while the device sleeps.
 *
 * @param {() => void} giveUp
 */
export declare function watchSilence(giveUp: () => void): {
    /** Restart the wait, because bytes have left or arrived. */
    hear(silence?: number): void;
    end(): void;
};
/**
 * Send one request to the API.
 *
 * @param {string} path
 * @param {RequestInit} [init]
 * @returns {Promise<Response>} a successful answer with its complete body
 */
export declare function ask(path: string, init?: RequestInit): Promise<Response>;
/**
 * Read an answer of the API: an object with the property `name`.
 *
 * @param {number} status
 * @param {string | null} retryAfter
 * @param {string} text
 * @param {string} name
 * @param {"string" | "number"} [type] the property's type
 */
export declare function understand(status: number, retryAfter: string | null, text: string, name: string, type?: "string" | "number"): any;
/**
 * @param {number} status
 * @param {string | null} [retryAfter]
 * @param {any} [answer] an error of the API, unless something other than heroimg answered
 */
export declare function failure(status: number, retryAfter?: string | null, answer?: any): HeroimgError;
/**
 * @param {unknown} [cause]
 * @param {string} [sentence]
 */
export declare function connectionLost(cause?: unknown, sentence?: string): HeroimgError;
