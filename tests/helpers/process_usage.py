"""CPU time and memory of a process, as the kernel counts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The limit in docs/promises.md.
MOST_BYTES = 300_000_000

# The most expensive request takes 0.9 seconds (docs/security.md). gunicorn replaces a worker that hangs for 60 seconds.
MOST_CPU_SECONDS = 8.0


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of a process, in user and kernel mode: proc_pid_stat(5), fields 14 and 15."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    """Return the peak memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@contextmanager
def costs_little(pid: int) -> Iterator[None]:
    """Fail if the process uses more CPU time than one request may, or has ended."""
    before = cpu_seconds(pid)
    yield
    assert cpu_seconds(pid) - before < MOST_CPU_SECONDS
