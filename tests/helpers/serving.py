"""Real servers: gunicorn or `flask run` on a free port, with a folder and, if asked for, a clock of their own."""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONG = 80.0  # seconds; longer than heroimg.js waits on a silent connection


def wait_for(fact: Callable[[], object], what: str, seconds: float = LONG) -> None:
    """Wait until a function returns a true value; fail after too many seconds.

    :param what: the words after "waited ... seconds for".
    """
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} seconds for {what}")
        time.sleep(0.01)


def _own_ports() -> Iterator[int]:
    """Yield ports of this test process alone, in a circle: two processes cannot choose the same one.

    They lie below 32768, so the kernel gives none of them to an outgoing connection before a server has bound it.
    No browser refuses any of them. The nodes of a Redis cluster also use the port 10000 above theirs.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 11_000 + worker % 10 * 1000
    # A second run of the tests on this machine most probably begins somewhere else.
    start = random.randrange(1000)
    return (first + (start + number) % 1000 for number in itertools.count())


_ports = _own_ports()


def free_port() -> int:
    return next(port for port in _ports if _is_free(port) and _is_free(port + 10_000))


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def copy_repository(folder: Path) -> list[str]:
    """Copy the files that git tracks from the working tree; return their names."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = list(filter(None, names.split("\0")))
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return tracked


class DrivenClock:
    """The real time plus an offset. The server's processes read the offset from a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0.0
        self.forward(0)

    def __call__(self) -> float:
        return time.time() + self._offset

    def forward(self, seconds: float) -> None:
        self._offset += seconds
        new = self.path.with_suffix(".new")
        new.write_text(str(self._offset))
        new.rename(self.path)


class Server:
    """A running application: its address, log, pictures' folder and processes."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.uploads = folder / "uploads"
        self.log_path = folder / "log"
        self._log_start = 0
        self.url = ""
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error",
            **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
            "HEROIMG_UPLOAD_DIR": str(self.uploads),
            "HEROIMG_INSTANCE_DIR": str(folder / "instance"),
            "HEROIMG_UPLOAD_RATE": "",
            "HEROIMG_CHECKOUT_RATE": "",
            "HEROIMG_MIN_FREE_BYTES": "0",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        *command: str,
        listening: str = r"Listening at: ((?:http|unix):\S+) ",
        socket: socket.socket | None = None,
    ) -> None:
        handed = () if socket is None else (socket.fileno(),)
        if handed:  # https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html
            command = ("bash", "-c", f'exec 3<&{handed[0]}; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"', "bash", *command)
        with self.log_path.open("ab") as log:
            start = log.tell()
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=self.environ, stdout=log, stderr=log, pass_fds=handed
            )
        try:
            wait_for(lambda: re.search(listening, self.log(start)) or self.has_ended(), "the server to listen")
            match = re.search(listening, self.log(start))
            assert match, self.log()
        except AssertionError:
            self.stop()
            raise
        self.url = match[1]

    def gunicorn(
        self, *arguments: str, app: str = "wsgi:app", workers: int = 2, socket: socket.socket | None = None
    ) -> None:
        """Serve with the shipped gunicorn.conf.py.

        :param socket: a listening socket, handed over as systemd does; otherwise a free port is used.
        """
        ready = self.log().count("ready: ") + (1 if "--preload" in arguments else workers)
        gunicorn = (sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"))
        where = ("--bind", "127.0.0.1:0") if socket is None else ()
        self.start(*gunicorn, *where, "--workers", str(workers), *arguments, app, socket=socket)
        # Until then a worker has no signal handlers, and a signal would be lost.
        wait_for(lambda: self.log().count("ready: ") >= ready, "all workers to be ready")

    def log(self, start: int | None = None) -> str:
        """Return the log from a byte offset, by default from its end at the last :meth:`clear`."""
        start = self._log_start if start is None else start
        return self.log_path.read_bytes()[start:].decode() if self.log_path.exists() else ""

    def clear(self) -> None:
        """Empty the folder of the pictures, and restart the log."""
        for path in self.uploads.iterdir():
            path.unlink(missing_ok=True)
        self._log_start = self.log_path.stat().st_size

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def workers(self) -> list[int]:
        """List the worker processes: the children of gunicorn, from the kernel."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(child) for child in children]

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def stop(self) -> None:
        if self._process and not self.has_ended():
            self.signal(signal.SIGTERM)
            self._process.wait(LONG)
        self._process = None

    def kill(self) -> None:
        """End the server and its workers with SIGKILL, so that no process can tidy up."""
        assert self._process
        for pid in [self.pid, *self.workers()]:
            os.kill(pid, signal.SIGKILL)
        self._process.wait(LONG)
        self._process = None

    def names(self) -> list[str]:
        """List the files in the folder of the pictures."""
        return sorted(path.name for path in self.uploads.iterdir())

    def flask(self, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run `flask --app heroimg.wsgi ...` with this server's settings, and by its clock.

        :param before: a command that runs it, such as strace.
        """
        app = "tests.helpers.clocked_wsgi" if "TEST_CLOCK" in self.environ else "heroimg.wsgi"
        command = (*before, sys.executable, "-m", "flask", "--app", app, *arguments)
        return subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=LONG, check=False
        )


@contextmanager
def serving(
    folder: Path, settings: dict[str, str] | None = None, *arguments: str, workers: int = 2
) -> Iterator[Server]:
    """Serve with gunicorn during the block."""
    folder.mkdir(exist_ok=True)
    server = Server(folder, settings or {})
    server.gunicorn(*arguments, workers=workers)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def serving_at(
    clock: DrivenClock, folder: Path, settings: dict[str, str] | None = None, *, workers: int = 2
) -> Iterator[Server]:
    """Serve with gunicorn during the block, by a driven clock."""
    folder.mkdir(exist_ok=True)
    server = Server(folder, {"TEST_CLOCK": str(clock.path), **(settings or {})})
    server.gunicorn(app="tests.helpers.clocked_wsgi:app", workers=workers)
    try:
        yield server
    finally:
        server.stop()
