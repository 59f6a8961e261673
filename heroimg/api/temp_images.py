"""The pictures' blueprint: limits, upload, retrieve, confirm."""

from __future__ import annotations

import logging
import math
from contextlib import suppress

from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue

from heroimg.api.form import received_image
from heroimg.api.rates import STRIPE_RATE
from heroimg.api.services import services
from heroimg.errors import ClaimMalformed, ImageIdRequired, ImageNotFound, ImageTooLarge, Prefetched
from heroimg.logs import short
from heroimg.pictures.formats import FORMATS, check_picture, extension_of
from heroimg.pictures.limits import MAX_PIXELS
from heroimg.stores.image import StoredImage, is_claim_token

log = logging.getLogger(__name__)

bp = Blueprint("temp_images", __name__)

_MEGABYTE = 1024 * 1024

# Browsers, old and new, mark a prefetch with one of these headers. deploy/nginx.conf passes these headers on.
_PURPOSE_HEADERS = ("Sec-Purpose", "Purpose", "X-Moz", "X-Purpose")


@bp.get("/api/limits")
def limits() -> Response:
    """Say which pictures are accepted, so that a page need not contain the limits."""
    formats = [known.media_type for known in FORMATS]
    response = jsonify(bytes=services().config.max_image_bytes, pixels=MAX_PIXELS, formats=formats)
    response.headers["Cache-Control"] = "public, max-age=300"
    return response


@bp.post("/api/temp-image-upload")
def upload() -> ResponseReturnValue:
    """Keep the picture from the form's field `image`."""
    config = services().config
    with received_image() as part:
        if part.size > config.max_image_bytes:
            # Round up. Otherwise the size of a picture that is one byte too large would look equal to the limit.
            size = math.ceil(part.size / _MEGABYTE * 10) / 10
            raise ImageTooLarge(f"The picture is {size} MB; the limit is {config.max_image_bytes / _MEGABYTE:.3g} MB.")
        with services().counters.check_seconds.measure():
            media_type = check_picture(part.read, decode=config.image_check == "decode")
        image = services().store.keep(part.staged, media_type)
    log.info("kept %s: %s, %d bytes", short(image.id), image.media_type, image.size)
    services().counters.uploads.inc()
    return {"imageId": image.id}


@bp.get("/api/temp-image-retrieve")
def retrieve() -> ResponseReturnValue:
    """Hand the picture over once. A reader with a claim can fetch the picture again until the reader confirms."""
    purposes = " ".join(request.headers.get(name, "") for name in _PURPOSE_HEADERS).lower()
    if "prefetch" in purposes or "preview" in purposes:
        raise Prefetched
    image_id, claim = _required_image_id(), _claim()
    if request.method == "HEAD":
        # HEAD does not renew a claim. Otherwise a page that only looks could keep other readers out until the picture
        # expires.
        image = services().store.get(image_id)
        image.refuse_others(claim, services().now())
        return _picture_response(image)
    hand_over = services().hand_overs.start(image_id, claim, _count_call_to_stripe)
    response = _picture_response(hand_over.image)
    response.response = hand_over
    services().counters.retrievals.inc()
    services().counters.claims_lapsed.inc(int(hand_over.image.claim_lapsed))
    if hand_over.is_unbuffered:
        response.headers["X-Accel-Buffering"] = "no"
    return response


@bp.delete("/api/temp-image-retrieve")
def confirm() -> ResponseReturnValue:
    """Remove the picture, now that its reader has it."""
    with suppress(ImageNotFound):
        services().hand_overs.confirm(_required_image_id(), _claim(), _count_call_to_stripe)
    return "", 204


def _count_call_to_stripe() -> None:
    services().rates.count(STRIPE_RATE)


def _picture_response(image: StoredImage) -> Response:
    response = Response(mimetype=image.media_type, direct_passthrough=True)
    response.content_length = image.size
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.headers["Image-Size"] = str(image.size)  # some proxies drop or change Content-Length
    response.headers["Cache-Control"] = "no-store, no-transform"
    response.headers["Content-Disposition"] = f'inline; filename="picture.{extension_of(image.media_type)}"'
    return response


def _required_image_id() -> str:
    image_id = request.args.get("imageId", "")
    if not image_id:
        raise ImageIdRequired
    return image_id


def _claim() -> str | None:
    token = request.args.get("claim")
    if token is not None and not is_claim_token(token):
        raise ClaimMalformed
    return token
