"""Stripe's Checkout Sessions. Only the stripe_ modules call Stripe's library."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import stripe

# The library imports these lazily. Import them by name, so that they are loaded before the workers are forked.
from stripe import StripeClient, Webhook, WebhookSignature
from stripe.checkout import Session, SessionService

from heroimg.config import Config
from heroimg.errors import (
    CheckoutNotConfigured,
    SessionIdMalformed,
    SessionNotFound,
    SignatureInvalid,
    StripeFailed,
    StripeUnreachable,
    ThinEvent,
)
from heroimg.payments.stripe_http import StripeHttp
from heroimg.stores.base import Clock
from heroimg.stores.image import is_image_id

log = logging.getLogger(__name__)

# JSON that is not an event raises these errors.
_NO_EVENT = (ValueError, LookupError, AttributeError, TypeError)

# Telemetry would write a file into the user's home.
stripe.enable_telemetry = False


class StripeSessions:
    """The Checkout Sessions of one Stripe account.

    :param on_call: gets the seconds that each call to Stripe took.
    :attr:`client`: the client of Stripe's library; None without a key.

    The methods that call Stripe may raise these errors:

    :raises CheckoutNotConfigured: STRIPE_SECRET_KEY is not set.
    :raises StripeUnreachable: the same request may succeed later.
    :raises StripeFailed: Stripe refused the request, or failed.
    """

    def __init__(self, config: Config, clock: Clock, on_call: Callable[[float], None] = lambda _seconds: None) -> None:
        self._config = config
        self._http = StripeHttp(clock, on_call)
        self.client = _client(config, self._http) if config.stripe_secret_key else None

    @property
    def seconds_ahead(self) -> float:
        """The seconds by which this machine's clock is ahead of Stripe's; negative if it is behind."""
        return self._http.seconds_ahead

    def clock_warning(self) -> str | None:
        """Return a sentence for the operator if this machine's clock is off by more than a minute."""
        return self._http.clock_warning()

    def create(self, image_id: str, expires_at: int, after: str | None = None) -> Session:
        """Create a session that cannot be paid after `expires_at`.

        Calls with the same arguments return the same session, because the arguments make the idempotency key. A
        repeated call may return a session that has ended.

        :param after: the picture's last session, which has ended. It is part of the idempotency key, so that Stripe
            does not return the ended session again.
        """
        params = self._params(image_id, expires_at)
        key = hashlib.sha256(json.dumps([params, after], sort_keys=True).encode()).hexdigest()
        with self._stripe_errors():
            session = self._service.create(params=cast(Any, params), options={"idempotency_key": f"heroimg-{key}"})
        # Stripe marks an answer that it repeats. https://docs.stripe.com/api/idempotent_requests
        is_repeated = session.last_response and "Idempotent-Replayed" in session.last_response.headers
        return self.retrieve(session.id) if is_repeated else session

    def retrieve(self, session_id: str) -> Session:
        """Retrieve a session.

        :raises SessionIdMalformed: this is not an id, and must not become part of a URL.
        :raises SessionNotFound: this account and mode have no such session.
        """
        if not re.fullmatch(r"cs_(test|live)_[A-Za-z0-9]{1,200}", session_id):
            raise SessionIdMalformed
        with self._stripe_errors():
            return self._service.retrieve(session_id)

    def expire(self, session: Session) -> Session:
        """Expire a session if it is open. The returned session's `status` is `expired` or `complete`.

        :raises StripeUnreachable, StripeFailed: the session may still be open.
        """
        if session.status != "open":
            return session
        with self._stripe_errors():
            try:
                return self._service.expire(session.id)
            except (stripe.InvalidRequestError, stripe.APIError):
                current = self._service.retrieve(session.id)
                if current.status == "open":
                    raise
                return current  # it was paid or expired in the meantime

    def read_event(self, payload: bytes, signature: str | None) -> tuple[str, str]:
        """Return the type of a webhook's event, and its object's id. The id is empty if the object has no id.

        :raises SignatureInvalid: this is not an event, or it is not signed with STRIPE_WEBHOOK_SECRET.
        :raises ThinEvent: this is a signed event of Stripe's API v2. Such an event does not contain its object.
        """
        self._verify(payload, signature)
        try:
            event = json.loads(payload)
            if event["object"] == "v2.core.event":
                raise ThinEvent
            return str(event["type"]), str(event["data"]["object"].get("id", ""))
        except (RecursionError, *_NO_EVENT) as error:
            raise SignatureInvalid from error

    def refuse_old_event(self, payload: bytes, signature: str | None) -> None:
        """Refuse an event whose signature is older than 300 seconds, by Stripe's clock at this process's last call.

        :raises SignatureInvalid: the event is too old.
        """
        self._verify(payload, signature, Webhook.DEFAULT_TOLERANCE + self.seconds_ahead)

    def _verify(self, payload: bytes, signature: str | None, tolerance: float | None = None) -> None:
        if not signature or not signature.isascii():  # the library's comparison raises TypeError for non-ASCII text
            raise SignatureInvalid
        try:
            WebhookSignature.verify_header(payload, signature, self._config.stripe_webhook_secret, tolerance)
        except (stripe.SignatureVerificationError, ValueError) as error:
            raise SignatureInvalid from error

    @contextmanager
    def _stripe_errors(self) -> Iterator[None]:
        """Turn Stripe's errors into heroimg's errors. Stripe's own message goes to the log, never to the customer."""
        try:
            yield
        except (stripe.APIConnectionError, stripe.RateLimitError) as error:
            raise StripeUnreachable(retry_after=2) from error
        except stripe.StripeError as error:
            code = error.error.code if error.error else None
            if code == "resource_missing":
                raise SessionNotFound from error
            if code == "idempotency_key_in_use":  # Stripe is still answering a concurrent request of a double click
                raise StripeUnreachable(retry_after=1) from error
            self._log_refusal(error)
            raise StripeFailed from error

    def _log_refusal(self, error: stripe.StripeError) -> None:
        answer = f"Stripe's answer: {error.user_message} (request {error.request_id})"
        if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
            log.error("Stripe refused STRIPE_SECRET_KEY: set it to one that may write Checkout Sessions. %s", answer)
        elif isinstance(error, stripe.InvalidRequestError | stripe.IdempotencyError):
            advice = self.clock_warning() or "Check the HEROIMG_ settings of the product."
            log.error("Stripe refused the parameters. %s %s", advice, answer)

    @property
    def _service(self) -> SessionService:
        if self.client is None:
            raise CheckoutNotConfigured
        return self.client.v1.checkout.sessions

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


def _client(config: Config, http: StripeHttp) -> StripeClient:
    return StripeClient(
        config.stripe_secret_key or "",
        base_addresses={"api": config.stripe_api_base} if config.stripe_api_base else {},
        max_network_retries=1,
        http_client=http,
    )


def image_id_of(session: Session) -> str | None:
    """Return the picture's id from a session's metadata; None if heroimg did not open the session."""
    image_id = session.metadata.to_dict().get("imageId") if session.metadata else None
    return image_id if isinstance(image_id, str) and is_image_id(image_id) else None
