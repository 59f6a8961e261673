"""Sweeping once, sweeping every minute, and sweeping between requests where nobody else does.

Every worker process has a scheduler, so that no worker's death ends the sweeping. A lock file lets one of them sweep at
a time; when it was last modified is when the last sweep ended, so that the others need not sweep again at once, and
/readyz can tell when nobody does.

On shared hosting threads may not be allowed, or end with a process that nobody has asked for a while. There a request
that finds the last sweep long ago sweeps, after its answer was sent, and for a moment only.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from apscheduler.schedulers.background import BackgroundScheduler
from flask import Flask
from werkzeug.wsgi import ClosingIterator

from heroimg.api.services import Services, services
from heroimg.config import Config
from heroimg.errors import StoreUnavailable
from heroimg.operations.instance import instance_path, make_instance_file
from heroimg.stores.base import ImageStore, Swept

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

_OVERDUE_INTERVALS = 3

# How long a process leaves the sweep to whoever started it: that may be the command.
_START_SECONDS = 2

# For a process that has no thread to sweep with (HEROIMG_SWEEP_SECONDS=0): the interval that counts as usual then, and
# how long a request's thread or process is kept from the next request.
_USUAL_SECONDS = Config.sweep_seconds
_BETWEEN_REQUESTS_SECONDS = 0.1


def sweep(found: Services, seconds: float | None = None) -> Swept | None:
    """Remove what is due, unless another process is at it: then return None.

    :param seconds: stop after so long.
    """
    if found.store.is_shared:  # other machines sweep it at the same time, so a lock on this one is of no use
        return _report(found, found.store.sweep(seconds))
    with open(_lock_path(found.config), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        try:
            swept = found.store.sweep(seconds)
            # Where it was cut short, too: what is left is the next one's, and not every request's from now on.
            os.utime(lock.fileno(), (found.now(), found.now()))
        finally:
            # Said, not left to close(): a process forked meanwhile would keep the lock.
            fcntl.flock(lock, fcntl.LOCK_UN)
    return _report(found, swept)


def _report(found: Services, swept: Swept) -> Swept:
    """Log and count what a sweep has removed."""
    if swept.expired or swept.leftovers:
        log.info("swept %d expired pictures and %d leftovers", len(swept.expired), swept.leftovers)
    for image in swept.expired:
        if image.is_paid:
            log.warning(
                "%s was paid for (checkout %s) and never %s, and its time is over: its owner may ask, or want a "
                "refund; if that happens more than once, set HEROIMG_PAID_SECONDS higher",
                image.short_id, image.checkout or "unknown", "confirmed" if image.is_claimed else "fetched",
            )  # fmt: skip
    unclaimed = [image for image in swept.expired if not image.is_claimed]
    found.count("expired_unclaimed", len(unclaimed))
    found.count("paid_never_fetched", sum(image.is_paid for image in unclaimed))
    found.count("claims_lapsed", sum(image.has_lapsed_claim for image in swept.expired))
    return swept


def start_sweeping(app: Flask) -> None:
    """Sweep soon and then every HEROIMG_SWEEP_SECONDS, in a thread of this process and of those forked from it.

    A server that loads the application before it forks (gunicorn --preload, Passenger) leaves threads behind.
    """
    if services(app).config.sweep_seconds:
        _schedule(services(app))
        os.register_at_fork(after_in_child=lambda: _schedule(services(app)))


def sweep_between_requests(app: Flask) -> None:
    """Sweep after a request's answer was sent, if it is long overdue."""
    found, wsgi_app = services(app), app.wsgi_app
    if found.store.is_shared:
        return

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return ClosingIterator(wsgi_app(environ, start_response), lambda: _sweep_if_overdue(found))

    app.wsgi_app = answer  # type: ignore[method-assign]


def prepare_sweeping(config: Config, store: ImageStore) -> None:
    """Make the lock file, where there will be something to sweep.

    :raises ConfigError: it cannot be written.
    """
    if not store.is_shared:
        make_instance_file(_lock_path(config))


def seconds_overdue(found: Services) -> int:
    """Tell for how long nobody has swept who should have; 0 while all is well, or where nobody is to."""
    if found.store.is_shared:
        return 0
    since = found.now() - max(found.started, int(last_swept(found.config)))
    return since if 0 < found.config.sweep_seconds * _OVERDUE_INTERVALS < since else 0


def _schedule(found: Services) -> None:
    scheduler = BackgroundScheduler(daemon=True, timezone=UTC)
    scheduler.add_job(
        _sweep_if_due,
        "interval",
        args=[found],
        seconds=found.config.sweep_seconds,
        next_run_time=datetime.now(UTC) + timedelta(seconds=_START_SECONDS),
        coalesce=True,
        misfire_grace_time=None,
    )
    scheduler.start()


def _sweep_if_due(found: Services) -> None:
    if found.store.is_shared:
        try:
            sweep(found)
        except StoreUnavailable as error:
            log.warning("cannot sweep: %s", error.__cause__)
        return
    # Half an interval: with the workers' ticks spread over it, a whole one would leave gaps of nearly two.
    if abs(found.clock() - last_swept(found.config)) >= found.config.sweep_seconds / 2:
        sweep(found)


def _sweep_if_overdue(found: Services) -> None:
    interval = found.config.sweep_seconds or _USUAL_SECONDS
    if abs(found.clock() - last_swept(found.config)) > interval * _OVERDUE_INTERVALS:
        try:
            sweep(found, _BETWEEN_REQUESTS_SECONDS)
        except OSError:  # the request was answered; its connection is not to break for this
            log.exception("cannot sweep")


def last_swept(config: Config) -> float:
    """Tell when the last sweep ended, in Unix seconds."""
    try:
        return _lock_path(config).stat().st_mtime
    except FileNotFoundError:  # removed by hand; the next sweep makes it anew
        return 0


@cache  # every request asks for it
def _lock_path(config: Config) -> Path:
    return instance_path(config, "sweep.lock")
