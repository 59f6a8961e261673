"""Prometheus counters and histograms, summed over all worker processes. Off unless HEROIMG_METRICS=1.

Each process counts in files of its own in the instance folder, and /metrics adds all files up (api/metrics.py). When
gunicorn starts, the counters begin at zero, as Prometheus expects.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from heroimg.config import Config
from heroimg.logs import error_once
from heroimg.operations.instance import instance_path, make_instance_file, open_instance_file
from heroimg.stores.files.disk import private_opener

log = logging.getLogger(__name__)

# The size that prometheus_client gives to a new file. All counters fit into one file, and all histograms into another.
_FILE_BYTES = 64 * 1024

# The kinds of files. A process has one file of each kind.
_FILES = ("counter", "histogram")

# The buckets' bounds, in seconds. Checking a picture of 3 MB takes about 0.03 seconds. A call to Stripe usually takes a
# third of a second, and heroimg waits for at most 20 seconds.
_CHECK_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_STRIPE_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)

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
        """Add to the counter."""
        if amount:
            _change(self, lambda counter: (counter.labels(**labels) if labels else counter).inc(amount))


@dataclass(frozen=True)
class Duration:
    """A histogram of durations in seconds. It counts nothing if metrics are off.

    :param folder: as in `Count`.
    :param bounds: the upper bounds of its buckets.
    """

    folder: Path | None
    name: str
    text: str
    bounds: tuple[float, ...]

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        _change(self, lambda histogram: histogram.observe(seconds))

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Count how long the block takes, also if it raises an error."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.observe(time.perf_counter() - start)


def _change(figure: Count | Duration, change: Callable[[Any], None]) -> None:
    """Change this process's figure. An error is logged and not raised, because the event has happened already."""
    if figure.folder:
        try:
            with _counting:
                change(_process_figures(figure.folder)[figure.name])
        except OSError as error:
            error_once(log, "cannot count for /metrics: %s", error, key=str(error))


class Counters:
    """All figures. Their names in Prometheus start with `heroimg_`. `Counters()` counts nothing."""

    def __init__(self, folder: Path | None = None) -> None:
        count, duration = partial(Count, folder), partial(Duration, folder)
        self.uploads = count("uploads", "Pictures kept.")
        self.refusals = count("refusals", "Requests answered with an error, by error code.", "code")
        self.retrievals = count("retrievals", "Fetches answered with a picture, repeated fetches included.")
        self.claims_lapsed = count("claims_lapsed", "Claims that lapsed, counted at the next claim or sweep.")
        self.confirmations = count(
            "confirmations", "Pictures removed because their reader has them.", "paid", ("true", "false")
        )
        self.checkouts_complete = count("checkouts_complete", "Complete checkouts that heroimg has learned of.")
        self.expired_unclaimed = count("expired_unclaimed", "Pictures that expired and were not claimed.")
        self.paid_never_fetched = count("paid_never_fetched", "Paid pictures that expired and were not claimed.")
        self.check_seconds = duration("check_seconds", "The check of a picture, waits included.", _CHECK_BOUNDS)
        self.stripe_seconds = duration("stripe_seconds", "A call to Stripe, retries included.", _STRIPE_BOUNDS)


def open_counters(config: Config) -> Counters:
    """Return counters that count if metrics are on.

    :raises ConfigError: the folder for their files cannot be written.
    """
    if not config.metrics:
        return Counters()
    make_instance_file(_lock_path(counters_dir(config)))
    # prometheus_client reads this variable when it is imported, so no module may import the library before this line.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(counters_dir(config))
    return Counters(counters_dir(config))


def counters_dir(config: Config) -> Path:
    """Return the folder of the counters' files."""
    return instance_path(config, "metrics")


def begin_at_zero(config: Config) -> None:
    """Remove the files of an earlier start, unless another server still counts in the same folder.

    Call this after `open_counters`, which makes the lock file.
    """
    if config.metrics:
        folder = counters_dir(config)
        with suppress(BlockingIOError), open_instance_file(_lock_path(folder)) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for kind in _FILES:
                for file in folder.glob(f"{kind}_*"):
                    file.unlink(missing_ok=True)
        _keep_files(folder)


def open_process_counters(folder: Path) -> None:
    """Show zeros for this process, before it counts anything."""
    with _counting, suppress(OSError):  # on an error, the other processes' figures are still right
        _process_figures(folder)


def _process_figures(folder: Path) -> dict[str, Any]:
    """Open this process's files. They are created only here, so a command that counts nothing leaves no files."""
    files = [folder / f"{kind}_{os.getpid()}.db" for kind in _FILES]
    missing = [file for file in files if not file.exists()]
    if missing:
        _open.cache_clear()  # a file that this process has open may have been removed
        open_instance_file(_lock_path(folder)).close()
        folder.mkdir(mode=0o700, exist_ok=True)
        for file in missing:
            _write_zeros(file)
    return _open(folder, os.getpid())


def _write_zeros(file: Path) -> None:
    """Reserve the file's blocks. Otherwise, on a full disk, writing to the mapped file kills the process (SIGBUS)."""
    new = file.with_suffix(".new")
    try:
        with open(new, "wb", opener=private_opener) as zeros:
            zeros.write(bytes(_FILE_BYTES))
        new.rename(file)
    except OSError:
        new.unlink(missing_ok=True)
        raise


@cache
def _open(folder: Path, _pid: int) -> dict[str, Any]:
    from prometheus_client import Counter, Histogram, values  # noqa: PLC0415

    _keep_files(folder)
    values.ValueClass.close_all_files()  # otherwise the library goes on counting in a file that was removed
    opened = dict[str, Any]()
    for name, figure in vars(Counters()).items():
        if isinstance(figure, Duration):
            opened[name] = Histogram(f"heroimg_{name}", figure.text, registry=None, buckets=figure.bounds)
            continue
        opened[name] = Counter(f"heroimg_{name}", figure.text, [figure.label] if figure.label else [], registry=None)
        for value in figure.values:
            opened[name].labels(value)
    return opened


def _keep_files(folder: Path) -> None:
    """Hold a shared lock until this process and its children end, so that a second server removes no files."""
    fcntl.flock(os.open(_lock_path(folder), os.O_RDWR), fcntl.LOCK_SH)


def _lock_path(folder: Path) -> Path:
    return folder.with_suffix(".lock")
