"""What happened, counted. Off unless HEROIMG_METRICS=1; metrics.py shows the figures.

Every process counts in a file of its own in the instance folder, and whoever wants the figures adds all files up, so
that they are those of all workers together. gunicorn's start begins at zero, which Prometheus knows how to read.
"""

from __future__ import annotations

import logging
import os
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from heroimg.config import Config
from heroimg.operations.instance import instance_path, make_instance_file

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from prometheus_client import Counter

COUNTERS = {
    "uploads": "Pictures kept.",
    "refusals": "Requests answered with an error, by its code.",
    "retrievals": "Pictures handed over, each time that a holder asked.",
    "claims_lapsed": "Claims that ended without being confirmed or given back, seen at the next claim or at expiry.",
    "confirmations": "Pictures gone because their reader has them, by whether they are known to have been paid for.",
    "checkouts_complete": "Pictures that became known to have been paid for.",
    "expired_unclaimed": "Pictures that expired without anybody having come for them.",
    "paid_never_fetched": "Those of them that were paid for: customers with nothing in their hands.",
}
_LABELS = {"refusals": ["code"], "confirmations": ["paid"]}

# As large as the library makes it, and more than all figures need.
_FILE_BYTES = 64 * 1024

_opening = threading.Lock()


class Count(Protocol):
    """Counts what happened, by one of the names in COUNTERS."""

    def __call__(self, name: str, amount: int = 1, /, **labels: str) -> None: ...


def count_nothing(_name: str, _amount: int = 1, /, **_labels: str) -> None:
    """Count nothing: what nobody asks for costs nothing."""


def open_counters(config: Config) -> Count:
    """Make what counts, if it is asked for.

    :raises ConfigError: its folder cannot be written.
    """
    if not config.metrics:
        return count_nothing
    make_instance_file(counters_dir(config) / "counters")
    # The library looks at this as it is imported, so it is imported later, where it is used.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(counters_dir(config))
    return _count


def counters_dir(config: Config) -> Path:
    """Name the folder with the counters' files."""
    return instance_path(config, "metrics")


def begin_at_zero(config: Config) -> None:
    """Forget what the processes of an earlier start have counted; their files would be added up for ever."""
    for file in counters_dir(config).glob("*.db"):
        file.unlink(missing_ok=True)


def _count(name: str, amount: int = 1, /, **labels: str) -> None:
    if amount:
        try:
            counter = counters()[name]
        except OSError as error:  # what happened has happened, counted or not
            _tell_operator(str(error))
            return
        (counter.labels(**labels) if labels else counter).inc(amount)


@cache
def _tell_operator(why: str) -> None:
    log.error("cannot count for /metrics: %s", why)


def counters() -> dict[str, Counter]:
    """Open this process's file: not before there is something to count, or every command would leave one.

    :raises OSError: there is no room for it, or no folder.
    """
    with _opening:
        return _open(os.getpid())


@cache
def _open(pid: int) -> dict[str, Counter]:
    from prometheus_client import Counter  # noqa: PLC0415

    # The library maps the file into memory, and the system kills who writes where the disk has no room: so see to that.
    file = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]) / f"counter_{pid}.db"
    if not file.exists():
        try:
            file.write_bytes(bytes(_FILE_BYTES))
        except OSError:
            file.unlink(missing_ok=True)
            raise
    opened = {
        name: Counter(f"heroimg_{name}", text, _LABELS.get(name, []), registry=None) for name, text in COUNTERS.items()
    }
    for paid in ("true", "false"):
        opened["confirmations"].labels(paid=paid)
    return opened
