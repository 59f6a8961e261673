"""/metrics: the figures of all workers together, and a 404 if metrics are off."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from demo.stripe_stand_in import StandIn
from heroimg.config import Config
from heroimg.operations.counters import Count, Counters, open_counters
from tests.helpers import pictures
from tests.helpers.api import Api, new_token
from tests.helpers.needed_programs import needs_root
from tests.helpers.serving import DrivenClock, Server, serving, serving_at, wait_for
from tests.helpers.shop import Shop
from tests.helpers.system_calls import needs_ptrace, trace

ON = {"HEROIMG_METRICS": "1", "HEROIMG_SWEEP_SECONDS": "1"}


@pytest.fixture
def watched(tmp_path: Path, clock: DrivenClock) -> Iterator[Shop]:
    """Serve with metrics, a stand-in for Stripe, and a driven clock."""
    with StandIn(clock=clock) as stand_in:
        settings = {"STRIPE_SECRET_KEY": "sk_test_standin", "STRIPE_API_BASE": stand_in.url, **ON}
        with serving_at(clock, tmp_path / "served", settings) as server:
            yield Shop(Api(server), stand_in, clock)


def figures(api: Api) -> dict[str, float]:
    """Read /metrics: each figure by its name, and its label's value if it has one."""
    answer = api.request("GET", "/metrics")
    assert answer.status_code == 200
    return {
        " ".join([sample.name.removeprefix("heroimg_"), *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_are_off_unless_asked_for(api: Api) -> None:
    assert api.request("GET", "/metrics").status_code == 404
    assert not list((api.server.folder / "instance").glob("metrics*"))


def test_without_metrics_the_library_is_not_imported(tmp_path: Path) -> None:
    code = "import heroimg.wsgi, sys; assert 'prometheus_client' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=Server(tmp_path, {}).environ, cwd=tmp_path, check=True)


def test_before_anything_has_happened_every_figure_is_zero(watched: Shop) -> None:
    shown = figures(watched.api)
    counters = [name for name, figure in vars(Counters()).items() if isinstance(figure, Count)]
    expected = {f"{name}_total" for name in counters} - {"refusals_total", "confirmations_total"}
    expected |= {"check_seconds_count", "stripe_seconds_count"}
    expected |= {"confirmations_total true", "confirmations_total false"}
    expected |= {"held_images", "held_bytes", "oldest_age_seconds"}
    assert {name: shown.get(name) for name in expected} == dict.fromkeys(expected, 0)


def test_the_figures_are_those_of_all_workers_and_outlive_one(watched: Shop) -> None:
    for _ in range(20):
        watched.api.keep(pictures.jpeg())
    assert {figures(watched.api)["uploads_total"] for _ in range(10)} == {20}
    killed = watched.api.server.workers()[0]
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: len(set(watched.api.server.workers()) - {killed}) == 2, "another worker")
    assert figures(watched.api)["uploads_total"] == 20


def test_a_journey_is_counted_step_by_step(watched: Shop) -> None:
    api, token = watched.api, new_token()
    image_id = api.keep(pictures.portrait())
    assert figures(api)["held_images"] == 1
    assert figures(api)["held_bytes"] == len(pictures.portrait())
    session_id = api.session_of(image_id)
    watched.stand_in.pay(session_id)
    for _ in range(2):
        api.status(session_id)
    for _ in range(3):
        api.retrieve(image_id, token)
    for _ in range(2):
        api.confirm(image_id, token)
    api.retrieve(api.keep(pictures.jpeg()))
    expected = {
        "held_images": 0,
        "uploads_total": 2,
        "checkouts_complete_total": 1,
        "retrievals_total": 4,
        "confirmations_total true": 1,
        "confirmations_total false": 1,
    }
    wait_for(lambda: expected.items() <= figures(api).items(), "everything to be counted")


def test_refusals_are_counted_by_their_codes(watched: Shop) -> None:
    watched.api.upload(b"not a picture")
    watched.api.upload(b"not a picture")
    watched.api.retrieve("0" * 32)
    watched.api.request("GET", "/nowhere")
    counted = figures(watched.api)
    assert counted["refusals_total not_a_picture"] == 2
    assert counted["refusals_total image_not_found"] == 1
    assert counted["refusals_total not_found"] == 1


def test_expired_pictures_are_counted_by_what_had_happened_to_them(watched: Shop) -> None:
    api = watched.api
    api.keep(pictures.jpeg())
    claimed = api.keep(pictures.jpeg())
    api.retrieve(claimed, new_token())
    paid = api.session_of(api.keep(pictures.jpeg()))
    watched.stand_in.pay(paid)
    api.status(paid)
    watched.clock.forward(3601)
    wait_for(lambda: api.server.names() == [], "all to be swept")
    expected = {"expired_unclaimed_total": 2, "paid_never_fetched_total": 1, "claims_lapsed_total": 1}
    wait_for(lambda: expected.items() <= figures(api).items(), "the sweep to be counted")
    assert f"was paid for (checkout {paid[:12]}...) and never fetched" in api.server.log()


def test_a_paid_picture_that_was_claimed_but_never_confirmed_is_reported(watched: Shop) -> None:
    api = watched.api
    paid = api.session_of(image_id := api.keep(pictures.jpeg()))
    watched.stand_in.pay(paid)
    api.status(paid)
    api.retrieve(image_id, new_token())
    watched.clock.forward(3601)
    wait_for(lambda: f"was paid for (checkout {paid[:12]}...) and never confirmed" in api.server.log(), "the sweep")
    assert figures(api)["paid_never_fetched_total"] == 0


def test_a_claim_that_lapsed_is_counted_when_another_takes_its_place(watched: Shop) -> None:
    image_id = watched.api.keep(pictures.jpeg())
    watched.api.retrieve(image_id, new_token())
    watched.clock.forward(301)
    assert watched.api.retrieve(image_id, new_token()).status_code == 200
    assert figures(watched.api)["claims_lapsed_total"] == 1


def test_the_last_sweep_and_the_oldest_picture_go_by_the_clock(watched: Shop) -> None:
    before = watched.clock()
    watched.api.keep(pictures.jpeg())
    watched.clock.forward(600)
    wait_for(lambda: abs(figures(watched.api)["last_sweep_timestamp_seconds"] - watched.clock()) < 30, "the next sweep")
    assert 600 <= figures(watched.api)["oldest_age_seconds"] <= watched.clock() - before + 1


def test_a_server_that_is_started_again_begins_at_zero(tmp_path: Path) -> None:
    for _ in range(2):
        with serving(tmp_path / "served", ON) as server:
            Api(server).keep(pictures.jpeg())
            assert figures(Api(server))["uploads_total"] == 1


def test_a_second_server_on_the_same_folders_leaves_the_figures_alone(tmp_path: Path) -> None:
    with serving(tmp_path / "served", ON) as first:
        Api(first).keep(pictures.jpeg())
        with serving(tmp_path / "served", ON) as second:
            assert figures(Api(second))["uploads_total"] == 1
            Api(first).keep(pictures.jpeg())
            Api(second).keep(pictures.jpeg())
            assert figures(Api(first))["uploads_total"] == 3
        assert figures(Api(first))["uploads_total"] == 3


@pytest.mark.parametrize("content", [b"", b"\x20\0\0\0", b"\x20\0\0\0\0\0\0\0\x08\0\0\0" + b"x" * 20], ids=repr)
def test_a_damaged_file_is_left_out_of_the_figures_and_logged_once(tmp_path: Path, content: bytes) -> None:
    with serving(tmp_path / "served", ON) as server:
        Api(server).keep(pictures.jpeg())
        (folder,) = server.folder.glob("instance/metrics-*/")
        (folder / "counter_1.db").write_bytes(content)
        for _ in range(10):
            assert figures(Api(server))["uploads_total"] == 1
        assert 1 <= server.log().count("counter_1.db") <= len(server.workers())


@pytest.mark.proof
@needs_ptrace
def test_a_process_killed_while_it_makes_its_file_leaves_none_that_is_incomplete(tmp_path: Path) -> None:
    config = Config(metrics=True, upload_dir=tmp_path / "uploads", instance_dir=tmp_path / "instance")

    def count() -> None:
        for module in [name for name in sys.modules if name.startswith("prometheus_client")]:
            del sys.modules[module]  # it reads the folder's name when it is imported
        open_counters(config).uploads.inc()

    for end_after in range(1, len(trace(tmp_path, count))):
        shutil.rmtree(tmp_path / "instance")
        trace(tmp_path, count, end_after=end_after)
        assert all(file.stat().st_size == 65536 for file in tmp_path.glob("instance/*/*.db"))


@needs_root
def test_on_a_disk_without_any_room_nothing_is_counted_and_everything_answered(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
    folders = {"HEROIMG_UPLOAD_DIR": str(disk / "uploads"), "HEROIMG_INSTANCE_DIR": str(disk / "instance")}
    try:
        with serving(tmp_path / "served", {**ON, **folders}) as server:
            api, workers = Api(server), server.workers()
            with (disk / "filling").open("wb", buffering=0) as filling, suppress(OSError):
                while filling.write(bytes(4096)):
                    pass
            for _ in range(10):
                assert api.upload(pictures.jpeg(1)).json()["code"] == "no_room"
            assert server.workers() == workers
            assert "cannot count for /metrics: [Errno 28]" in server.log()
            (disk / "filling").unlink()
            api.keep(pictures.jpeg(1))
            assert figures(api)["uploads_total"] == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_no_command_leaves_a_file_that_has_counted_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path, ON)
    server.flask("sweep")
    assert not list(tmp_path.glob("instance/metrics*/*.db"))


def test_a_check_of_the_set_up_leaves_no_file(watched: Shop) -> None:
    server = watched.api.server
    watched.api.session_of(watched.api.keep(pictures.jpeg()))
    files = sorted(server.folder.glob("instance/metrics*/*.db"))
    assert files
    asked = len(watched.stand_in.requests)
    assert server.flask("check").stdout
    assert len(watched.stand_in.requests) > asked
    assert sorted(server.folder.glob("instance/metrics*/*.db")) == files


def test_first_requests_that_come_together_are_all_counted(watched: Shop) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: watched.api.retrieve("0" * 32), range(64)))
    assert figures(watched.api)["refusals_total image_not_found"] == 64


def test_no_figure_contains_an_id(watched: Shop) -> None:
    image_id = watched.api.keep(pictures.jpeg())
    watched.api.retrieve(image_id, token := new_token())
    text = watched.api.request("GET", "/metrics").text
    assert image_id not in text
    assert token not in text


def test_the_check_of_a_picture_and_calls_to_stripe_are_timed_in_all_workers(watched: Shop) -> None:
    api = watched.api
    for _ in range(8):
        api.session_of(api.keep(pictures.jpeg()))
    api.upload(pictures.jpeg()[:-200])
    shown = figures(api)
    assert shown["check_seconds_count"] == 9
    assert shown["stripe_seconds_count"] == 8
    assert shown["check_seconds_bucket +Inf"] == 9
    assert shown["check_seconds_bucket 0.005"] <= shown["check_seconds_bucket 5.0"]
    assert 0 < shown["check_seconds_sum"] < 9 * 60


def test_the_room_and_the_clock_are_shown(watched: Shop) -> None:
    shown = figures(watched.api)
    assert shown["free_bytes"] > 0
    assert shown["free_inodes"] > 0
    assert shown["clock_ahead_seconds"] == 0
