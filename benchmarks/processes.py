"""A server's processes, and what the kernel has counted of them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.helpers.process_usage import cpu_seconds, peak_bytes
from tests.helpers.serving import LONG, wait_for


class Program:
    """A program that serves on a port, with whatever processes it starts.

    :param is_ready: looks at what it has said so far.
    """

    def __init__(
        self, command: list[str], folder: Path, environ: Mapping[str, str], is_ready: Callable[[str], object]
    ) -> None:
        self._command = command
        self._folder = folder
        self._environ = {**os.environ, **environ}
        self._is_ready = is_ready
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = self._folder / "log"
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environ, stdout=said, stderr=said
            )
        wait_for(lambda: self._is_ready(log.read_text()) or not self.is_alive(), f"{self._command[0]} to be ready")
        assert self.is_alive(), log.read_text()

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def pids(self) -> list[int]:
        assert self._process
        return family(self._process.pid)

    def kill(self) -> None:
        """End it with all its processes as a power cut would."""
        assert self._process
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        self._process.wait(LONG)

    def stop(self) -> None:
        if self._process and self.is_alive():
            self._process.terminate()
            self._process.wait(LONG)


def family(pid: int) -> list[int]:
    """List a process and all its descendants, in Linux's order of starting."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in family(int(child)))]


def cpu_milliseconds(pids: list[int]) -> float:
    """Sum up what processes have computed, in the kernel too."""
    return sum(map(cpu_seconds, pids)) * 1000


def peak_megabytes(pids: list[int]) -> float:
    """Sum up the most memory that each process has had. What several share is counted for each."""
    return sum(map(peak_bytes, pids)) / 1e6
