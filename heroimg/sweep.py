"""Sweeping once, and sweeping every minute.

Every worker process has a scheduler, so that no worker's death ends the sweeping. A lock file lets one of them sweep at
a time; when it was last modified is when the last sweep ended, so that the others need not sweep again at once, and
/readyz can tell when nobody does.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from datetime import UTC
from pathlib import Path

from apscheduler.schedulers.background import BackgroundScheduler
from flask import Flask

from .config import Config, ConfigError
from .services import Services, services
from .store import ImageStore, Swept

log = logging.getLogger(__name__)

_OVERDUE_INTERVALS = 3


def sweep(found: Services) -> Swept | None:
    """Remove what is due, unless another process is at it: then return None."""
    if found.store.expires_by_itself:
        return found.store.sweep()
    with open(_lock_path(found.config), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        try:
            swept = found.store.sweep()
            os.utime(lock.fileno(), (found.now(), found.now()))
        finally:
            # Said, not left to close(): a process forked meanwhile would keep the lock.
            fcntl.flock(lock, fcntl.LOCK_UN)
    if any(swept):
        log.info("swept %d expired pictures and %d leftovers", swept.expired, swept.leftovers)
    return swept


def start_sweeping(app: Flask) -> None:
    """Sweep every HEROIMG_SWEEP_SECONDS from now on, in a thread of this process and of those forked from it.

    A server that loads the application before it forks (gunicorn --preload, Passenger) leaves threads behind.
    """
    if services(app).config.sweep_seconds and not services(app).store.expires_by_itself:
        _schedule(services(app))
        os.register_at_fork(after_in_child=lambda: _schedule(services(app)))


def prepare_sweeping(config: Config, store: ImageStore) -> None:
    """Make the folder of the lock file, where there will be something to sweep.

    :raises ConfigError: it cannot be written.
    """
    if store.expires_by_itself:
        return
    try:
        config.instance_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _lock_path(config).open("a").close()
    except OSError as error:
        raise ConfigError(
            [
                f"HEROIMG_INSTANCE_DIR is {config.instance_dir}, which cannot be written ({error.strerror}): make it a "
                f"folder that belongs to the user running heroimg (uid {os.geteuid()}), or name another; for example "
                "/var/lib/heroimg/instance"
            ]
        ) from error


def seconds_overdue(found: Services) -> int:
    """Tell for how long nobody has swept who should have; 0 while all is well, or where nobody is to."""
    if found.store.expires_by_itself:
        return 0
    since = found.now() - max(found.started, int(_last_swept(found.config)))
    return since if 0 < found.config.sweep_seconds * _OVERDUE_INTERVALS < since else 0


def _schedule(found: Services) -> None:
    scheduler = BackgroundScheduler(daemon=True, timezone=UTC)
    scheduler.add_job(
        _sweep_if_due,
        "interval",
        args=[found],
        seconds=found.config.sweep_seconds,
        coalesce=True,
        misfire_grace_time=None,
    )
    scheduler.start()


def _sweep_if_due(found: Services) -> None:
    # Half an interval: with the workers' ticks spread over it, a whole one would leave gaps of nearly two.
    if abs(found.clock() - _last_swept(found.config)) >= found.config.sweep_seconds / 2:
        sweep(found)


def _last_swept(config: Config) -> float:
    try:
        return _lock_path(config).stat().st_mtime
    except FileNotFoundError:  # removed by hand; the next sweep makes it anew
        return 0


def _lock_path(config: Config) -> Path:
    # Two applications may share this folder and not their pictures.
    name = hashlib.sha256(str(config.upload_dir).encode()).hexdigest()[:12]
    return config.instance_dir / f"sweep-{name}.lock"
