"""Jobs that run in the background of every process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler

# The jobs do not run immediately, because a process that only imports the application may end soon.
_START_SECONDS = 2


def run_in_background(jobs: Mapping[Callable[[], object], float]) -> None:
    """Run jobs in threads of this process, and of each process that is forked from it.

    Threads do not survive a fork, and some servers load the application before they fork (gunicorn --preload,
    Passenger). So each forked process starts its own threads.

    :param jobs: for each job, the seconds between two runs.
    :raises RuntimeError: this host does not allow threads.
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
