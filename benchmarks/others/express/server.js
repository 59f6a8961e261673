// A typical implementation of the same task: Express with multer's memory storage, and a Map.
// It listens on PORT, or on any free port if PORT is 0, and prints the address.
import crypto from "node:crypto";
import express from "express";
import multer from "multer";

const HOUR = 3600 * 1000;
const TYPES = ["image/png", "image/jpeg"];
const images = new Map();

const upload = multer({
  storage: multer.memoryStorage(),
  limits: { fileSize: 5 * 1024 * 1024 },
  fileFilter: (_request, file, accept) => accept(null, TYPES.includes(file.mimetype)),
});
const app = express();

app.post("/api/temp-image-upload", upload.single("image"), (request, response) => {
  if (!request.file) return response.status(400).json({ error: "No image provided" });
  const imageId = crypto.randomBytes(16).toString("hex");
  images.set(imageId, { data: request.file.buffer, type: request.file.mimetype, stored: Date.now() });
  return response.json({ imageId });
});

app.get("/api/temp-image-retrieve", (request, response) => {
  const { imageId } = request.query;
  if (!imageId) return response.status(400).json({ error: "imageId required" });
  const image = images.get(imageId);
  if (!image) return response.status(404).json({ error: "Image not found or expired" });
  images.delete(imageId);
  return response.type(image.type).set("Cache-Control", "no-store").send(image.data);
});

setInterval(() => {
  for (const [imageId, image] of images) if (image.stored < Date.now() - HOUR) images.delete(imageId);
}, 60 * 1000).unref();

const server = app.listen(Number(process.env.PORT), "127.0.0.1", () => {
  console.log(`Listening at: http://127.0.0.1:${server.address().port} `);
});
