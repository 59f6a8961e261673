"""Webhook events as Stripe sends them: https://docs.stripe.com/webhooks."""

from __future__ import annotations

import hashlib
import hmac
import json
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from demo.stripe_stand_in.answers import Json, new_id


def event_payload(event_type: str, session: Json, now: float) -> bytes:
    """Make the body of an event about a session, which is given as the API shows it."""
    event = {
        "id": new_id("evt", 24),
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": int(now),
        "data": {"object": session},
        "livemode": False,
        "type": event_type,
    }
    return json.dumps(event, indent=2).encode()


def signature_header(payload: bytes, secret: str, signed_at: float) -> str:
    """Make the value of Stripe-Signature: https://docs.stripe.com/webhooks/signature."""
    seconds = int(signed_at)
    signature = hmac.new(secret.encode(), f"{seconds}.".encode() + payload, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={signature}"


def post_event(url: str, payload: bytes, signature: str) -> int | None:
    """Post an event once; return the receiver's status, or None if there is no answer."""
    parts = urlsplit(url)
    connection = (HTTPSConnection if parts.scheme == "https" else HTTPConnection)(parts.netloc, timeout=5)
    headers = {"Content-Type": "application/json", "Stripe-Signature": signature}
    try:
        connection.request("POST", parts._replace(scheme="", netloc="").geturl(), payload, headers)
        return connection.getresponse().status
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
