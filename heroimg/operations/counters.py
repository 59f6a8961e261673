"""Prometheus counters, summed over all worker processes. Off unless HEROIMG_METRICS=1.

Each process counts in a file of its own in the instance folder, and /metrics adds all files up (api/metrics.py). When
gunicorn starts, the counters begin at zero, as Prometheus expects.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from heroimg.config import Config
from heroimg.logs import error_once
from heroimg.operations.instance import instance_path, make_instance_file, open_instance_file

if TYPE_CHECKING:
    from prometheus_client import Counter

log = logging.getLogger(__name__)

# The size that prometheus_client gives to a new file. All counters together need less.
_FILE_BYTES = 64 * 1024

_counting = threading.Lock()


@dataclass(frozen=True)
class Count:
    """A counter. It counts nothing if metrics are off.

    :param folder: the folder of the counters' files; None if metrics are off.
    :param label: the label's name.
    :param values: the label's values that are shown as zero from the start.
    """

    folder: Path | None
    name: str
    text: str
    label: str | None = None
    values: tuple[str, ...] = ()

    def inc(self, amount: int = 1, **labels: str) -> None:
        """Add to the counter. An error is logged and not raised, because what is counted has happened already."""
        if self.folder and amount:
            try:
                with _counting:
                    counter = _process_counters(self.folder)[self.name]
                    (counter.labels(**labels) if labels else counter).inc(amount)
            except OSError as error:
                error_once(log, "cannot count for /metrics: %s", error, key=str(error))


class Counters:
    """All counters. Prometheus knows them by the same names after `heroimg_`. `Counters()` counts nothing."""

    def __init__(self, folder: Path | None = None) -> None:
        self.uploads = Count(folder, "uploads", "Pictures kept.")
        self.refusals = Count(folder, "refusals", "Requests answered with an error, by its code.", "code")
        self.retrievals = Count(folder, "retrievals", "Pictures handed over; repeated requests of a holder count.")
        self.claims_lapsed = Count(
            folder, "claims_lapsed", "Claims that lapsed. Counted at the next claim, or when the picture expires."
        )
        self.confirmations = Count(
            folder, "confirmations", "Pictures removed because their reader has them.", "paid", ("true", "false")
        )
        self.checkouts_complete = Count(
            folder, "checkouts_complete", "Pictures whose checkout became known to be complete."
        )
        self.expired_unclaimed = Count(folder, "expired_unclaimed", "Pictures that expired and were not claimed.")
        self.paid_never_fetched = Count(
            folder, "paid_never_fetched", "Pictures that expired, were paid for and not claimed."
        )


def open_counters(config: Config) -> Counters:
    """Return counters that count if metrics are on.

    :raises ConfigError: the folder for their files cannot be written.
    """
    if not config.metrics:
        return Counters()
    make_instance_file(_lock_path(counters_dir(config)))
    # prometheus_client reads this when it is imported, so no module of heroimg imports it before this.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(counters_dir(config))
    return Counters(counters_dir(config))


def counters_dir(config: Config) -> Path:
    """Return the folder of the counters' files."""
    return instance_path(config, "metrics")


def begin_at_zero(config: Config) -> None:
    """Remove the files of an earlier start, unless another server still counts in the same folder.

    :raises ConfigError: the folder cannot be written.
    """
    if config.metrics:
        folder = counters_dir(config)
        make_instance_file(_lock_path(folder))
        with suppress(BlockingIOError), open_instance_file(_lock_path(folder)) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for file in folder.glob("counter_*"):
                file.unlink(missing_ok=True)
        _keep_files(folder)


def open_process_counters(folder: Path) -> None:
    """Show zeros for this process, before it counts anything."""
    with _counting, suppress(OSError):  # on an error, the other processes' figures are still right
        _process_counters(folder)


def _process_counters(folder: Path) -> dict[str, Counter]:
    """Open this process's file. This happens when it first counts: a command that counts nothing leaves no file."""
    file = folder / f"counter_{os.getpid()}.db"
    if not file.exists():
        _open.cache_clear()  # the file was open, and was removed with its folder
        open_instance_file(_lock_path(folder)).close()
        folder.mkdir(mode=0o700, exist_ok=True)
        _write_zeros(file)
    return _open(file)


def _write_zeros(file: Path) -> None:
    """Reserve the file's blocks. Otherwise, on a full disk, writing to the mapped file kills the process (SIGBUS)."""
    new = file.with_suffix(".new")
    try:
        new.write_bytes(bytes(_FILE_BYTES))
        new.rename(file)
    except OSError:
        new.unlink(missing_ok=True)
        raise


@cache
def _open(file: Path) -> dict[str, Counter]:
    from prometheus_client import Counter, values  # noqa: PLC0415

    _keep_files(file.parent)
    values.ValueClass.close_all_files()  # otherwise the library goes on counting in a file that was removed
    opened = {}
    for name, count in vars(Counters()).items():
        opened[name] = Counter(f"heroimg_{name}", count.text, [count.label] if count.label else [], registry=None)
        for value in count.values:
            opened[name].labels(value)
    return opened


def _keep_files(folder: Path) -> None:
    """Hold a shared lock until this process and its children end, so that a second server removes no files."""
    fcntl.flock(os.open(_lock_path(folder), os.O_RDWR), fcntl.LOCK_SH)


def _lock_path(folder: Path) -> Path:
    return folder.with_suffix(".lock")
