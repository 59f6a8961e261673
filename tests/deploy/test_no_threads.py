"""A host that allows no threads: one process serves one request at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.stripe_stand_in import StandIn
from heroimg.payments.stripe_http import MAX_CALLS_AT_ONCE
from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.needed_programs import needs_root
from tests.helpers.serving import ROOT, DrivenClock, Server, wait_for
from tests.helpers.shop import stripe_settings

pytestmark = needs_root

GUNICORN = (
    *("gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "--bind", "127.0.0.1:0"),
    *("--workers", "1", "--worker-class", "sync", "--threads", "1"),
)


@pytest.fixture
def server(tmp_path: Path, clock: DrivenClock) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    settings = {"HEROIMG_SWEEP_SECONDS": "0", "HEROIMG_UPLOAD_RATE": "2 per hour", "TEST_CLOCK": str(clock.path)}
    server = Server(folder, settings)
    os.chown(folder, _uid(), _uid())
    yield server
    server.stop()


def _uid() -> int:
    """Return a user id that no other process has, because the limit counts the processes of a user."""
    return 100_000 + os.getpid()


def _limited(processes: int, *command: str) -> tuple[str, ...]:
    """Run a command as a user with a limit of processes and threads, who may read all files."""
    capabilities = [f"--{kind}=-all,+dac_read_search" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    user = (f"--reuid={_uid()}", f"--regid={_uid()}", "--clear-groups")
    return ("setpriv", *user, *capabilities, "prlimit", f"--nproc={processes}", sys.executable, "-m", *command)


def test_without_threads_heroimg_serves_counts_rates_and_sweeps(server: Server, clock: DrivenClock) -> None:
    server.start(*_limited(2, *GUNICORN, "tests.helpers.clocked_wsgi:app"))
    api = Api(server)
    image_id = api.keep(pictures.jpeg())
    assert api.retrieve(image_id).content == pictures.jpeg()
    api.keep(pictures.jpeg())
    assert api.upload(pictures.jpeg()).status_code == 429
    clock.forward(3700)
    api.request("GET", "/healthz")
    wait_for(lambda: server.names() == [], "the sweep between requests")
    assert "Traceback" not in server.log()


def test_without_threads_each_call_to_stripe_is_made_once_even_if_threads_are_allowed_later(server: Server) -> None:
    server.environ["HEROIMG_UPLOAD_RATE"] = ""
    with StandIn() as stand_in:
        server.environ |= stripe_settings(stand_in)
        with subprocess.Popen(["sleep", "infinity"], user=_uid(), group=_uid()) as third_process:
            try:
                server.start(*_limited(3, *GUNICORN, "wsgi:app"))
                api = Api(server)
                for _ in range(MAX_CALLS_AT_ONCE + 1):
                    api.session_of(api.keep(pictures.jpeg()))
            finally:
                third_process.kill()
        api.session_of(api.keep(pictures.jpeg()))
        server.stop()
        assert [request.method for request in stand_in.requests] == ["POST"] * (MAX_CALLS_AT_ONCE + 2)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("sweep", "Swept 0 expired pictures"),
        ("held", "No pictures are held"),
        ("check", "ok +threads: this host allows none, and HEROIMG_SWEEP_SECONDS is 0"),
        ("check", "warning +folder: no second process could try a lock in .* .it cannot start: Resource temporarily"),
    ],
)
def test_without_threads_the_commands_work(server: Server, command: str, shown: str) -> None:
    server.start(*_limited(1, "flask", "--app", "heroimg.wsgi", command), listening=f"({shown})")


def test_without_threads_the_usual_interval_is_refused_with_the_setting_to_change(server: Server) -> None:
    del server.environ["HEROIMG_SWEEP_SECONDS"]
    refusal = r"(HEROIMG_SWEEP_SECONDS is not 0, and this host allows no threads .*: set it to 0)"
    server.start(*_limited(2, *GUNICORN, "wsgi:app"), listening=refusal)


def test_without_threads_the_check_reports_the_usual_interval_as_a_fault(server: Server) -> None:
    del server.environ["HEROIMG_SWEEP_SECONDS"]
    fault = (
        "(fault +threads: this host allows none: set HEROIMG_SWEEP_SECONDS to 0, so that heroimg sweeps after requests)"
    )
    server.start(*_limited(1, "flask", "--app", "heroimg.wsgi", "check"), listening=fault)
