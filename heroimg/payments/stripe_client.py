"""Stripe: what is asked of it, and what its errors mean here. The only module that calls its library."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import stripe

# By name: the library puts off importing them, and each worker would do it for itself after gunicorn has forked.
from stripe import StripeClient, Webhook
from stripe.checkout import Session, SessionService

from heroimg.config import Config
from heroimg.errors import (
    CheckoutNotConfigured,
    SessionIdMalformed,
    SessionNotFound,
    SignatureInvalid,
    StripeFailed,
    StripeUnreachable,
)

log = logging.getLogger(__name__)

# The library writes a file into the user's home otherwise.
stripe.enable_telemetry = False

# Seconds to connect and to answer. With one retry a call ends within 28, before gunicorn's timeout (gunicorn_conf.py).
_TIMEOUT = (3.05, 8)


class Payments:
    """Checkout Sessions for pictures. Without a key every method but `event` raises CheckoutNotConfigured.

    They raise StripeUnreachable where asking again may help, and StripeFailed where it does not.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._client = _client(config) if config.stripe_secret_key else None

    def open_session(self, image_id: str, expires_at: int) -> Session:
        """Open a Checkout Session that cannot be paid after `expires_at`.

        The same picture and instant give the same session, however often and at once this is asked: the idempotency key
        is made of the very parameters.
        """
        params = self._params(image_id, expires_at)
        key = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()
        with _translated():
            return self._sessions.create(params=cast(Any, params), options={"idempotency_key": f"heroimg-{key}"})

    def session(self, session_id: str) -> Session:
        """Retrieve a session.

        :raises SessionIdMalformed: Stripe's library would let `..` reach another part of its API.
        :raises SessionNotFound: Stripe has none of that id, in this account and mode.
        """
        if not re.fullmatch(r"cs_(test|live)_[A-Za-z0-9]{1,200}", session_id):
            raise SessionIdMalformed
        with _translated():
            return self._sessions.retrieve(session_id)

    def end_session(self, session: Session) -> Session:
        """Make a session unpayable, unless it has ended by itself; the `status` of what is returned says how.

        :raises StripeFailed: or StripeUnreachable; it may still be open.
        """
        if session.status != "open":
            return session
        try:
            with _translated():
                return self._sessions.expire(session.id)
        except StripeFailed:
            now = self.session(session.id)
            if now.status == "open":
                raise
            return now  # paid, or expired, between our look and our asking

    def event(self, payload: bytes, signature: str | None) -> tuple[str, str]:
        """Read a webhook's event: its type, and the id of what it is about, empty where that has none.

        :raises SignatureInvalid: it was not signed with our secret, or more than 300 seconds ago, or is no event.
        """
        if not signature or not signature.isascii():  # the library's comparison raises TypeError for the latter
            raise SignatureInvalid
        try:
            secret = self._config.stripe_webhook_secret or ""
            event = Webhook.construct_event(payload, signature, secret)
            return str(event.type), str(getattr(event.data.object, "id", ""))
        except (stripe.SignatureVerificationError, ValueError, AttributeError, TypeError, RecursionError) as error:
            raise SignatureInvalid from error

    @property
    def _sessions(self) -> SessionService:
        if self._client is None:
            raise CheckoutNotConfigured
        return self._client.v1.checkout.sessions

    def _params(self, image_id: str, expires_at: int) -> dict[str, Any]:
        config = self._config
        product = {"name": config.product_name, "description": config.product_description}
        price = {"currency": config.currency, "unit_amount": config.unit_amount, "product_data": product}
        return {
            "mode": "payment",
            "ui_mode": "embedded_page",
            "line_items": [{"price_data": price, "quantity": 1}],
            "return_url": config.return_url,
            "expires_at": expires_at,
            "metadata": {"imageId": image_id},
        }


def _client(config: Config) -> StripeClient:
    return StripeClient(
        config.stripe_secret_key or "",
        base_addresses={"api": config.stripe_api_base} if config.stripe_api_base else {},
        max_network_retries=1,
        http_client=stripe.RequestsClient(timeout=_TIMEOUT),
    )


@contextmanager
def _translated() -> Iterator[None]:
    """Turn Stripe's errors into ours. Its own message is for the operator's log, never for the customer."""
    try:
        yield
    except (stripe.APIConnectionError, stripe.RateLimitError) as error:
        raise StripeUnreachable(retry_after=2) from error
    except stripe.StripeError as error:
        code = error.error.code if error.error else None
        if code == "resource_missing":
            raise SessionNotFound from error
        if code == "idempotency_key_in_use":  # the other half of a double click is being answered
            raise StripeUnreachable(retry_after=1) from error
        _tell_operator(error)
        raise StripeFailed from error


def _tell_operator(error: stripe.StripeError) -> None:
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        log.error("Stripe refused STRIPE_SECRET_KEY: set it to one that may write Checkout Sessions. %s", _said(error))
    elif isinstance(error, stripe.InvalidRequestError | stripe.IdempotencyError):
        log.error("Stripe refused what was asked; look at the HEROIMG_ settings of the product. %s", _said(error))


def _said(error: stripe.StripeError) -> str:
    return f"It said: {error.user_message} (request {error.request_id})"
