"""Events as Stripe sends them: https://docs.stripe.com/webhooks."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from demo.stripe_answers import Json, new_id

API_VERSION = "2026-10-28.endive"
TIMEOUT_SECONDS = 5


@dataclass(frozen=True)
class Delivery:
    """What was sent, and what became of it: the receiver's status, or why there is none."""

    event_type: str
    payload: bytes
    signature: str
    status: int | None = None
    error: str | None = None


def event_payload(event_type: str, shown: Json, now: float) -> bytes:
    """An event about something, as the body of a request; ``shown`` is that thing as the API shows it."""
    event = {
        "id": new_id("evt", 24),
        "object": "event",
        "api_version": API_VERSION,
        "created": int(now),
        "data": {"object": shown},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": event_type,
    }
    return json.dumps(event, indent=2).encode()


def signature_header(payload: bytes, secret: str, signed_at: float) -> str:
    """The value of Stripe-Signature: https://docs.stripe.com/webhooks/signature."""
    seconds = int(signed_at)
    signature = hmac.new(secret.encode(), f"{seconds}.".encode() + payload, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={signature}"


def deliver(url: str, event_type: str, payload: bytes, signature: str) -> Delivery:
    """Post an event once. Redirects are failures, as with Stripe; a connection that fails is recorded, not raised."""
    try:
        status = _post(url, payload, {"Content-Type": "application/json", "Stripe-Signature": signature})
        return Delivery(event_type, payload, signature, status=status)
    except (OSError, HTTPException) as problem:
        return Delivery(event_type, payload, signature, error=f"{type(problem).__name__}: {problem}")


def _post(url: str, body: bytes, headers: dict[str, str]) -> int:
    parts = urlsplit(url)
    connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = connect(parts.netloc, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("POST", parts._replace(scheme="", netloc="").geturl(), body, headers)
        return connection.getresponse().status
    finally:
        connection.close()
