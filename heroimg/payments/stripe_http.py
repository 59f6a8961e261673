"""HTTP to Stripe: how many calls wait at a time, how long each may take, and how far this machine's clock is off."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from email.utils import parsedate_to_datetime
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from weakref import WeakValueDictionary

import requests
import stripe
from urllib3 import HTTPResponse

from heroimg.stores.base import Clock

log = logging.getLogger(__name__)

# In each process, at most this many requests wait for Stripe. These and the MAX_UNBUFFERED readers of
# pictures/hand_over.py leave some of gunicorn's 16 threads (gunicorn_conf.py) free.
MAX_CALLS_AT_ONCE = 6

# The longest wait for a call and its retry, including name resolution and slow answers. It must be less than gunicorn's
# graceful_timeout.
DEADLINE_SECONDS = 20

# For each attempt: the seconds to connect, and the longest pause within an answer.
_TIMEOUT = (3.05, 8)

# Synchronised clocks differ by less than this.
_MAX_SKEW_SECONDS = 60


class StripeHttp(stripe.RequestsClient):
    """The HTTP client that Stripe's library uses. Each call has its own thread, so a request can stop waiting.

    :param on_call: gets the seconds that each call took.
    :attr:`seconds_ahead`: by how much this machine's clock was ahead of Stripe's at the last answer.
    """

    def __init__(self, clock: Clock, on_call: Callable[[float], None] = lambda _seconds: None) -> None:
        # All threads share this session, to reuse connections. Connections are thread-safe, but cookies are not, so the
        # session keeps no cookies.
        session = requests.Session()
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        session.hooks["response"].append(self._remember_body)
        # A thread's id, and the answer that the thread reads. Weak references do not keep finished answers in memory.
        self._bodies = WeakValueDictionary[int, HTTPResponse]()
        super().__init__(timeout=_TIMEOUT, session=session)
        self.seconds_ahead = 0.0
        self._clock = clock
        self._on_call = on_call
        self._slots = threading.BoundedSemaphore(MAX_CALLS_AT_ONCE)

    def request_with_retries(self, *args: Any, **options: Any) -> tuple[str, int, Mapping[str, str]]:
        """Return the body, the status and the headers of Stripe's answer.

        :raises stripe.APIConnectionError: Stripe did not answer in time, or MAX_CALLS_AT_ONCE calls wait already.
        """
        if not self._slots.acquire(blocking=False):
            raise _unreachable(f"{MAX_CALLS_AT_ONCE} calls of this process wait for Stripe already")
        asked, start = self._clock(), time.perf_counter()
        try:
            answer = self._wait_for(*args, **options)
        finally:
            self._on_call(time.perf_counter() - start)
        self._compare_clocks(answer[2].get("Date"), asked)
        return answer

    def _wait_for(self, *args: Any, **options: Any) -> tuple[str, int, Mapping[str, str]]:
        """Call Stripe in another thread, and free the slot when that thread is done."""
        ask = partial(super().request_with_retries, *args, **options)
        call = Future[tuple[str, int, Mapping[str, str]]]()
        call.add_done_callback(lambda _: self._slots.release())

        def run() -> None:
            try:
                call.set_result(ask())
            except BaseException as error:
                call.set_exception(error)

        thread = threading.Thread(target=run, name="stripe", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the host allows no more threads: make the call in this thread, without the limit
            self._slots.release()
            return ask()
        try:
            return call.result(DEADLINE_SECONDS)
        except TimeoutError as error:
            if body := self._bodies.get(thread.ident or 0):
                # Stop reading a slow body, so that its thread ends. After a complete body, shutdown() raises an error.
                with suppress(RuntimeError, ValueError, OSError):
                    body.shutdown()
            raise _unreachable(f"no answer within {DEADLINE_SECONDS} seconds") from error

    def _remember_body(self, answer: requests.Response, **_options: object) -> None:
        self._bodies[threading.get_ident()] = answer.raw

    def clock_warning(self) -> str | None:
        """Return a sentence for the operator if this machine's clock is off by more than a minute."""
        if abs(self.seconds_ahead) <= _MAX_SKEW_SECONDS:
            return None
        direction = "ahead of" if self.seconds_ahead > 0 else "behind"
        return (
            f"This machine's clock is {abs(self.seconds_ahead):.0f} seconds {direction} Stripe's: synchronise it, for "
            "example by `timedatectl set-ntp true`."
        )

    def _compare_clocks(self, date: str | None, asked: float) -> None:
        """Compare this machine's clock with the `Date` of Stripe's answer.

        `Date` is in whole seconds. Stripe wrote `Date` after `asked`, and before the answer arrived.
        """
        try:
            stripe_time = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        warned = self.clock_warning()
        # The difference is between `least` and `most`. Take the value in this range that is nearest to 0.
        least, most = asked - (stripe_time + 1), self._clock() - stripe_time
        self.seconds_ahead = max(least, min(most, 0.0))
        if not warned and (warning := self.clock_warning()):
            log.error("%s", warning)


def _unreachable(reason: str) -> stripe.APIConnectionError:
    return stripe.APIConnectionError(reason)  # type: ignore[no-untyped-call]
