"""Pictures are forgotten on time: the sweep, in one worker and in several, and the health check of the sweep."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from heroimg import create_app
from heroimg.api.services import services
from heroimg.config import Config
from heroimg.stores.base import Swept
from tests.helpers import pictures
from tests.helpers.api import Api, new_token
from tests.helpers.serving import DrivenClock, Server, serving, serving_at, wait_for
from tests.helpers.store_shelf import UNKNOWN, Clock


@pytest.mark.parametrize("arguments", [(), ("--preload",)], ids=["workers that load by themselves", "preload"])
def test_expired_pictures_are_off_the_disk_soon_without_any_request(
    tmp_path: Path, clock: DrivenClock, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "served").mkdir()
    server = Server(tmp_path / "served", {"TEST_CLOCK": str(clock.path), "HEROIMG_SWEEP_SECONDS": "1"})
    server.gunicorn(*arguments, app="tests.helpers.clocked_wsgi:app")
    try:
        Api(server).keep(pictures.jpeg())
        clock.forward(3601)
        wait_for(lambda: server.names() == [], "the picture to be swept")
        wait_for(lambda: "swept 1 expired pictures and 0 leftovers" in server.log(), "the sweep to be logged")
        killed = server.workers()
        for worker in killed:
            os.kill(worker, signal.SIGKILL)
        wait_for(lambda: not set(killed) & set(server.workers()), "the workers to be gone")
        (server.uploads / f"{UNKNOWN}.part").touch()
        wait_for(lambda: server.names() == [], "the new workers to sweep")
    finally:
        server.stop()


def test_a_picture_that_was_uploaded_while_the_clock_was_ahead_is_gone_after_its_time(
    tmp_path: Path, clock: DrivenClock, store_settings: dict[str, str]
) -> None:
    settings = store_settings | {"HEROIMG_IMAGE_SECONDS": "3", "HEROIMG_SWEEP_SECONDS": "1"}
    clock.forward(365 * 86400)
    with serving_at(clock, tmp_path / "served", settings, workers=1) as server:
        api = Api(server)
        image_id = api.keep(pictures.jpeg())
        clock.forward(-365 * 86400)  # the clock is right again
        wait_for(lambda: api.is_gone(image_id), "the picture to expire")
        wait_for(lambda: not any(server.uploads.glob("*")), "the picture to be swept")
        assert server.flask("held").stdout == "No pictures are held.\n"


@pytest.mark.parametrize("sweep_seconds", ["0", "1"])
@pytest.mark.parametrize("becomes", ["missing", "a file"])
def test_without_its_instance_folder_the_server_answers_sweeps_and_counts_without_a_traceback(
    tmp_path: Path, clock: DrivenClock, becomes: str, sweep_seconds: str
) -> None:
    settings = {"HEROIMG_SWEEP_SECONDS": sweep_seconds, "HEROIMG_METRICS": "1"}
    with serving_at(clock, tmp_path / "served", settings, workers=1) as server:
        api, instance = Api(server), server.folder / "instance"

        def is_replaced() -> bool:  # a sweep may make the folder again at any moment
            shutil.rmtree(instance, ignore_errors=True)
            if becomes == "a file":
                with suppress(FileExistsError):
                    instance.touch(exist_ok=False)
                return instance.is_file()
            return not instance.exists()

        for _ in range(2):
            api.keep(pictures.jpeg())
            wait_for(is_replaced, "the folder to be replaced")
            image_id = api.keep(pictures.jpeg())
            assert api.retrieve(image_id).status_code == 200
            api.keep(pictures.jpeg())
            clock.forward(3700)
            for _ in range(10):
                assert api.request("GET", "/healthz").status_code == 200
                assert api.request("GET", "/metrics").status_code == 200
            if becomes == "a file":
                assert server.log().count("cannot count for /metrics") == 1
                wait_for(lambda: "cannot lock the sweep" in server.log(), "an attempt")
                assert server.log().count("cannot lock the sweep") < 20

            def is_swept() -> bool:
                if sweep_seconds == "0":  # a slow sweep after a request may have ended early
                    clock.forward(200)
                    api.request("GET", "/healthz")
                return server.names() == []

            wait_for(is_swept, "the expired pictures to be swept")
            if becomes == "a file":
                instance.unlink()
                clock.forward(200)  # a failed attempt is not repeated at once
                api.request("GET", "/healthz")
            wait_for(lambda: any(instance.glob("sweep-*.lock")), "the folder to be made again")
            assert instance.stat().st_mode & 0o777 == 0o700
            api.keep(pictures.jpeg())
            assert "heroimg_uploads_total 0.0" not in api.request("GET", "/metrics").text
            assert api.request("GET", "/readyz").status_code == 200
        assert "Traceback" not in server.log()


def test_a_folder_that_cannot_be_swept_costs_a_line_an_attempt_and_not_a_request(
    tmp_path: Path, clock: DrivenClock
) -> None:
    with serving_at(clock, tmp_path / "served", {"HEROIMG_SWEEP_SECONDS": "0"}, workers=1) as server:
        shutil.rmtree(server.uploads)
        server.uploads.touch()
        clock.forward(200)
        Api(server).request("GET", "/healthz")
        wait_for(lambda: "cannot sweep: " in server.log(), "an attempt")
        for _ in range(10):
            Api(server).request("GET", "/healthz")
        assert server.log().count("cannot sweep: ") == 1


def test_one_worker_sweeps_at_a_time(tmp_path: Path) -> None:
    sweeper = services(create_app(Config(upload_dir=tmp_path / "uploads", instance_dir=tmp_path / "instance"))).sweeper
    (lock,) = (tmp_path / "instance").iterdir()
    with lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert sweeper.sweep() is None
    assert sweeper.sweep() == Swept()


def test_a_lock_file_that_was_removed_by_hand_is_made_again(tmp_path: Path) -> None:
    sweeper = services(create_app(Config(upload_dir=tmp_path / "uploads", instance_dir=tmp_path / "instance"))).sweeper
    (lock,) = (tmp_path / "instance").iterdir()
    lock.unlink()
    sweeper.sweep_if_due()
    assert lock.exists()


def test_a_sweep_is_due_once_half_an_interval_has_passed_or_the_clock_was_set_back(tmp_path: Path) -> None:
    sweeper = services(create_app(Config(upload_dir=tmp_path / "uploads", instance_dir=tmp_path / "instance"))).sweeper
    (lock,) = (tmp_path / "instance").iterdir()
    leftover = tmp_path / "uploads" / f"{UNKNOWN}.json"
    for seconds, is_left in ((10, True), (31, False), (-31, False)):
        leftover.touch()
        os.utime(lock, (time.time() - seconds, time.time() - seconds))
        sweeper.sweep_if_due()
        assert leftover.exists() == is_left


def test_sweeps_are_not_overdue_just_after_the_start_or_without_threads(tmp_path: Path) -> None:
    clock = Clock(time.time())
    config = Config(upload_dir=tmp_path / "uploads", instance_dir=tmp_path / "instance")
    create_app(config, clock)
    clock.now += 9999
    assert services(create_app(config, clock)).sweeper.seconds_overdue() == 0
    idle = services(create_app(replace(config, sweep_seconds=0), clock)).sweeper
    clock.now += 9999
    assert idle.seconds_overdue() == 0


def test_the_sweep_command_says_that_another_process_is_sweeping(tmp_path: Path) -> None:
    server = Server(tmp_path, {})
    server.flask("sweep")
    (lock,) = (tmp_path / "instance").iterdir()
    with lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert server.flask("sweep").stdout == "Another process is sweeping.\n"


def test_two_applications_may_share_an_instance_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        create_app(Config(upload_dir=tmp_path / name, instance_dir=tmp_path / "instance"))
    assert len(list((tmp_path / "instance").iterdir())) == 2


def test_the_commands_sweep_and_print_what_is_held(tmp_path: Path) -> None:
    with serving(tmp_path / "served", {"HEROIMG_SWEEP_SECONDS": "0"}) as server:
        held = server.flask("held")
        assert (held.stdout, held.stderr) == ("No pictures are held.\n", "")
        Api(server).keep(pictures.jpeg())
        assert server.flask("held").stdout.startswith(f"Pictures held: 1, {len(pictures.jpeg())} bytes; the oldest is ")
        (server.uploads / f"{UNKNOWN}.json").touch()
        assert server.flask("sweep").stdout == "Swept 0 expired pictures and 1 leftovers.\n"
        assert len(server.names()) == 2


def test_a_request_sweeps_if_the_sweep_is_long_overdue(tmp_path: Path, clock: DrivenClock) -> None:
    with serving_at(clock, tmp_path / "served", {"HEROIMG_SWEEP_SECONDS": "0"}) as server:
        (server.uploads / f"{UNKNOWN}.json").touch()
        clock.forward(100)
        assert Api(server).request("GET", "/healthz").status_code == 200
        assert server.names() == [f"{UNKNOWN}.json"]
        clock.forward(100)
        Api(server).request("GET", "/healthz")
        wait_for(lambda: server.names() == [], "the leftover to be swept")


def test_a_sweep_between_requests_ends_when_its_time_is_over_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(time.time())
    app = create_app(Config(upload_dir=tmp_path / "uploads", instance_dir=tmp_path / "instance"), clock)
    sweeper = services(app).sweeper
    for number in range(50):
        (tmp_path / "uploads" / f"{number:032x}.json").touch()
    monkeypatch.setattr("heroimg.operations.sweep._BETWEEN_REQUESTS_SECONDS", 0)
    assert sweeper.sweep(0) == Swept(leftovers=1)
    for left in (48, 47):
        clock.now += 181
        for _ in range(3):  # the first request sweeps; for the other two no sweep is due
            app.test_client().get("/healthz").close()
        assert len(list((tmp_path / "uploads").iterdir())) == left


def test_a_sweep_is_overdue_after_three_intervals(tmp_path: Path) -> None:
    clock = Clock(time.time())
    sweeper = services(
        create_app(Config(upload_dir=tmp_path / "uploads", instance_dir=tmp_path / "instance"), clock)
    ).sweeper
    clock.now += 180
    assert sweeper.seconds_overdue() == 0
    clock.now += 2
    assert sweeper.seconds_overdue() > 180
    sweeper.sweep()
    assert sweeper.seconds_overdue() == 0


def test_health_is_good_while_all_is_well(api: Api) -> None:
    for path in ("/healthz", "/readyz"):
        answer = api.request("GET", path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        assert api.request("HEAD", path).status_code == 200
    assert api.server.names() == []


def test_readyz_says_that_the_sweep_is_overdue(tmp_path: Path, clock: DrivenClock) -> None:
    with serving_at(clock, tmp_path / "served", {"HEROIMG_SWEEP_SECONDS": "3600"}) as server:
        api = Api(server)
        assert api.request("GET", "/readyz").status_code == 200
        (lock,) = (server.folder / "instance").iterdir()
        with lock.open() as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            clock.forward(3 * 3600 + 5)
            answer = api.request("GET", "/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert "HEROIMG_SWEEP_SECONDS is 3600" in answer.json()["error"]
        assert api.request("GET", "/healthz").status_code == 200


def test_health_is_bad_while_the_store_cannot_be_written(own: Api) -> None:
    moved = own.server.uploads.rename(own.server.folder / "moved")
    for path in ("/healthz", "/readyz"):
        answer = own.request("GET", path)
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    answer = own.upload(pictures.jpeg())
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert "HEROIMG_UPLOAD_DIR is " in own.server.log()
    moved.rename(own.server.uploads)
    assert own.request("GET", "/readyz").status_code == 200


def test_a_picture_is_unavailable_and_not_gone_while_its_folder_is_missing(tmp_path: Path) -> None:
    with serving(tmp_path / "served", {"HEROIMG_METRICS": "1"}) as server:
        api, claim = Api(server), new_token()
        image_id = api.keep(pictures.jpeg())
        moved = server.uploads.rename(server.folder / "moved")
        for answer in (
            api.retrieve(image_id, claim),
            api.retrieve(image_id),
            api.confirm(image_id),
            api.request("GET", "/metrics"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        assert api.retrieve(image_id, method="HEAD").status_code == 503
        assert "Traceback" not in server.log()
        moved.rename(server.uploads)
        assert api.retrieve(image_id, claim).content == pictures.jpeg()
        assert api.request("GET", "/metrics").status_code == 200


def test_readyz_says_that_there_is_no_room_and_healthz_that_pictures_can_still_be_fetched(tmp_path: Path) -> None:
    with serving(tmp_path / "served", {"HEROIMG_MIN_FREE_BYTES": str(2**50)}) as server:
        answer = Api(server).request("GET", "/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert "HEROIMG_MIN_FREE_BYTES" in answer.json()["error"]
        assert Api(server).request("GET", "/healthz").status_code == 200


def test_the_background_thread_does_not_keep_a_command_from_ending(tmp_path: Path) -> None:
    server = Server(tmp_path, {"HEROIMG_SWEEP_SECONDS": "1"})
    code = "import heroimg.wsgi, threading; assert threading.active_count() > 1"
    subprocess.run([sys.executable, "-c", code], env=server.environ, cwd=tmp_path, timeout=20, check=True)
