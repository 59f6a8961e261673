"""One account at Stripe: its sessions, what customers and banks do to them, and the webhook events about them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

from demo.stripe_stand_in.answers import Json, Refusal
from demo.stripe_stand_in.sessions import CheckoutSession
from demo.stripe_stand_in.webhooks import event_payload, post_event, signature_header

WEBHOOK_SECRET = "whsec_standin"
EVENTS = ("completed", "async_payment_succeeded", "async_payment_failed", "expired")

CHANGES: dict[str, Callable[[CheckoutSession], str | None]] = {
    "pay": CheckoutSession.pay,
    "pay-later": CheckoutSession.pay_later,
    "settle": CheckoutSession.settle,
    "decline": CheckoutSession.decline,
    "expire": CheckoutSession.expire,
}


class Delivery(NamedTuple):
    """A webhook event that was sent, and the receiver's status, or None without an answer."""

    event_type: str
    status: int | None


class StripeAccount:
    """An account with one webhook endpoint.

    :param webhook_url: receives the events. If it is None, no events are sent.
    :param clock: Stripe's time in Unix seconds, which may differ from heroimg's.
    :attr:`webhook`: fields of the endpoint, which a test may change. The account sends the same events anyway.
    """

    def __init__(self, webhook_url: str | None, clock: Callable[[], float]) -> None:
        self.webhook_url = webhook_url
        self.clock = clock
        self.webhook: Json = {"status": "enabled", "enabled_events": [f"checkout.session.{event}" for event in EVENTS]}
        self.deliveries: list[Delivery] = []
        self._sessions: dict[str, CheckoutSession] = {}
        self._lock = threading.RLock()  # guards all state; never held while waiting or sending

    @property
    def sessions(self) -> dict[str, Json]:
        """All sessions by id, oldest first, as the API shows them now."""
        with self._lock:
            return {session_id: self._session(session_id).as_json() for session_id in self._sessions}

    def session(self, session_id: str) -> Json:
        """Return a session as the API shows it.

        :raises Refusal: 404, unknown session.
        """
        with self._lock:
            return self._session(session_id).as_json()

    def page(self, session_id: str) -> Json:
        """Return what the checkout shows to the customer.

        :raises Refusal: 404, unknown session.
        """
        with self._lock:
            return self._session(session_id).as_page()

    def account(self) -> Json:
        """Return the account as the API shows it, with the fields that matter to heroimg."""
        return {"id": "acct_standin", "object": "account", "settings": {"dashboard": {"display_name": "Stand-in"}}}

    def webhook_endpoints(self) -> Json:
        """Return the list of webhook endpoints, which has one at most."""
        endpoint = {"id": "we_standin", "object": "webhook_endpoint", "url": self.webhook_url, **self.webhook}
        return {"object": "list", "data": [endpoint] if self.webhook_url else [], "has_more": False}

    def open_session(self, params: Mapping[str, str]) -> Json:
        session = CheckoutSession(params, created=int(self.clock()))
        with self._lock:
            self._sessions[session.id] = session
            return session.as_json()

    def change(self, session_id: str, change: str) -> Json:
        """Change a session and deliver the webhook event, before this returns.

        :param change: a key of `CHANGES`.
        :returns: id, status, payment_status and return_url.
        :raises Refusal: 404, unknown session; 400 or 409, the session is in the wrong state.
        """
        with self._lock:
            session = self._session(session_id)
            event_type = CHANGES[change](session)
            outcome = session.outcome()
        if event_type:
            self.send_webhook(event_type, session_id)
        return outcome

    def pay(self, session_id: str) -> Json:
        return self.change(session_id, "pay")

    def pay_later(self, session_id: str) -> Json:
        return self.change(session_id, "pay-later")

    def settle(self, session_id: str) -> Json:
        return self.change(session_id, "settle")

    def decline(self, session_id: str) -> Json:
        return self.change(session_id, "decline")

    def expire(self, session_id: str) -> Json:
        return self.change(session_id, "expire")

    def send_webhook(
        self, event_type: str, session_id: str, *, secret: str | None = None, signed_at: float | None = None
    ) -> Delivery | None:
        """Send an event, which may be repeated, late or forged.

        :param secret: signs the event instead of the webhook secret.
        :param signed_at: the signature's time in Unix seconds, instead of now.
        :returns: None if there is no webhook_url.
        """
        if self.webhook_url is None:
            return None
        payload = event_payload(event_type, self.session(session_id), self.clock())
        signature = signature_header(payload, secret or WEBHOOK_SECRET, signed_at or self.clock())
        delivery = Delivery(event_type, post_event(self.webhook_url, payload, signature))
        with self._lock:
            self.deliveries.append(delivery)
        return delivery

    def _session(self, session_id: str) -> CheckoutSession:
        """Return the session as it is now. Call it with the lock held."""
        if session_id not in self._sessions:
            message = f"No such checkout.session: {session_id}"
            raise Refusal(404, message, code="resource_missing", param="session")
        session = self._sessions[session_id]
        session.update(self.clock())
        return session
