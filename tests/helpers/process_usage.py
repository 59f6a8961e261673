"""What a request costs the process that answers it, as the kernel counts it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# docs/promises.md, and what gunicorn_conf.py counts on.
MOST_BYTES = 300_000_000

# The costliest request takes 0.7 (docs/proof.md). A worker that gives no sign of life is replaced after 60.
MOST_CPU_SECONDS = 8.0


def cpu_seconds(pid: int) -> float:
    """Sum up what all threads of a process have computed, in the kernel too. proc_pid_stat(5), fields 14 and 15."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    """Tell how much memory a process has had at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@contextmanager
def costs_little(pid: int) -> Iterator[None]:
    """Fail where the process computes for longer than one request may, or is no more."""
    before = cpu_seconds(pid)
    yield
    assert cpu_seconds(pid) - before < MOST_CPU_SECONDS
