/**
 * Draws photographs in a worker, so that the page does not block. A worker's code must be in a file of its own.
 *
 * @module fit-worker
 */

import { redraw } from "./photograph.js";

self.addEventListener("message", async ({ data: [source, header, limits] }) => {
  self.postMessage(await redraw(source, header, limits));
});
self.postMessage({ isReady: true });
