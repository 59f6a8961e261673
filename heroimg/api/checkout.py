"""The checkout's blueprint: embedded-session, session-status, webhook.

A picture has at most one Checkout Session that can be paid. It ends HEROIMG_RETURN_SECONDS before the picture does, or
before the picture is handed over. A picture whose checkout is complete gets no second one.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from flask import Blueprint, abort, request
from flask.typing import ResponseReturnValue
from stripe.checkout import Session
from werkzeug.exceptions import RequestEntityTooLarge

from heroimg.api.services import Services, services
from heroimg.config import MIN_CHECKOUT_SECONDS
from heroimg.errors import (
    CheckoutComplete,
    CheckoutNotConfigured,
    ImageIdRequired,
    ImageNotFound,
    NotAJsonObject,
    RequestTooLarge,
    SessionIdRequired,
    SessionNotFound,
    StoreFull,
    StoreUnavailable,
    StripeFailed,
)
from heroimg.logs import short
from heroimg.stores.base import StoredImage, is_image_id

log = logging.getLogger(__name__)

bp = Blueprint("checkout", __name__)

_MAX_JSON_BYTES = 64 * 1024
_MAX_EVENT_BYTES = 1024 * 1024

# An open session that leaves the customer this long to pay is used again.
_MIN_REUSE_SECONDS = 15 * 60

_PAID_EVENTS = ("checkout.session.completed", "checkout.session.async_payment_succeeded")


@bp.post("/api/checkout/embedded-session")
def embedded_session() -> ResponseReturnValue:
    """Open a checkout for a picture, or find the one that is open."""
    image_id = _json_object().get("imageId")
    if not image_id or not isinstance(image_id, str):
        raise ImageIdRequired
    session = open_checkout(services(), image_id)
    return {"client_secret": session.client_secret}


@bp.get("/api/checkout/session-status")
def session_status() -> ResponseReturnValue:
    """Tell how a checkout stands. Whoever has the session's id learns this much, so it is no more than this."""
    session_id = request.args.get("session_id")
    if not session_id:
        raise SessionIdRequired
    session = services().payments.session(session_id)
    _note_if_complete(services(), session)
    image_id = _image_id(session)
    return {
        "status": session.status,
        "payment_status": session.payment_status,
        "metadata": {"imageId": image_id} if image_id else {},
    }


@bp.post("/api/checkout/webhook")
def webhook() -> ResponseReturnValue:
    """Keep a picture that has been paid for until its owner comes back, be it tomorrow."""
    found = services()
    if not found.config.stripe_webhook_secret:
        abort(404)
    request.max_content_length = _MAX_EVENT_BYTES
    kind, session_id = found.payments.event(request.get_data(), request.headers.get("Stripe-Signature"))
    if kind in _PAID_EVENTS:
        # The event's copy of the session may be old, and in another API version: ask for the session itself.
        _keep_for_owner(found, found.payments.session(session_id))
    return "", 200


def open_checkout(found: Services, image_id: str) -> Session:
    """Give the picture a Checkout Session that ends well before it does.

    :raises ImageNotFound: there is nothing to pay for.
    :raises CheckoutComplete: it has been paid for, or will be by a delayed method.
    """
    image = found.store.get(image_id)
    if image.checkout_complete:
        raise CheckoutComplete
    return_seconds = found.config.return_seconds
    needed = found.now() + MIN_CHECKOUT_SECONDS + return_seconds
    if image.checkout_session and (earlier := _earlier_session(found, image.checkout_session)):
        if earlier.status == "open":
            return earlier
        # Other values than that session's, or Stripe would repeat its answer of then: a session that has ended.
        needed = max(needed, earlier.expires_at + return_seconds + 1)
    image = found.store.pin(image_id, needed, renewed=found.now() + found.config.image_seconds)
    try:
        session = found.payments.open_session(image_id, image.expires - return_seconds)
    except StripeFailed:
        # Stripe repeats a failure for a day to whoever asks the same again, so let the next one ask something else.
        found.store.pin(image_id, image.expires + 1)
        raise
    _note_session(found, image, session)
    log.info("opened checkout %s for %s", short(session.id), short(image_id))
    return session


def end_checkout(found: Services, image: StoredImage) -> None:
    """Make the checkout of a picture that is about to be gone unpayable, where it is not complete.

    :raises StripeUnreachable: or StripeFailed; it may still be open.
    """
    if image.checkout_session and not image.checkout_complete:
        try:
            found.payments.end_session(found.payments.session(image.checkout_session))
        except (SessionNotFound, CheckoutNotConfigured):
            log.warning("checkout %s is not of this Stripe account", short(image.checkout_session))


def _earlier_session(found: Services, session_id: str) -> Session | None:
    """Look at the picture's session, and end it if it leaves too little time; one that is open then can be used."""
    try:
        session = found.payments.session(session_id)
    except SessionNotFound:  # the account was changed meanwhile, or test mode for live
        return None
    if session.expires_at < found.now() + _MIN_REUSE_SECONDS:
        session = found.payments.end_session(session)
    if session.status == "complete":
        raise CheckoutComplete
    return session


def _note_session(found: Services, image: StoredImage, session: Session) -> None:
    try:
        replaced = found.store.note_checkout(image.id, session.id)
    except ImageNotFound:  # handed over while we asked Stripe
        found.payments.end_session(session)
        raise
    if replaced.checkout_session not in (image.checkout_session, session.id):  # another did this at the same time
        end_checkout(found, replaced)


def _note_if_complete(found: Services, session: Session) -> None:
    """Remember that a picture's checkout is complete, which is what the page asks before it fetches the picture."""
    image_id = _image_id(session)
    if session.status == "complete" and image_id is not None:
        # Without the note Stripe is asked once more later; an error would be told to a customer who has just paid.
        with suppress(ImageNotFound, StoreFull, StoreUnavailable):
            if not found.store.get(image_id).checkout_complete:
                _note_complete(found, image_id)


def _note_complete(found: Services, image_id: str) -> None:
    if not found.store.note_checkout(image_id, complete=True).checkout_complete:
        found.counters.checkouts_complete.inc()


def _keep_for_owner(found: Services, session: Session) -> None:
    """Keep the picture of a complete checkout, also while a delayed payment is on its way."""
    image_id = _image_id(session)
    if session.status != "complete" or image_id is None:
        return
    try:
        _note_complete(found, image_id)
        found.store.pin(image_id, found.now() + found.config.paid_seconds)
        log.info("checkout complete for %s (%s), kept for its owner", short(image_id), session.payment_status)
    except ImageNotFound:
        log.info(
            "checkout %s is complete (%s); %s was handed over already, or has expired",
            short(session.id), session.payment_status, short(image_id),
        )  # fmt: skip


def _image_id(session: Session) -> str | None:
    """Find our picture's id in a session; another product of the same Stripe account has none."""
    image_id = session.metadata.to_dict().get("imageId") if session.metadata else None
    return image_id if isinstance(image_id, str) and is_image_id(image_id) else None


def _json_object() -> dict[str, Any]:
    request.max_content_length = _MAX_JSON_BYTES
    try:
        body = request.get_json(silent=True)
    except RecursionError:
        body = None
    except RequestEntityTooLarge as error:
        raise RequestTooLarge(f"The body is too large; the limit is {_MAX_JSON_BYTES // 1024} KB.") from error
    if not isinstance(body, dict):
        raise NotAJsonObject
    return body
