"""The pictures' blueprint: upload, retrieve, confirm."""

from __future__ import annotations

import logging
import math
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from heroimg.api.checkout import end_checkout
from heroimg.api.form import received_image
from heroimg.api.services import Services, services
from heroimg.errors import (
    ClaimMalformed,
    ImageIdRequired,
    ImageNotFound,
    ImageTooLarge,
    Prefetched,
    StripeFailed,
    StripeUnreachable,
)
from heroimg.logs import short
from heroimg.pictures.checks import extension_of, media_type_of
from heroimg.stores.base import StoredImage, is_claim_token

log = logging.getLogger(__name__)

bp = Blueprint("temp_images", __name__)

_BLOCK = 256 * 1024
_MEGABYTE = 1024 * 1024

# How many readers without a claim each process sees to the end at once. Each has a thread to itself for as long as it
# reads, so this is half of gunicorn's (gunicorn_conf.py), and the other half is for everybody else.
_SEEN_AT_ONCE = 8
_seats = threading.BoundedSemaphore(_SEEN_AT_ONCE)


@bp.post("/api/temp-image-upload")
def upload() -> ResponseReturnValue:
    """Keep the picture in the form's field `image`."""
    config = services().config
    with received_image() as part:
        if part.size > config.max_image_bytes:
            size = math.ceil(part.size / _MEGABYTE * 10) / 10  # up, or a byte too many would read as the limit itself
            raise ImageTooLarge(f"The picture is {size} MB; the limit is {config.max_image_bytes / _MEGABYTE:.3g} MB.")
        media_type = media_type_of(part.read, decode=config.image_check == "decode")
        image = services().store.keep(part.staged, media_type)
    log.info("kept %s: %s, %d bytes", short(image.id), image.media_type, image.size)
    services().counters.uploads.inc()
    return {"imageId": image.id}


@bp.get("/api/temp-image-retrieve")
def retrieve() -> ResponseReturnValue:
    """Hand the picture over: for one use, or with a claim as often as its holder asks until it confirms."""
    if any("prefetch" in request.headers.get(name, "").lower() for name in ("Sec-Purpose", "Purpose")):
        raise Prefetched
    image_id, token = _image_id(), _claim_token()
    if request.method == "HEAD":
        image = services().store.get(image_id)
        image.refuse_others(token, services().now())
        return _response(image)
    one_use = token is None
    token = token or secrets.token_urlsafe(24)
    image, stream = services().store.claim(image_id, token)
    log.info("claimed %s", short(image_id))
    if one_use:
        _try_to_end_checkout(services(), image)
    response = _response(image)
    response.response = hand_over = HandOver(services(), image, token, stream, confirms=one_use)
    services().counters.retrievals.inc()
    services().counters.claims_lapsed.inc(int(image.claim_lapsed))
    if hand_over.sees_its_reader:
        response.headers["X-Accel-Buffering"] = "no"
    return response


@bp.delete("/api/temp-image-retrieve")
def confirm() -> ResponseReturnValue:
    """Make the picture gone, now that its reader has it, and its checkout unpayable before that."""
    image_id, token = _image_id(), _claim_token()
    with suppress(ImageNotFound):
        image = services().store.get(image_id)
        image.refuse_others(token, services().now())
        end_checkout(services(), image)
        if _forget(services(), image, token):
            log.info("confirmed %s", short(image_id))
    return "", 204


class HandOver:
    """The bytes of a claimed picture, on their way to its reader. The claim is renewed for as long as that takes.

    For one use, the picture is gone once the server has taken the last block and asks for more, and the claim is given
    back if the server closes this before, as it does when the connection breaks. An object, not a generator: one closed
    before its start would not give it back.

    A proxy that takes the whole picture at once hides a slow reader's broken connection, so nginx is asked not to,
    while there are threads to spare for it. A reader with a claim needs no such care: the picture waits until it
    confirms.
    https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering

    :param confirms: for one use; else its reader confirms.
    """

    def __init__(self, found: Services, image: StoredImage, token: str, stream: BinaryIO, *, confirms: bool) -> None:
        self._services = found
        self._image = image
        self._token = token
        self._stream = stream
        self._is_to_end = confirms
        self.sees_its_reader = confirms and _seats.acquire(blocking=False)
        self._renew_at = found.now() + found.config.claim_seconds // 2

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if block := self._stream.read(_BLOCK):
            self._renew()
            return block
        if self._is_to_end:
            self._is_to_end = False
            if _forget(self._services, self._image, self._token):
                log.info("handed over %s", short(self._image.id))
        raise StopIteration

    def close(self) -> None:
        if self.sees_its_reader:
            self.sees_its_reader = False
            _seats.release()
        self._stream.close()
        if self._is_to_end:
            self._is_to_end = False
            self._services.store.release(self._image.id, self._token)
            log.info("connection broke, gave back %s", short(self._image.id))

    def _renew(self) -> None:
        """Claim again in good time.

        :raises ImageClaimed: the reader was so slow that the claim lapsed and another has the picture: end here.
        :raises ImageNotFound: the other has confirmed already.
        """
        if self._renew_at <= self._services.now() < self._image.expires:
            self._services.store.renew(self._image.id, self._token)
            self._renew_at = self._services.now() + self._services.config.claim_seconds // 2


def _forget(found: Services, image: StoredImage, token: str | None) -> bool:
    """Remove a picture that its reader has, and say whether it was still there."""
    removed = found.store.remove(image.id, token)
    if removed is None:
        return False
    found.counters.confirmations.inc(paid=str(removed.checkout_complete).lower())
    if removed.checkout_session != image.checkout_session:  # opened since we looked
        _try_to_end_checkout(found, removed)
    return True


def _try_to_end_checkout(found: Services, image: StoredImage) -> None:
    """Make the picture's checkout unpayable, without keeping the picture from its reader if Stripe cannot be asked."""
    try:
        end_checkout(found, image)
    except (StripeFailed, StripeUnreachable) as error:
        log.error(
            "%s is handed over, its checkout %s may still be open (%s): expire it in Stripe's dashboard, or refund it",
            short(image.id), short(image.checkout_session or ""), error.code,
        )  # fmt: skip


def _response(image: StoredImage) -> Response:
    response = Response(mimetype=image.media_type, direct_passthrough=True)
    response.content_length = image.size
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.headers["Image-Size"] = str(image.size)  # for readers behind proxies that drop or change Content-Length
    response.headers["Cache-Control"] = "no-store, no-transform"
    response.headers["Content-Disposition"] = f'inline; filename="picture.{extension_of(image.media_type)}"'
    return response


def _image_id() -> str:
    image_id = request.args.get("imageId", "")
    if not image_id:
        raise ImageIdRequired
    return image_id


def _claim_token() -> str | None:
    token = request.args.get("claim")
    if token is not None and not is_claim_token(token):
        raise ClaimMalformed
    return token
