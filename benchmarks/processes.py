"""Server processes, and the CPU time and memory that the kernel counts for them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.helpers.process_usage import cpu_seconds, peak_bytes
from tests.helpers.serving import LONG, wait_for


class Program:
    """A server program and all its processes.

    :param is_ready: gets the log that the server has written so far, and returns whether the server is ready.
    """

    def __init__(
        self, command: list[str], folder: Path, environ: Mapping[str, str], is_ready: Callable[[str], object]
    ) -> None:
        self.environ = {**os.environ, **environ}
        self._command = command
        self._folder = folder
        self._is_ready = is_ready
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = self._folder / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self.environ, stdout=output, stderr=output
            )
        wait_for(lambda: self._is_ready(log.read_text()) or not self.is_alive(), f"{self._command[0]} to be ready")
        assert self.is_alive(), log.read_text()

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def pids(self) -> list[int]:
        assert self._process
        return family(self._process.pid)

    def kill(self) -> None:
        """End all processes at once, as a power cut does."""
        assert self._process
        pids = self.pids()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self._process.wait(LONG)
        wait_for(lambda: not any(map(_is_running, pids)), "all processes to end, and free the port")

    def stop(self) -> None:
        if self._process and self.is_alive():
            self._process.terminate()
            self._process.wait(LONG)


def family(pid: int) -> list[int]:
    """List a process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in family(int(child)))]


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def cpu_milliseconds(pids: list[int]) -> float:
    """Add up the CPU time of the processes, including the kernel's work for them."""
    return sum(map(cpu_seconds, pids)) * 1000


def peak_megabytes(pids: list[int]) -> float:
    """Add up the peak memory of the processes; shared memory counts for each."""
    return sum(map(peak_bytes, pids)) / 1e6
