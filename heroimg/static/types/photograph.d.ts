/**
 * Reads a photograph's header, and draws the photograph again as a JPEG. Runs in a worker and on a page.
 *
 * @module photograph
 */
export type Header = {
    /**
     * "image/png", "image/jpeg", "image/heic", or "" for every other kind
     */
    type: string;
    /**
     * 0 if it is unknown
     */
    width: number;
    height: number;
    /**
     * false if the file's end is missing: browsers show the part that is there
     */
    isWhole: boolean;
    /**
     * a JPEG or GIF that starts with a coarse version of the whole picture
     */
    isProgressive: boolean;
};
export type Limits = {
    bytes: number;
    pixels: number;
    /**
     * in pixels
     */
    maxEdge: number;
};
export type Redrawn = {
    blob: Blob;
} | {
    problem: "undecodable" | "cut" | "no_memory";
};
/**
 * Read a picture's kind and size from its bytes, because its name and `file.type` are often wrong.
 *
 * @param {ArrayBuffer} bytes
 * @returns {Header}
 */
export declare function readHeader(bytes: ArrayBuffer): Header;
/**
 * Draw a photograph again, upright, as a JPEG within the limits. Transparent parts become white.
 *
 * @param {Blob | ImageData} source
 * @param {Header} header
 * @param {Limits} limits
 * @returns {Promise<Redrawn>}
 */
export declare function redraw(source: Blob | ImageData, { type, isWhole, isProgressive }: Header, { bytes, pixels, maxEdge }: Limits): Promise<Redrawn>;
