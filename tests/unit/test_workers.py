"""How many workers gunicorn starts, from the machine's and the container's cores and memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heroimg import gunicorn_conf

GIGABYTE = 2**30


@pytest.mark.parametrize(
    ("cores", "memory", "cpu_max", "memory_max", "workers"),
    [
        (1, GIGABYTE, None, None, 2),
        (4, 8 * GIGABYTE, None, None, 4),
        (64, 8 * GIGABYTE, None, None, 10),
        (1, 700 * 2**20, None, None, 1),
        (1, GIGABYTE // 2, None, None, 1),
        (64, 256 * GIGABYTE, "max 100000", "max", 64),
        (64, 256 * GIGABYTE, "300000 100000", "max", 3),
        (64, 256 * GIGABYTE, "250000 100000", "max", 3),
        (64, 256 * GIGABYTE, "50000 100000", str(512 * 2**20), 1),
        (64, 256 * GIGABYTE, "max 100000", str(4 * GIGABYTE), 5),
        (2, 4 * GIGABYTE, "800000 100000", str(64 * GIGABYTE), 2),
    ],
)
def test_workers_fit_into_cores_and_half_of_the_memory(  # noqa: PLR0913, PLR0917
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    cores: int, memory: int, cpu_max: str | None, memory_max: str | None, workers: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(gunicorn_conf, "_CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": memory // 4096}.__getitem__)
    for name, limit in (("cpu.max", cpu_max), ("memory.max", memory_max)):
        if limit:
            (tmp_path / name).write_text(f"{limit}\n")
    assert gunicorn_conf._workers() == workers
