"""Jobs that run in the background of every process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler

# Not at once: the process may be a command, such as the sweep itself, and end soon.
_START_SECONDS = 2


def run_in_background(jobs: Mapping[Callable[[], object], float]) -> None:
    """Run jobs in threads of this process and of those forked from it.

    A server that loads the application before it forks (gunicorn --preload, Passenger) leaves threads behind.

    :param jobs: the seconds between two runs of each.
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

    start()
    os.register_at_fork(after_in_child=start)
