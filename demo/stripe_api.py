"""Stripe's API as far as an embedded one-time checkout goes: a request in, an answer out, without the network.

What only Stripe's customers, their banks and the network can do are methods here: pay a session, settle it, fail.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeVar

from demo.checkout_sessions import CheckoutSession
from demo.session_parameters import Parameters, check_create, check_names_and_values
from demo.stripe_answers import (
    FAILURES,
    FAILURES_AFTER,
    FAILURES_BEFORE,
    FAILURES_INSIDE,
    Answer,
    ApiRequest,
    Json,
    Refusal,
    SavedAnswers,
    Silence,
    json_answer,
    new_id,
)
from demo.webhooks import Delivery, deliver, event_payload, signature_header

T = TypeVar("T")

CHANGES: dict[str, Callable[[CheckoutSession], str | None]] = {
    "pay": CheckoutSession.pay,
    "pay-later": CheckoutSession.pay_later,
    "settle": CheckoutSession.settle,
    "decline": CheckoutSession.decline,
    "expire": CheckoutSession.expire,
}


class StripeApi:
    """Stripe, with one account, one webhook endpoint and every session in memory.

    :param webhook_url: where events are posted to; may be set later. None sends none.
    :param clock: what time Stripe thinks it is, in Unix seconds.

    ``requests`` is what the API was asked, refused or not; ``deliveries`` is what became of the webhook events.
    """

    def __init__(
        self, secret_key: str, webhook_secret: str, webhook_url: str | None, clock: Callable[[], float]
    ) -> None:
        self.webhook_url = webhook_url
        self.requests: list[ApiRequest] = []
        self.deliveries: list[Delivery] = []
        self._secret_key = secret_key
        self._webhook_secret = webhook_secret
        self._clock = clock
        self._sessions: dict[str, CheckoutSession] = {}
        self._saved_answers = SavedAnswers()
        self._failures: deque[str] = deque()
        self._lock = threading.Lock()  # around everything above; never held while waiting or sending
        self._gate = threading.Event()  # set: creates pass
        self._gate.set()
        self._held = threading.Event()

    def answer(self, request: ApiRequest, authorization: str | None) -> Answer | Silence:
        """Answer as Stripe."""
        with self._lock:
            self.requests.append(request)
        failure = self._failure(FAILURES_BEFORE)
        if failure:
            return _identified(failure)
        answer = self._answer_or_refuse(request, authorization)
        return _identified(self._failure(FAILURES_AFTER) or answer)

    # What the customer, the bank and time do

    @property
    def sessions(self) -> dict[str, Json]:
        """Every session by its id, oldest first, as the API would show it now."""
        with self._lock:
            return {session_id: self._session(session_id).as_json() for session_id in self._sessions}

    def page(self, session_id: str) -> Json:
        """What the checkout shows to the customer now.

        :raises Refusal: 404 for an unknown session.
        """
        with self._lock:
            return self._session(session_id).as_page()

    def clear(self) -> None:
        """Forget every session, saved answer, request, delivery and coming failure, as a new account would."""
        with self._lock:
            for what in (self.requests, self.deliveries, self._sessions, self._failures):
                what.clear()
            self._saved_answers = SavedAnswers()

    def pay(self, session_id: str) -> Json:
        """Pay as a customer with a good card.

        This and the four below answer with id, status, payment_status and the filled-in return_url, after the
        webhook has been delivered.

        :raises Refusal: 404 for an unknown session; 409 for one in the wrong state, and the message says in which.
        """
        return self.change(session_id, "pay")

    def pay_later(self, session_id: str) -> Json:
        """Pay as a customer with a bank debit: complete, and unpaid until :meth:`settle` or :meth:`decline`."""
        return self.change(session_id, "pay-later")

    def settle(self, session_id: str) -> Json:
        """Let the money of a delayed payment arrive."""
        return self.change(session_id, "settle")

    def decline(self, session_id: str) -> Json:
        """Refuse a card, which leaves the session open, or the money of a delayed payment."""
        return self.change(session_id, "decline")

    def expire(self, session_id: str) -> Json:
        """End an open session before its time."""
        return self.change(session_id, "expire")

    def change(self, session_id: str, change: str) -> Json:
        """Do to a session what :data:`CHANGES` names, then send the event that Stripe sends for it.

        Stripe sends its events some time later; here they have arrived when this returns, so that no test waits.
        """
        with self._lock:
            session = self._session(session_id)
            event_type = CHANGES[change](session)
            outcome, shown = session.outcome(), session.as_json()
        if event_type:
            self._deliver(event_type, shown)
        return outcome

    def send_webhook(
        self, event_type: str, session_id: str, *, secret: str | None = None, signed_at: float | None = None
    ) -> Delivery | None:
        """Send an event out of turn: again, late, or forged.

        :param secret: signs the event instead of the webhook secret.
        :param signed_at: the signature's time in Unix seconds, instead of now.
        :returns: None if there is no webhook_url.
        """
        return self._deliver(event_type, self._shown(session_id), secret=secret, signed_at=signed_at)

    # What the network does

    def fail_next(self, mode: str, times: int = 1) -> None:
        """Fail the next requests to the API, in a way that :data:`~demo.stripe_answers.FAILURES` names.

        :raises Refusal: 400, no such mode.
        """
        if mode not in FAILURES:
            raise Refusal(400, f"Unknown mode '{mode}'; there are {', '.join(FAILURES)}.", code="mode_unknown")
        with self._lock:
            self._failures.extend([mode] * times)

    def hold(self) -> threading.Event:
        """Let every create wait, its idempotency key in use, until :meth:`release`.

        :returns: is set as soon as one waits.
        """
        self._held = threading.Event()
        self._gate.clear()
        return self._held

    def release(self) -> None:
        self._gate.set()

    def _answer_or_refuse(self, request: ApiRequest, authorization: str | None) -> Answer:
        try:
            self._authorize(authorization)
            return self._route(request)
        except Refusal as refusal:
            return refusal.answer()

    def _authorize(self, authorization: str | None) -> None:
        if not authorization:
            message = "You did not provide an API key. You need to provide it as 'Authorization: Bearer YOUR_KEY'."
            raise Refusal(401, message)
        if authorization != f"Bearer {self._secret_key}":
            raise Refusal(401, "Invalid API Key provided.")

    def _route(self, request: ApiRequest) -> Answer:
        match request.method, request.path.split("/")[1:]:
            case "POST", ["v1", "checkout", "sessions"]:
                return self._once(request, lambda: self._create(request.params))
            case "POST", ["v1", "checkout", "sessions", session_id, "expire"]:
                return self._once(request, lambda: self._expire(session_id, request.params))
            case "GET", ["v1", "checkout", "sessions", session_id]:
                return self._retrieve(session_id, request.params)
        raise Refusal(404, f"Unrecognized request URL ({request.method}: {request.path}).")

    def _once(self, request: ApiRequest, endpoint: Callable[[], Answer]) -> Answer:
        """Answer as the first time this key was used; a refusal to begin is not saved, as with Stripe."""
        with self._lock:
            saved = self._saved_answers.begin(request)
        if saved:
            return saved
        answer = None
        try:
            answer = endpoint()
            return answer
        finally:
            with self._lock:
                self._saved_answers.end(request, answer)

    def _create(self, params: Parameters) -> Answer:
        check_create(params, self._clock())
        self._held.set()
        self._gate.wait()
        return self._execute(lambda: self._keep(CheckoutSession.create(params, self._clock())))

    def _retrieve(self, session_id: str, params: Parameters) -> Answer:
        check_names_and_values(params, {})
        return self._execute(lambda: self._shown(session_id))

    def _expire(self, session_id: str, params: Parameters) -> Answer:
        check_names_and_values(params, {})
        return self._execute(lambda: self._end(session_id))

    def _execute(self, work: Callable[[], Json]) -> Answer:
        """Answer with the work's outcome, a refusal too: from here on Stripe saves what it answers."""
        failure = self._failure(FAILURES_INSIDE)
        if failure:
            return failure
        try:
            return json_answer(200, work())
        except Refusal as refusal:
            return refusal.answer()

    def _failure(self, table: Mapping[str, T]) -> T | None:
        """The failure that is due, if it is one of the table's."""
        with self._lock:
            is_due = bool(self._failures) and self._failures[0] in table
            return table[self._failures.popleft()] if is_due else None

    def _end(self, session_id: str) -> Json:
        self.expire(session_id)
        return self._shown(session_id)

    def _keep(self, session: CheckoutSession) -> Json:
        with self._lock:
            self._sessions[session.id] = session
            return session.as_json()

    def _shown(self, session_id: str) -> Json:
        with self._lock:
            return self._session(session_id).as_json()

    def _session(self, session_id: str) -> CheckoutSession:
        """The session as it is by now; with the lock held."""
        if session_id not in self._sessions:
            message = f"No such checkout.session: {session_id}"
            raise Refusal(404, message, code="resource_missing", param="session")
        session = self._sessions[session_id]
        session.let_time_pass(self._clock())
        return session

    def _deliver(
        self, event_type: str, shown: Json, *, secret: str | None = None, signed_at: float | None = None
    ) -> Delivery | None:
        if self.webhook_url is None:
            return None
        payload = event_payload(event_type, shown, self._clock())
        # By the wall clock, not by ours: the SDK compares it with the wall clock.
        header = signature_header(payload, secret or self._webhook_secret, signed_at or time.time())
        delivery = deliver(self.webhook_url, event_type, payload, header)
        with self._lock:
            self.deliveries.append(delivery)
        return delivery


def _identified(answer: Answer | Silence) -> Answer | Silence:
    return answer if isinstance(answer, Silence) else answer.with_header("Request-Id", new_id("req", 14))
