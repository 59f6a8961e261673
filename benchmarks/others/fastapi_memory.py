"""A typical implementation of the same task: FastAPI with UploadFile, and a dict. `uvicorn fastapi_memory:app`."""

from __future__ import annotations

import secrets
import time
from typing import Annotated

from fastapi import FastAPI, HTTPException, Response, UploadFile

MOST_BYTES = 5 * 1024 * 1024
HOUR = 3600

app = FastAPI()
images: dict[str, tuple[bytes, str, float]] = {}


@app.post("/api/temp-image-upload")
async def upload(image: UploadFile) -> dict[str, str]:
    if image.content_type not in ("image/png", "image/jpeg"):
        raise HTTPException(415)
    data = await image.read()
    if len(data) > MOST_BYTES:
        raise HTTPException(413)
    forget_expired()
    image_id = secrets.token_hex(16)
    images[image_id] = data, image.content_type, time.time()
    return {"imageId": image_id}


@app.get("/api/temp-image-retrieve")
async def retrieve(imageId: Annotated[str, "the id"]) -> Response:
    data, media_type, _ = images.pop(imageId, (b"", "", 0.0))
    if not data:
        raise HTTPException(404, "Image not found or expired")
    return Response(data, media_type=media_type, headers={"Cache-Control": "no-store"})


def forget_expired() -> None:
    """Remove the expired pictures. A dict keeps the order of insertion, so the oldest pictures are first."""
    while images and (first := next(iter(images.items())))[1][2] < time.time() - HOUR:
        del images[first[0]]
