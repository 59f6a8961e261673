"""Jobs that run in the background of every process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler

from heroimg.config import ConfigError

# Not at once: the process may be a command, such as the sweep itself, and end soon.
_START_SECONDS = 2


def run_in_background(jobs: Mapping[Callable[[], object], float]) -> None:
    """Run jobs in threads of this process and of those forked from it.

    A server that loads the application before it forks (gunicorn --preload, Passenger) leaves threads behind.

    :param jobs: the seconds between two runs of each.
    :raises ConfigError: this host does not allow threads.
    """

    def start() -> None:
        scheduler = BackgroundScheduler(daemon=True, timezone=UTC)
        for job, seconds in jobs.items():
            scheduler.add_job(
                job,
                "interval",
                seconds=seconds,
                next_run_time=datetime.now(UTC) + timedelta(seconds=_START_SECONDS),
                coalesce=True,
                misfire_grace_time=None,
            )
        scheduler.start()

    try:
        start()
    except RuntimeError as error:
        fault = f"HEROIMG_SWEEP_SECONDS is not 0, and this host allows no threads ({error}): set it to 0"
        raise ConfigError([f"{fault}, and requests sweep"]) from error
    os.register_at_fork(after_in_child=start)
