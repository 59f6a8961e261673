/**
 * Reads a photograph's header, and draws the photograph again as a JPEG. Runs in a worker and on a page.
 *
 * @module photograph
 */

/**
 * @typedef {object} Header
 * @property {string} type "image/png", "image/jpeg", "image/heic", or "" for every other kind
 * @property {number} width 0 if it is unknown
 * @property {number} height
 * @property {boolean} isWhole false if the file's end is missing: browsers show the part that is there
 * @property {boolean} isProgressive a JPEG or GIF that starts with a coarse version of the whole picture
 */

/**
 * The limits of a redrawn photograph.
 *
 * @typedef {object} Limits
 * @property {number} bytes
 * @property {number} pixels
 * @property {number} maxEdge in pixels
 */

/** @typedef {{ blob: Blob } | { problem: "undecodable" | "cut" | "no_memory" }} Redrawn */

// iOS draws nothing on a canvas of more than 16,777,216 pixels.
const MAX_CANVAS_PIXELS = 16_000_000;
const QUALITIES = [0.92, 0.85, 0.75];
const STEP = 0.75;
const MAX_ATTEMPTS = 12;

const PNG = "\x89PNG\r\n\x1a\n";
const JPEG = "\xff\xd8\xff";
const WEBP = /^RIFF.{4}WEBP/s;
// The brands of ISO/IEC 23008-12 for pictures that are coded with HEVC.
const HEIC = /^.{4}ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)/s;
// AVIF's brand may follow more general brands, such as mif1.
const AVIF = /^.{4}ftyp(.{4}){0,10}?avi[fs]/s;
const GIF = /^GIF8[79]a/;
const BMP = /^BM.{4}\0{4}/s;
// The boxes of ISO/IEC 14496-12 without which an AVIF or HEIC cannot be shown.
const BOXES = ["ftyp", "meta", "moov", "mdat"];

/**
 * Read a picture's kind and size from its bytes, because its name and `file.type` are often wrong.
 *
 * @param {ArrayBuffer} bytes
 * @returns {Header}
 */
export function readHeader(bytes) {
  const start = String.fromCharCode(...new Uint8Array(bytes.slice(0, 64)));
  const view = new DataView(bytes);
  if (start.startsWith(PNG) && start.length >= 24) {
    const [width, height] = [view.getUint32(16), view.getUint32(20)];
    return { type: "image/png", width, height, isWhole: lastIndexOf(bytes, "IEND") > 0, isProgressive: false };
  }
  if (start.startsWith(JPEG)) {
    return readJpegHeader(view);
  }
  const header = { type: "", width: 0, height: 0, isWhole: true, isProgressive: false };
  if (AVIF.test(start) || HEIC.test(start)) {
    return { ...header, type: AVIF.test(start) ? "" : "image/heic", isWhole: areBoxesWhole(view) };
  }
  if (GIF.test(start)) {
    return { ...header, ...readGifImage(new Uint8Array(bytes)) };
  }
  if (BMP.test(start)) {
    return { ...header, isWhole: isBmpWhole(view) };
  }
  return { ...header, isWhole: !WEBP.test(start) || view.getUint32(4, true) + 8 <= bytes.byteLength };
}

/**
 * Walk over the segments before the first scan. ITU-T T.81, annex B.
 *
 * @param {DataView<ArrayBuffer>} view
 */
function readJpegHeader(view) {
  let [at, width, height, isProgressive] = [2, 0, 0, false];
  while (at + 9 < view.byteLength && view.getUint16(at) !== 0xffda) {
    const marker = view.getUint16(at);
    if (marker < 0xffc0 || marker === 0xffff) {
      at += 1; // fill bytes
      continue;
    }
    if (marker <= 0xffcf && ![0xffc4, 0xffc8, 0xffcc].includes(marker)) {
      [height, width, isProgressive] = [view.getUint16(at + 5), view.getUint16(at + 7), marker === 0xffc2];
    }
    at += 2 + view.getUint16(at + 2);
  }
  return { type: "image/jpeg", width, height, isWhole: lastIndexOf(view.buffer, "\xff\xd9") > at, isProgressive };
}

/**
 * Tell whether the boxes of an AVIF or HEIC are complete. Other bytes may follow them. ISO/IEC 14496-12, 4.2.
 *
 * @param {DataView<ArrayBuffer>} view
 */
function areBoxesWhole(view) {
  for (let at = 0; at + 8 <= view.byteLength;) {
    const type = String.fromCharCode(...new Uint8Array(view.buffer, at + 4, 4));
    let size = view.getUint32(at);
    if (size === 1 && at + 16 <= view.byteLength) {
      size = view.getUint32(at + 8) * 2 ** 32 + view.getUint32(at + 12);
    }
    if (size < 8) {
      return true; // a box of size 0 extends to the end of the file
    }
    at += size;
    if (at > view.byteLength) {
      return !BOXES.includes(type);
    }
  }
  return true;
}

/**
 * Walk over the blocks up to the end of the first image. Only this image is drawn. GIF89a, sections 17 to 26.
 *
 * @param {Uint8Array} data
 */
function readGifImage(data) {
  const tableSize = (/** @type {number} */ packed) => (packed & 0x80 ? 3 * 2 ** ((packed & 7) + 1) : 0);
  let [at, isImage, isProgressive] = [13 + tableSize(data[10]), false, false];
  while (!isImage && at < data.length) {
    isImage = data[at] === 0x2c;
    if (isImage) {
      isProgressive = (data[at + 9] & 0x40) !== 0; // interlaced
    }
    at += isImage ? 11 + tableSize(data[at + 9]) : 2;
    while (data[at] > 0) {
      at += 1 + data[at];
    }
    at += 1;
  }
  return { isWhole: isImage && at <= data.length, isProgressive };
}

/**
 * Tell whether a BMP has all its rows. A compressed BMP is taken as whole. Microsoft documents
 * the headers as BITMAPFILEHEADER and BITMAPINFOHEADER.
 *
 * @param {DataView<ArrayBuffer>} view
 */
function isBmpWhole(view) {
  if (view.byteLength < 34) {
    return false;
  }
  const isCompressed = view.getUint32(14, true) < 40 || ![0, 3].includes(view.getUint32(30, true));
  const row = 4 * Math.ceil((view.getInt32(18, true) * view.getUint16(28, true)) / 32);
  const size = view.getUint32(10, true) + row * Math.abs(view.getInt32(22, true));
  return isCompressed || size <= view.byteLength;
}

/**
 * @param {ArrayBuffer} bytes
 * @param {string} text
 */
function lastIndexOf(bytes, text) {
  const data = new Uint8Array(bytes);
  const matches = (/** @type {number} */ at) => [...text].every((one, i) => data[at + i] === one.charCodeAt(0));
  const first = text.charCodeAt(0);
  let at = data.lastIndexOf(first);
  while (at > 0 && !matches(at)) {
    at = data.lastIndexOf(first, at - 1);
  }
  return at;
}

/**
 * Draw a photograph again, upright, as a JPEG within the limits. Transparent parts become white.
 *
 * @param {Blob | ImageData} source
 * @param {Header} header
 * @param {Limits} limits
 * @returns {Promise<Redrawn>}
 */
export async function redraw(source, { type, isWhole, isProgressive }, { bytes, pixels, maxEdge }) {
  // createImageBitmap refuses a JPEG without an end marker, so add the marker.
  const isEndless = type === "image/jpeg" && !isWhole && source instanceof Blob;
  const picture = await decoded(isEndless ? new Blob([source, Uint8Array.of(0xff, 0xd9)]) : source);
  if (!picture) {
    return { problem: "undecodable" };
  }
  try {
    if (!isWhole && (isProgressive || hasPlainCorner(picture))) {
      return { problem: "cut" };
    }
    const { width, height } = picture;
    const mostPixels = Math.min(pixels, MAX_CANVAS_PIXELS);
    let scale = Math.min(1, maxEdge / Math.max(width, height), Math.sqrt(mostPixels / (width * height)));
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt += 1, scale *= STEP) {
      const blob = await encoded(picture, scale, bytes);
      if (blob) {
        return { blob };
      }
    }
    return { problem: "no_memory" };
  } catch {
    return { problem: "no_memory" }; // without this catch, a worker would not answer
  } finally {
    if ("close" in picture) {
      picture.close();
    }
  }
}

/**
 * @param {Blob | ImageData} source
 * @returns {Promise<ImageBitmap | HTMLImageElement | undefined>}
 */
async function decoded(source) {
  try {
    return await createImageBitmap(source, { imageOrientation: "from-image" });
  } catch {
    if (typeof document === "undefined" || !(source instanceof Blob)) {
      return undefined;
    }
  }
  // <img> also shows pictures that createImageBitmap refuses.
  const image = new Image();
  image.src = URL.createObjectURL(source);
  try {
    await image.decode();
    return image;
  } catch {
    return undefined;
  } finally {
    URL.revokeObjectURL(image.src);
  }
}

/**
 * Tell whether, in any corner, 4 x 4 pixels have one colour, or the corner pixel is mid-grey. Decoders fill a
 * missing part like this. The missing part may be in any corner, because the picture has been turned upright.
 *
 * @param {ImageBitmap | HTMLImageElement} picture
 */
function hasPlainCorner(picture) {
  const { context } = newCanvas(4, 4);
  return [0, picture.width - 4].some((x) =>
    [0, picture.height - 4].some((y) => {
      context.clearRect(0, 0, 4, 4);
      context.drawImage(picture, x, y, 4, 4, 0, 0, 4, 4);
      const pixels = new Uint32Array(context.getImageData(0, 0, 4, 4).data.buffer);
      const corner = pixels[(x ? 3 : 0) + 4 * (y ? 3 : 0)]; // the outermost of the 4 x 4 pixels
      return corner === 0xff808080 || pixels.every((pixel) => pixel === corner);
    }),
  );
}

/**
 * @param {ImageBitmap | HTMLImageElement} picture
 * @param {number} scale
 * @param {number} mostBytes
 * @returns {Promise<Blob | undefined>} undefined if the lowest quality is too large, or a canvas or the memory fails
 */
async function encoded(picture, scale, mostBytes) {
  try {
    // Rounding errors may give 2047.9999 instead of 2048.
    const [width, height] = [picture.width, picture.height].map((edge) => Math.max(1, Math.floor(edge * scale + 1e-6)));
    const { canvas, context } = newCanvas(width, height);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, width, height);
    const [, , , alpha] = context.getImageData(0, 0, 1, 1).data; // 0 if the browser had no memory for this canvas
    let blob;
    for (const quality of alpha === 255 ? QUALITIES : []) {
      blob = await toJpeg(canvas, quality);
      if (blob?.type === "image/jpeg" && blob.size <= mostBytes) {
        break;
      }
      blob = undefined;
    }
    canvas.width = canvas.height = 0; // otherwise WebKit frees the canvas's memory late
    return blob;
  } catch {
    return undefined;
  }
}

/**
 * @param {HTMLCanvasElement | OffscreenCanvas} canvas
 * @param {number} quality
 * @returns {Promise<Blob | null>}
 */
function toJpeg(canvas, quality) {
  const type = "image/jpeg";
  return "convertToBlob" in canvas
    ? canvas.convertToBlob({ type, quality })
    : new Promise((resolve) => canvas.toBlob(resolve, type, quality));
}

/**
 * @param {number} width
 * @param {number} height
 */
function newCanvas(width, height) {
  const canvas =
    typeof document === "undefined"
      ? new OffscreenCanvas(width, height)
      : Object.assign(document.createElement("canvas"), { width, height });
  const context = /** @type {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  return { canvas, context };
}
