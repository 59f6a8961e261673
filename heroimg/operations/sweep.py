"""When sweeps run: regularly in a thread of each worker process, after a response, or by an operator's command.

Every worker has a scheduler, which by default runs every minute. So sweeping goes on if a worker dies.

A lock file lets one process sweep at a time. The modification time of the lock file is the end of the last sweep;
before the first sweep, it is the creation of the file. It shows workers whether a sweep is due, and shows /readyz
whether sweeps have stopped. A shared store has no lock file: every worker on every machine sweeps it.

On shared hosting, threads may be forbidden, or may end with an idle process. So an overdue sweep also runs after a
response. Such a sweep reads the whole folder, but removes pictures for at most 0.1 s.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from werkzeug.wsgi import ClosingIterator

from heroimg.config import Config
from heroimg.errors import StoreUnavailable
from heroimg.logs import short
from heroimg.operations.counters import Counters
from heroimg.operations.instance import instance_path, make_instance_file, open_instance_file
from heroimg.stores.base import Clock, ImageStore, Swept

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

# A sweep is overdue after this many intervals.
_OVERDUE_INTERVALS = 3

# The interval if HEROIMG_SWEEP_SECONDS is 0.
_USUAL_SECONDS = Config.sweep_seconds

# A sweep after a response stops removing pictures after this time, because its thread takes no request during the
# sweep.
_BETWEEN_REQUESTS_SECONDS = 0.1


class Sweeper:
    """Sweeps the store, and logs and counts what a sweep removed.

    :param end_sessions: called with the ids of pictures that have sessions to end.
    :raises ConfigError: the lock file cannot be written.
    """

    def __init__(
        self,
        config: Config,
        store: ImageStore,
        counters: Counters,
        clock: Clock,
        end_sessions: Callable[[Iterable[str]], None],
    ) -> None:
        self._config = config
        self._store = store
        self._counters = counters
        self._clock = clock
        self._end_sessions = end_sessions
        self._started = int(clock())
        # When this process last swept without a lock file, or failed to sweep.
        self._last_unrecorded = 0.0
        self._lock_path = instance_path(config, "sweep.lock")
        if not store.is_shared:
            make_instance_file(self._lock_path)

    def sweep(self, seconds: float | None = None) -> Swept | None:
        """Remove what is due, or return None if another process is sweeping.

        :param seconds: stop after this time. A sweep with a time limit does not end sessions.
        """
        swept = self._sweep_alone(seconds)
        if swept:
            self._report(swept)
            if seconds is None:
                self._end_sessions(swept.with_sessions_to_end)
        return swept

    def _sweep_alone(self, seconds: float | None) -> Swept | None:
        if self._store.is_shared:  # other machines sweep it too, so a lock on this machine would not help
            self._last_unrecorded = self._clock()
            return self._store.sweep(seconds)
        try:
            lock = open_instance_file(self._lock_path)
        except OSError as error:  # sweep anyway: concurrent sweeps do no harm
            self._last_unrecorded = self._clock()
            log.error("cannot lock the sweep: %s", error)
            return self._store.sweep(seconds)
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            try:
                swept = self._store.sweep(seconds)
                # Note the time even if the sweep stopped early. Otherwise every request would sweep.
                os.utime(lock.fileno(), (int(self._clock()), int(self._clock())))
            finally:
                # Unlock explicitly. If this process was forked during the sweep, the child has the file open too. Then
                # closing the file here would not release the lock.
                fcntl.flock(lock, fcntl.LOCK_UN)
        return swept

    def last_swept(self) -> float:
        """Return when the last sweep ended, in Unix seconds."""
        try:
            return self._lock_path.stat().st_mtime
        except OSError:  # the file was removed, for example; the next sweep makes it again
            return 0

    def seconds_overdue(self) -> int:
        """Return for how many seconds the lock file shows no sweep; 0 if sweeps are on time.

        The result is also 0 if HEROIMG_SWEEP_SECONDS is 0, and for a shared store, where pictures expire by themselves.
        """
        if self._store.is_shared:
            return 0
        since = int(self._clock()) - max(self._started, int(self.last_swept()))
        return since if 0 < self._config.sweep_seconds * _OVERDUE_INTERVALS < since else 0

    def sweep_between_requests(self, wsgi_app: WSGIApplication) -> WSGIApplication:
        """Wrap the application, so that an overdue sweep runs after a response."""

        def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            return ClosingIterator(wsgi_app(environ, start_response), self._sweep_if_overdue)

        return respond

    def sweep_if_due(self) -> None:
        """Sweep a shared store; sweep a folder only if no sweep has ended lately."""
        # The limit is half an interval, because workers wake at different moments. With a whole interval, two sweeps
        # could be nearly two intervals apart.
        if self._store.is_shared or self._seconds_since_last() >= self._config.sweep_seconds / 2:
            self._try_to_sweep()

    def _sweep_if_overdue(self) -> None:
        interval = self._config.sweep_seconds or _USUAL_SECONDS
        if self._seconds_since_last() > interval * _OVERDUE_INTERVALS:
            self._try_to_sweep(_BETWEEN_REQUESTS_SECONDS)

    def _try_to_sweep(self, seconds: float | None = None) -> None:
        """Sweep, and log an error. Raising the error would break the connection of an answered request."""
        try:
            self.sweep(seconds)
        except (OSError, StoreUnavailable) as error:
            self._last_unrecorded = self._clock()
            log.error("cannot sweep: %s", error.__cause__ or error)

    def _seconds_since_last(self) -> float:
        # abs: the clock may have been ahead at the last sweep
        return min(abs(self._clock() - last) for last in (self.last_swept(), self._last_unrecorded))

    def _report(self, swept: Swept) -> None:
        for failure in swept.failures:
            log.error("cannot sweep %s", failure)
        if swept.expired or swept.leftovers:
            log.info("swept %d expired pictures and %d leftovers", len(swept.expired), swept.leftovers)
        for image in swept.expired:
            checkout = short(image.checkout_session) if image.checkout_session else "unknown"
            if image.is_paid:
                log.warning(
                    "%s was paid for (checkout %s) and never %s, and has expired: its owner may ask for it, or for a "
                    "refund; if this happens again, set STRIPE_WEBHOOK_SECRET, or raise HEROIMG_PAID_SECONDS",
                    short(image.id), checkout, "confirmed" if image.was_claimed else "fetched",
                )  # fmt: skip
            if image.payment_pending and not image.was_claimed:
                log.warning(
                    "%s was never fetched, and has expired before the delayed payment of its checkout %s arrived: "
                    "refund the payment when it arrives", short(image.id), checkout,
                )  # fmt: skip
        unclaimed = [image for image in swept.expired if not image.was_claimed]
        self._counters.expired_unclaimed.inc(len(unclaimed))
        self._counters.paid_never_fetched.inc(sum(image.is_paid for image in unclaimed))
        self._counters.claims_lapsed.inc(sum(image.claim_lapsed for image in swept.expired))
