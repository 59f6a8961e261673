/**
 * Makes a photograph of any kind fit the server's limits, before it is sent.
 *
 * @module fit
 */

import { HeroimgError, UPLOAD_PATIENCE, ask, connectionLost, orStopped, patiently, understand } from "./http.js";
import { readHeader, redraw } from "./photograph.js";

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

export const LIMITS = "/api/limits";
// In seconds. A worker usually starts within one second.
const LONGEST_START = 10;
// libheif needs a gigabyte of memory for larger pictures.
const MAX_HEIC_PIXELS = 24_000_000;

const PROBLEMS = {
  undecodable: ["not_a_picture", "This browser cannot open this file as a picture. Please choose a JPEG or PNG."],
  cut: ["image_damaged", "The end of this picture is missing. Please choose another, or save this one again first."],
  no_memory: ["image_too_large", "This picture is too large for this browser's memory. Please choose a smaller one."],
};

/** @type {() => Promise<any>} */
let loadHeicDecoder = () => Promise.reject(new Error("the page has not called setHeicDecoder"));

/**
 * Supply a decoder for HEIC, for browsers other than Safari: `setHeicDecoder(() => import("libheif-js/wasm-bundle"))`.
 * The module loads the decoder when a HEIC photograph needs it.
 *
 * @param {() => Promise<any>} load resolves to libheif-js, version 1
 */
export function setHeicDecoder(load) {
  loadHeicDecoder = load;
}

/**
 * Ask which pictures the server takes. The browser keeps the answer for some minutes.
 *
 * @param {{ onWait?: OnWait, signal?: AbortSignal }} [options]
 * @returns {Promise<ServerLimits>}
 */
export async function serverLimits({ onWait, signal } = {}) {
  const answer = await patiently(() => ask(LIMITS), { onWait, signal, patience: UPLOAD_PATIENCE });
  return understand(200, null, await answer.text(), "bytes", "number");
}

/**
 * Read a file into memory. A chosen file can change or disappear, and Safari uploads some files as an empty body.
 *
 * @param {Blob} file
 */
export async function readFile(file) {
  let cause;
  try {
    const bytes = await file.arrayBuffer();
    if (bytes.byteLength > 0) {
      return bytes;
    }
  } catch (error) {
    cause = error;
  }
  throw fileUnreadable(cause);
}

/** @param {unknown} [cause] */
export function fileUnreadable(cause) {
  const sentence = "The file is empty or cannot be read: it may have been moved or changed. Please choose it again.";
  return new HeroimgError("file_unreadable", sentence, { cause });
}

/**
 * Make a photograph of any kind fit the server's limits. A PNG or JPEG within the limits and `maxEdge` stays unchanged,
 * byte for byte. Any other picture becomes an upright JPEG, unless it seems cut off. A worker draws the JPEG if the
 * browser's workers can draw.
 *
 * @param {Blob} file
 * @param {FitOptions & { onWait?: OnWait, signal?: AbortSignal }} [options]
 * @returns {Promise<Blob>} a copy in memory, even if nothing was changed
 */
export function fitImage(file, options = {}) {
  return orStopped(() => fitted(file, options), options.signal);
}

/**
 * @param {Blob} file
 * @param {FitOptions & { onWait?: OnWait, signal?: AbortSignal }} options
 */
async function fitted(file, { maxEdge = Infinity, onWait, signal }) {
  if (!(maxEdge >= 1)) {
    throw new RangeError(`maxEdge must be at least 1 (pixel), not ${maxEdge}`);
  }
  const bytes = await readFile(file);
  const { formats, ...limits } = await serverLimits({ onWait, signal });
  const header = readHeader(bytes);
  const { type, width, height } = header;
  const source = new Blob([bytes], { type });
  const isSmall = bytes.byteLength <= limits.bytes && width * height <= limits.pixels;
  const isAccepted = isSmall && formats.includes(type);
  if (isAccepted && Math.max(width, height) <= maxEdge) {
    return source;
  }
  let redrawn = await redrawAside(source, header, { ...limits, maxEdge }, signal);
  if ("problem" in redrawn && redrawn.problem === "undecodable" && type === "image/heic") {
    const decoded = await decodeHeic(bytes);
    redrawn = decoded ? await redrawAside(decoded, header, { ...limits, maxEdge }, signal) : redrawn;
  }
  if ("blob" in redrawn) {
    return redrawn.blob;
  }
  if (redrawn.problem === "cut" && isAccepted) {
    return source; // the server can tell whether the picture really is incomplete
  }
  throw problem(redrawn.problem === "undecodable" && !header.isWhole ? "cut" : redrawn.problem);
}

/**
 * Redraw a picture in a worker. If no worker starts in time, or the worker fails, redraw the picture on this thread.
 *
 * @param {Blob | ImageData} source
 * @param {Header} header
 * @param {Limits} limits
 * @param {AbortSignal} [signal]
 */
async function redrawAside(source, header, limits, signal) {
  /** @type {Worker | undefined} */
  let worker;
  /** @type {Redrawn | undefined} */
  const redrawn = await new Promise((resolve) => {
    worker = startWorker();
    const timer = setTimeout(() => resolve(undefined), LONGEST_START * 1000);
    worker.onmessage = ({ data }) => (data.isReady ? clearTimeout(timer) : resolve(data));
    worker.onerror = () => resolve(undefined);
    signal?.addEventListener("abort", () => resolve(undefined));
    worker.postMessage([source, header, limits]);
  }).catch(() => undefined);
  worker?.terminate();
  signal?.throwIfAborted();
  return redrawn && ("blob" in redrawn || redrawn.problem === "cut") ? redrawn : redraw(source, header, limits);
}

/** Start a worker. A worker's script must have the page's origin, but may import modules of other origins. */
function startWorker() {
  if (import.meta.url.startsWith(`${location.origin}/`)) {
    // Bundlers recognise exactly this expression.
    return new Worker(new URL("./fit-worker.js", import.meta.url), { type: "module" });
  }
  const code = `import ${JSON.stringify(import.meta.url.replace(/[^/]*$/, "fit-worker.js"))};`;
  return new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })), { type: "module" });
}

/**
 * Decode a HEIC photograph on this thread, with the page's decoder.
 *
 * @param {ArrayBuffer} bytes
 */
async function decodeHeic(bytes) {
  let isLoaded = false;
  try {
    const { default: loaded } = await loadHeicDecoder();
    isLoaded = true;
    // libheif-bundle.mjs exports a function, and wasm-bundle exports an object.
    return await decodeWith(typeof loaded === "function" ? await loaded() : loaded, bytes);
  } catch (cause) {
    if (cause instanceof HeroimgError) {
      throw cause;
    }
    // If the file cannot be fetched, import() rejects with a TypeError, and webpack's import() with a ChunkLoadError.
    if (!isLoaded && ["TypeError", "ChunkLoadError"].includes(/** @type {any} */ (cause)?.name)) {
      const sentence =
        "The program that opens this HEIC photograph did not load. Please check that you are online, and try again, " +
        "or reload this page.";
      throw connectionLost(cause, sentence);
    }
    const sentence =
      "This photograph is a HEIC file, which this browser cannot open. Please open this page in Safari, or save the " +
      "photograph as a JPEG first.";
    throw new HeroimgError("heic_unsupported", sentence, { cause });
  }
}

/**
 * @param {any} libheif
 * @param {ArrayBuffer} bytes
 * @returns {Promise<ImageData | undefined>} undefined if the photograph is damaged
 */
async function decodeWith(libheif, bytes) {
  const images = new libheif.HeifDecoder().decode(bytes);
  const image = images.find((/** @type {any} */ one) => one.is_primary()) ?? images[0];
  if (!image) {
    return undefined;
  }
  const [width, height] = [image.get_width(), image.get_height()];
  if (width * height > MAX_HEIC_PIXELS) {
    const sentence =
      `This HEIC photograph has ${Math.ceil(width * height * 1e-6)} megapixels; this browser can open at ` +
      `most ${MAX_HEIC_PIXELS * 1e-6}. Please open this page in Safari, or save the photograph as a JPEG first.`;
    throw new HeroimgError("too_many_pixels", sentence);
  }
  const shown = await new Promise((resolve) => image.display(new ImageData(width, height), resolve));
  return shown ?? undefined;
}

/** @param {keyof typeof PROBLEMS} name */
function problem(name) {
  const [code, sentence] = PROBLEMS[name];
  return new HeroimgError(code, sentence);
}
