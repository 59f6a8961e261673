"""uWSGI with the file in docs/shared-hosting.md, and without threads, as uWSGI is by default."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.stripe_stand_in import StandIn
from tests.helpers import pictures
from tests.helpers.apache import has_the_tests_python, make_environment
from tests.helpers.api import RETRIEVE, Api, new_token
from tests.helpers.fenced_files import fenced_files
from tests.helpers.needed_programs import require
from tests.helpers.serving import ROOT, DrivenClock, Server, free_port, wait_for
from tests.helpers.shop import Shop, stripe_settings

pytestmark = pytest.mark.proof

FIVE_MB = 5 * 1024 * 1024


@pytest.fixture(scope="module")
def virtualenv() -> Iterator[Path]:
    require("uwsgi")
    if not has_the_tests_python() and "HEROIMG_REQUIRE_ALL" not in os.environ:
        pytest.skip("needs tests that run with the Python of /usr/bin/python3, which Debian's uWSGI contains")
    with tempfile.TemporaryDirectory(prefix="heroimg-") as folder:
        make_environment(Path(folder))
        yield Path(folder) / "venv"


@pytest.fixture(scope="module", params=["threads", "no threads"])
def open_shop(
    request: pytest.FixtureRequest, virtualenv: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("uwsgi")
    clock = DrivenClock(folder / "clock")
    with StandIn(clock=clock) as stand_in:
        server = Server(folder, {"TEST_CLOCK": str(clock.path), **stripe_settings(stand_in)})
        if request.param == "no threads":
            server.environ["HEROIMG_SWEEP_SECONDS"] = "0"
            start(server, virtualenv, {"threads = 16\n": ""})
        else:
            server.environ["HEROIMG_SWEEP_SECONDS"] = "1"
            start(server, virtualenv)
        yield Shop(Api(server), stand_in, clock)
        server.stop()


@pytest.fixture
def shop(open_shop: Shop) -> Shop:
    open_shop.clear()
    return open_shop


def start(server: Server, virtualenv: Path, changes: dict[str, str] | None = None) -> None:
    """Serve with the documented file, with other paths and a free port."""
    port = free_port()
    here = {
        "/srv/heroimg/.venv": str(virtualenv),
        "/srv/heroimg": str(server.folder),
        "= wsgi.py": f"= {ROOT}/tests/helpers/clocked_wsgi.py\ncallable = app",
        ":3000": f":{port}",
        **(changes or {}),
    }
    text = fenced_files(ROOT / "docs" / "shared-hosting.md")["uwsgi.ini"]
    for documented, ours in here.items():
        assert documented in text
        text = text.replace(documented, ours)
    (server.folder / "uwsgi.ini").write_text(text)
    server.start("uwsgi", str(server.folder / "uwsgi.ini"), listening=r"(spawned uWSGI worker 2) ")
    server.url = f"http://127.0.0.1:{port}"


def test_the_whole_journey(shop: Shop) -> None:
    image_id, claim = shop.api.keep(pictures.portrait()), new_token()
    session_id = shop.api.session_of(image_id)
    shop.stand_in.pay(session_id)
    assert shop.api.status(session_id).json()["metadata"] == {"imageId": image_id}
    assert shop.api.retrieve(image_id, claim).content == pictures.portrait()
    assert shop.api.retrieve(image_id, new_token()).status_code == 409
    assert shop.api.confirm(image_id, claim).status_code == 204
    once = shop.api.keep(pictures.jpeg())
    assert shop.api.retrieve(once).content == pictures.jpeg()
    wait_for(lambda: shop.api.is_gone(once), "the picture to be gone")


def test_5_mb_pass_and_a_larger_picture_is_refused_by_the_application(shop: Shop) -> None:
    shop.api.keep(pictures.jpeg().ljust(FIVE_MB, b"\0"))
    for size in (FIVE_MB + 1, 32 * 1024 * 1024):
        answer = shop.api.upload(pictures.jpeg().ljust(size, b"\0"))
        assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")


def test_a_broken_connection_gives_the_picture_back_without_a_claim(shop: Shop) -> None:
    picture = pictures.jpeg().ljust(FIVE_MB, b"\0")
    image_id = shop.api.keep(picture)
    shop.api.hang_up_after(1024, image_id)
    wait_for(lambda: "gave back" in shop.api.server.log(), "the picture to be given back")
    assert shop.api.retrieve(image_id).content == picture


def test_expired_pictures_are_swept(shop: Shop) -> None:
    """A thread sweeps, or, if threads are not allowed, the next request."""
    shop.api.keep(pictures.jpeg())
    shop.clock.forward(3700)
    shop.api.request("GET", "/healthz")
    wait_for(lambda: shop.api.server.names() == [], "the picture to be swept")


def test_no_log_has_a_whole_id(shop: Shop) -> None:
    image_id, claim = shop.api.keep(pictures.jpeg()), new_token()
    assert shop.api.retrieve(image_id, claim).status_code == 200
    wait_for(lambda: f"claimed {image_id[:6]}" in shop.api.server.log(), "the application to log")
    for hidden in (image_id, claim, RETRIEVE):
        assert hidden not in shop.api.server.log()


def test_without_threads_the_default_sweeping_names_the_setting(virtualenv: Path, tmp_path: Path) -> None:
    server = Server(tmp_path, {"TEST_CLOCK": str(DrivenClock(tmp_path / "clock").path)})
    with pytest.raises(AssertionError):
        start(server, virtualenv, {"threads = 16\n": ""})
    assert "HEROIMG_SWEEP_SECONDS is not 0, and this host allows no threads" in server.log()
