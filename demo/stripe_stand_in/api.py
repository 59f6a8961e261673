"""Stripe's API for an embedded one-time checkout, without HTTP: `answer` returns the answer to a request."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from demo.stripe_stand_in.account import StripeAccount
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

SECRET_KEY = "sk_test_standin"
# The permissions of restricted keys. Without a permission Stripe answers 403 before it looks at the parameters.
RESTRICTED_KEYS = {"rk_test_checkout": "/v1/checkout/sessions", "rk_test_account": "/v1/account"}

T = TypeVar("T")


class StripeApi(StripeAccount):
    """The API, which can also fail and wait on command. `requests` lists all requests to it."""

    def __init__(self, webhook_url: str | None, clock: Callable[[], float]) -> None:
        super().__init__(webhook_url, clock)
        self.requests: list[ApiRequest] = []
        # The first request with each idempotency key, and its answer: https://docs.stripe.com/api/idempotent_requests
        self._saved: dict[str, tuple[ApiRequest, Answer | None]] = {}
        self._failures: deque[str] = deque()
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
            self._refuse_key((authorization or "").removeprefix("Bearer "), request.path)
            answer = self._route(request)
        except Refusal as refusal:
            answer = refusal.answer()
        return self._next_failure(FAILURES_AFTER) or answer

    def clear(self) -> None:
        """Forget all sessions, saved answers, requests, deliveries and coming failures."""
        with self._lock:
            for kept in (self.requests, self.deliveries, self._sessions, self._saved, self._failures):
                kept.clear()

    def fail_next(self, mode: str, times: int = 1) -> None:
        """Let the next requests to the API fail.

        :param mode: one of `FAILURES`.
        :raises Refusal: 400, unknown mode.
        """
        if mode not in FAILURES:
            raise Refusal(400, f"Unknown mode '{mode}'. The modes are {', '.join(FAILURES)}.", code="mode_unknown")
        with self._lock:
            self._failures.extend([mode] * times)

    def recover(self) -> None:
        """Cancel the failures that are still to come."""
        with self._lock:
            self._failures.clear()

    def hold(self) -> threading.Event:
        """Let every request for a new session wait until `release`. Until then its idempotency key is in use.

        :returns: an event that is set as soon as such a request waits.
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
                return self._execute(lambda: self.session(session_id))
            case "GET", ["v1", "account"]:
                return self._execute(self.account)
            case "GET", ["v1", "webhook_endpoints"]:
                return self._execute(self.webhook_endpoints)
        raise Refusal(404, f"Unrecognized request URL ({request.method}: {request.path}).")

    def _refuse_key(self, key: str, path: str) -> None:
        if key != SECRET_KEY and key not in RESTRICTED_KEYS:
            raise Refusal(401, "Invalid API Key provided.")
        if not path.startswith(RESTRICTED_KEYS.get(key, "")):
            raise Refusal(403, "The provided key does not have the required permissions for this endpoint.")

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
        return replace(saved, is_replayed=True)

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
        return self.open_session(params)

    def _expire(self, session_id: str) -> Json:
        self.expire(session_id)
        return self.session(session_id)

    def _next_failure(self, failures: Mapping[str, T]) -> T | None:
        """Take the next failure from the queue if it is one of these."""
        with self._lock:
            is_next = bool(self._failures) and self._failures[0] in failures
            return failures[self._failures.popleft()] if is_next else None
