"""The pictures' blueprint: upload, retrieve, confirm."""

from __future__ import annotations

import logging
import math
import secrets
from contextlib import suppress

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from heroimg.api.form import received_image
from heroimg.api.rates import STRIPE
from heroimg.api.services import Services, services
from heroimg.errors import ClaimMalformed, ImageIdRequired, ImageNotFound, ImageTooLarge, Prefetched
from heroimg.logs import short
from heroimg.pictures.formats import extension_of, media_type_of
from heroimg.pictures.hand_over import HandOver
from heroimg.stores.base import StoredImage, is_claim_token

log = logging.getLogger(__name__)

bp = Blueprint("temp_images", __name__)

_MEGABYTE = 1024 * 1024

# Where browsers, old and new, say that they fetch ahead. deploy/nginx.conf passes these on.
_PURPOSE_HEADERS = ("Sec-Purpose", "Purpose", "X-Moz", "X-Purpose")


@bp.post("/api/temp-image-upload")
def upload() -> ResponseReturnValue:
    """Keep the picture in the form's field `image`."""
    config = services().config
    with received_image() as part:
        if part.size > config.max_image_bytes:
            size = math.ceil(part.size / _MEGABYTE * 10) / 10  # rounded up, or one byte over would read as the limit
            raise ImageTooLarge(f"The picture is {size} MB; the limit is {config.max_image_bytes / _MEGABYTE:.3g} MB.")
        with services().counters.check_seconds.measure():
            media_type = media_type_of(part.read, decode=config.image_check == "decode")
        image = services().store.keep(part.staged, media_type)
    log.info("kept %s: %s, %d bytes", short(image.id), image.media_type, image.size)
    services().counters.uploads.inc()
    return {"imageId": image.id}


@bp.get("/api/temp-image-retrieve")
def retrieve() -> ResponseReturnValue:
    """Hand the picture over: for one use, or with a claim as often as its holder asks until it confirms."""
    purposes = " ".join(request.headers.get(name, "") for name in _PURPOSE_HEADERS).lower()
    if "prefetch" in purposes or "preview" in purposes:
        raise Prefetched
    image_id, claim = _required_image_id(), _claim()
    if request.method == "HEAD":
        image = services().store.get(image_id)
        image.refuse_others(claim, services().now())
        return _picture_response(image)
    hand_over = _hand_over(services(), image_id, claim)
    response = _picture_response(hand_over.image)
    response.response = hand_over
    services().counters.retrievals.inc()
    services().counters.claims_lapsed.inc(int(hand_over.image.claim_lapsed))
    if hand_over.is_unbuffered:
        response.headers["X-Accel-Buffering"] = "no"
    return response


@bp.delete("/api/temp-image-retrieve")
def confirm() -> ResponseReturnValue:
    """Remove the picture, now that its reader has it. Before that, make its checkout unpayable."""
    image_id, claim = _required_image_id(), _claim()
    with suppress(ImageNotFound):
        image = services().store.get(image_id)
        image.refuse_others(claim, services().now())
        if image.has_payable_session:
            services().rates.count(STRIPE)
        services().checkout.end(image)
        _remove(services(), image, claim, "confirmed %s")
    return "", 204


def _hand_over(shared: Services, image_id: str, claim: str | None) -> HandOver:
    """Claim the picture for its reader; without a token of the reader's own, for one use."""
    token = claim or secrets.token_urlsafe(24)
    claimed = shared.store.claim(image_id, token)
    log.info("claimed %s" if claim else "handing over %s for one use", short(image_id))
    if claim:
        return HandOver(shared.hand_overs, claimed, token, confirm=None)
    hand_over = HandOver(
        shared.hand_overs, claimed, token, confirm=lambda: _remove(shared, claimed.image, token, "handed over %s")
    )
    try:
        if claimed.image.has_payable_session:
            shared.rates.count(STRIPE)
        shared.checkout.end_before_hand_over(claimed.image)
        hand_over.keep_claim()  # Stripe may have taken longer than a claim lasts
    except BaseException:
        hand_over.close()
        raise
    return hand_over


def _remove(shared: Services, image: StoredImage, token: str | None, message: str) -> None:
    """Remove a picture that its reader has. The server may call this after the request, without an application."""
    removed = shared.store.remove(image.id, token)
    if removed is None:
        return
    shared.counters.confirmations.inc(paid=str(removed.checkout_complete).lower())
    if removed.checkout_session != image.checkout_session or removed.sessions_to_end:  # noted since
        shared.checkout.try_to_end(removed)
    log.info(message, short(image.id))


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
