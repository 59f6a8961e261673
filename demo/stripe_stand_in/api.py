"""Stripe's API for an embedded one-time checkout: a request in, an answer out, without the network.

Other methods act as the customer, the bank or the network: pay a session, decline a payment, fail.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from demo.stripe_stand_in.answers import (
    FAILURES,
    FAILURES_AFTER,
    FAILURES_BEFORE,
    FAILURES_INSIDE,
    Answer,
    ApiRequest,
    Json,
    Refusal,
    Silence,
    json_answer,
    new_id,
)
from demo.stripe_stand_in.parameters import check_parameters
from demo.stripe_stand_in.sessions import CheckoutSession
from demo.stripe_stand_in.webhooks import event_payload, post_event, signature_header

SECRET_KEY, WEBHOOK_SECRET = "sk_test_standin", "whsec_standin"

T = TypeVar("T")


class Delivery(NamedTuple):
    """A webhook event that was sent, and the receiver's status, or None without an answer."""

    event_type: str
    status: int | None


CHANGES: dict[str, Callable[[CheckoutSession], str | None]] = {
    "pay": CheckoutSession.pay,
    "pay-later": CheckoutSession.pay_later,
    "settle": CheckoutSession.settle,
    "decline": CheckoutSession.decline,
    "expire": CheckoutSession.expire,
}


class StripeApi:
    """Stripe with one account and one webhook endpoint.

    :param webhook_url: receives the events. None sends none.
    :param clock: Stripe's time in Unix seconds, which may differ from heroimg's.

    `requests` lists all requests to the API, and `deliveries` the webhook events.
    """

    def __init__(self, webhook_url: str | None, clock: Callable[[], float]) -> None:
        self.webhook_url = webhook_url
        self.clock = clock
        self.requests: list[ApiRequest] = []
        self.deliveries: list[Delivery] = []
        self._sessions: dict[str, CheckoutSession] = {}
        # The first request with each idempotency key, and its answer: https://docs.stripe.com/api/idempotent_requests
        self._saved: dict[str, tuple[ApiRequest, Answer | None]] = {}
        self._failures: deque[str] = deque()
        self._lock = threading.RLock()  # guards everything above; never held while waiting or sending
        self._gate = threading.Event()
        self._gate.set()
        self._held = threading.Event()

    def answer(self, request: ApiRequest, authorization: str | None) -> Answer | Silence:
        """Answer as Stripe."""
        with self._lock:
            self.requests.append(request)
        if failure := self._next_failure(FAILURES_BEFORE):
            return failure
        try:
            if authorization != f"Bearer {SECRET_KEY}":
                raise Refusal(401, "Invalid API Key provided.")
            answer = self._route(request)
        except Refusal as refusal:
            answer = refusal.answer()
        return self._next_failure(FAILURES_AFTER) or answer

    @property
    def sessions(self) -> dict[str, Json]:
        """All sessions by id, oldest first, as the API shows them now."""
        with self._lock:
            return {session_id: self._session(session_id).as_json() for session_id in self._sessions}

    def page(self, session_id: str) -> Json:
        """Return what the checkout shows to the customer."""
        with self._lock:
            return self._session(session_id).as_page()

    def clear(self) -> None:
        """Forget all sessions, saved answers, requests, deliveries and coming failures."""
        with self._lock:
            for kept in (self.requests, self.deliveries, self._sessions, self._saved, self._failures):
                kept.clear()

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
        payload = event_payload(event_type, self._retrieve(session_id), self.clock())
        # By the machine's clock, because the SDK compares the signature's time with it.
        signature = signature_header(payload, secret or WEBHOOK_SECRET, signed_at or time.time())
        delivery = Delivery(event_type, post_event(self.webhook_url, payload, signature))
        with self._lock:
            self.deliveries.append(delivery)
        return delivery

    def fail_next(self, mode: str, times: int = 1) -> None:
        """Let the next requests to the API fail.

        :param mode: one of `FAILURES`.
        :raises Refusal: 400, unknown mode.
        """
        if mode not in FAILURES:
            raise Refusal(400, f"Unknown mode '{mode}'. The modes are {', '.join(FAILURES)}.", code="mode_unknown")
        with self._lock:
            self._failures.extend([mode] * times)

    def hold(self) -> threading.Event:
        """Let every create wait, with its idempotency key in use, until `release`.

        :returns: is set as soon as a create waits.
        """
        self._held = threading.Event()
        self._gate.clear()
        return self._held

    def release(self) -> None:
        self._gate.set()

    def _route(self, request: ApiRequest) -> Answer:
        match request.method, request.path.split("/")[1:]:
            case "POST", ["v1", "checkout", "sessions"]:
                return self._once(request, lambda: self._create(request.params))
            case "POST", ["v1", "checkout", "sessions", session_id, "expire"]:
                return self._once(request, lambda: self._expire(session_id))
            case "GET", ["v1", "checkout", "sessions", session_id]:
                return self._execute(lambda: self._retrieve(session_id))
        raise Refusal(404, f"Unrecognized request URL ({request.method}: {request.path}).")

    def _once(self, request: ApiRequest, work: Callable[[], Json]) -> Answer:
        """Work once per idempotency key, and replay the answer."""
        key = request.idempotency_key or new_id("unique", 24)
        with self._lock:
            first, saved = self._saved.setdefault(key, (request, None))
        if first is request:
            answer = self._execute(work)
            with self._lock:
                self._saved[key] = request, answer
            return answer
        if saved is None:
            message = f"There is currently another in-progress request using this Idempotent Key: {key}."
            raise Refusal(409, message, type="idempotency_error", code="idempotency_key_in_use")
        if first != request:
            message = f"The idempotency key '{key}' was first used with other parameters or for another endpoint."
            raise Refusal(400, message, type="idempotency_error")
        return saved

    def _execute(self, work: Callable[[], Json]) -> Answer:
        if failure := self._next_failure(FAILURES_INSIDE):
            return failure
        try:
            return json_answer(200, work())
        except Refusal as refusal:
            return refusal.answer()

    def _create(self, params: Mapping[str, str]) -> Json:
        check_parameters(params, self.clock())
        self._held.set()
        self._gate.wait()
        session = CheckoutSession(params, created=int(self.clock()))
        with self._lock:
            self._sessions[session.id] = session
            return session.as_json()

    def _retrieve(self, session_id: str) -> Json:
        with self._lock:
            return self._session(session_id).as_json()

    def _expire(self, session_id: str) -> Json:
        self.expire(session_id)
        return self._retrieve(session_id)

    def _session(self, session_id: str) -> CheckoutSession:
        """Return the session as it is now. Call it with the lock held."""
        if session_id not in self._sessions:
            message = f"No such checkout.session: {session_id}"
            raise Refusal(404, message, code="resource_missing", param="session")
        session = self._sessions[session_id]
        session.update(self.clock())
        return session

    def _next_failure(self, failures: Mapping[str, T]) -> T | None:
        """Take the next failure from the queue if it is one of these."""
        with self._lock:
            is_next = bool(self._failures) and self._failures[0] in failures
            return failures[self._failures.popleft()] if is_next else None
