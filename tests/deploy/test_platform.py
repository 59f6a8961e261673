"""Hosting platforms: they name the port in PORT, limit cores and memory by cgroups, and have a balancer in front."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.helpers import pictures
from tests.helpers.api import Api, new_token
from tests.helpers.needed_programs import needs, needs_root
from tests.helpers.serving import ROOT, Server, free_port, wait_for

GUNICORN = (sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"))
CGROUPS = Path("/sys/fs/cgroup")
HALF_A_GIGABYTE = 512 * 2**20

# Runs a program in a control group, with the files of cgroup v2 that a container has.
CONTAINER = 'echo $$ >"$1/cgroup.procs"; mount --bind "$2" /sys/fs/cgroup; shift 2; exec "$@"'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, {})
    yield server
    server.stop()


def test_port_is_served_on_every_address(server: Server) -> None:
    server.environ["PORT"] = str(free_port())
    server.start(*GUNICORN)
    assert server.url == f"http://0.0.0.0:{server.environ['PORT']}"
    for address in ("127.0.0.1", "127.1.2.3"):
        server.url = f"http://{address}:{server.environ['PORT']}"
        assert Api(server).request("GET", "/healthz").status_code == 200


@pytest.mark.proof
@needs_root
@needs("unshare")
def test_a_container_of_half_a_core_and_512_mb_has_one_worker_that_stays_within_them(
    server: Server, tmp_path: Path
) -> None:
    shown = tmp_path / "cgroup"
    shown.mkdir()
    (shown / "cpu.max").write_text("50000 100000\n")
    (shown / "memory.max").write_text(f"{HALF_A_GIGABYTE}\n")
    server.environ["PORT"] = "0"  # a free one
    with memory_limit(HALF_A_GIGABYTE) as group, ThreadPoolExecutor(8) as pool, ExitStack() as stack:
        stack.callback(server.stop)
        server.start("unshare", "--mount", "sh", "-ec", CONTAINER, "sh", str(group), str(shown), *GUNICORN)
        wait_for(lambda: "ready: " in server.log(), "the worker")
        (worker,) = server.workers()
        api, claim = Api(server), new_token()
        costly = [pictures.progressive_jpeg(13_000, 5_000).ljust(5 * 2**20, b"\0")] * 8
        assert {answer.status_code for answer in pool.map(api.upload, costly)} == {200}
        image_id = api.keep(pictures.portrait())
        assert api.retrieve(image_id, claim).content == pictures.portrait()
        assert server.workers() == [worker]
        assert "SIGKILL" not in server.log()


@contextmanager
def memory_limit(size: int) -> Iterator[Path]:
    """Make a control group with this memory, of either version; skip the test if this machine allows none."""
    is_v2 = (CGROUPS / "cgroup.controllers").exists()
    group = CGROUPS / ("" if is_v2 else "memory") / f"heroimg-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.max" if is_v2 else "memory.limit_in_bytes")).write_text(str(size))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        if "HEROIMG_REQUIRE_ALL" in os.environ:
            raise
        pytest.skip(f"needs a control group with a limit of memory: {error}")
    yield group
    group.rmdir()


def test_connections_last_as_long_as_gunicorn_cmd_args_says(server: Server) -> None:
    server.environ["GUNICORN_CMD_ARGS"] = "--keep-alive 75"
    server.start(*GUNICORN, "--print-config", listening=r"(keepalive +=.*)")
    assert server.url.endswith(" = 75")
