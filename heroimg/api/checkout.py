"""The checkout's blueprint: embedded-session, session-status, webhook."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, abort, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge

from heroimg.api.services import services
from heroimg.errors import ClaimMalformed, ImageIdRequired, NotAJsonObject, RequestTooLarge, SessionIdRequired
from heroimg.payments.stripe_sessions import image_id_of
from heroimg.stores.image import is_claim_token

bp = Blueprint("checkout", __name__)

_MAX_JSON_BYTES = 64 * 1024
_MAX_EVENT_BYTES = 1024 * 1024


@bp.post("/api/checkout/embedded-session")
def embedded_session() -> ResponseReturnValue:
    """Return the client secret of the picture's open session."""
    body = _json_object()
    image_id, claim = body.get("imageId"), body.get("claim")
    if not image_id or not isinstance(image_id, str):
        raise ImageIdRequired
    if claim is not None and not (isinstance(claim, str) and is_claim_token(claim)):
        raise ClaimMalformed
    return {"client_secret": services().checkout.open(image_id, claim).client_secret}


@bp.get("/api/checkout/session-status")
def session_status() -> ResponseReturnValue:
    """Return a session's state and its picture's id.

    Anyone who sees the address of the return page knows the session's id. So nothing about the customer is returned.
    """
    session_id = request.args.get("session_id")
    if not session_id:
        raise SessionIdRequired
    session = services().checkout.status(session_id)
    image_id = image_id_of(session)
    return {
        "status": session.status,
        "payment_status": session.payment_status,
        "metadata": {"imageId": image_id} if image_id else {},
    }


@bp.post("/api/checkout/webhook")
def webhook() -> ResponseReturnValue:
    """Receive Stripe's events. Answer 404 unless STRIPE_WEBHOOK_SECRET is set."""
    if not services().config.stripe_webhook_secret:
        abort(404)
    request.max_content_length = _MAX_EVENT_BYTES
    services().payment_events.handle(request.get_data(), request.headers.get("Stripe-Signature"))
    return "", 200


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
