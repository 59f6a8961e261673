/**
 * Makes a photograph of any kind fit the server's limits, before it is sent.
 *
 * @module fit
 */
import { HeroimgError } from "./http.js";
export type OnWait = import("./http.js").OnWait;
export type Header = import("./photograph.js").Header;
export type Limits = import("./photograph.js").Limits;
export type Redrawn = import("./photograph.js").Redrawn;
export type ServerLimits = {
    bytes: number;
    pixels: number;
    /**
     * media types
     */
    formats: string[];
};
export type FitOptions = {
    /**
     * the limit of the longer edge in pixels, at least 1; larger pictures are scaled down
     */
    maxEdge?: number;
};
/** @typedef {import("./http.js").OnWait} OnWait */
/** @typedef {import("./photograph.js").Header} Header */
/** @typedef {import("./photograph.js").Limits} Limits */
/** @typedef {import("./photograph.js").Redrawn} Redrawn */
/**
 * @typedef {object} ServerLimits
 * @property {number} bytes
 * @property {number} pixels
 * @property {string[]} formats media types
 */
/**
 * @typedef {object} FitOptions
 * @property {number} [maxEdge] the limit of the longer edge in pixels, at least 1; larger pictures are scaled down
 */
export declare const LIMITS = "/api/limits";
/**
 * Supply a decoder for HEIC, for browsers other than Safari: `setHeicDecoder(() => import("libheif-js/wasm-bundle"))`.
 * The module loads the decoder when a HEIC photograph needs it.
 *
 * @param {() => Promise<any>} load resolves to libheif-js, version 1
 */
export declare function setHeicDecoder(load: () => Promise<any>): void;
/**
 * Ask which pictures the server takes. The browser keeps the answer for some minutes.
 *
 * @param {{ onWait?: OnWait, signal?: AbortSignal }} [options]
 * @returns {Promise<ServerLimits>}
 */
export declare function serverLimits({ onWait, signal }?: {
    onWait?: OnWait;
    signal?: AbortSignal;
}): Promise<ServerLimits>;
/**
 * Read a file into memory. A chosen file can change or disappear, and Safari uploads some files as an empty body.
 *
 * @param {Blob} file
 */
export declare function readFile(file: Blob): Promise<ArrayBuffer>;
/** @param {unknown} [cause] */
export declare function fileUnreadable(cause?: unknown): HeroimgError;
/**
 * Make a photograph of any kind fit the server's limits. A PNG or JPEG within the limits and `maxEdge` stays unchanged,
 * byte for byte. Any other picture becomes an upright JPEG, unless it seems cut off. A worker draws the JPEG if the
 * browser's workers can draw.
 *
 * @param {Blob} file
 * @param {FitOptions & { onWait?: OnWait, signal?: AbortSignal }} [options]
 * @returns {Promise<Blob>} a copy in memory, even if nothing was changed
 */
export declare function fitImage(file: Blob, options?: FitOptions & {
    onWait?: OnWait;
    signal?: AbortSignal;
}): Promise<Blob>;
