"""A full disk: uploads are refused, and waiting pictures can still be paid for and handed over."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from demo.stripe_stand_in import StandIn
from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.needed_programs import needs_root
from tests.helpers.serving import Server, serving, wait_for
from tests.helpers.shop import stripe_settings
from tests.helpers.store_shelf import OTHER_TOKEN, TOKEN


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Use up every inode and every byte of a disk, as other programs may."""
    others = disk / "others"
    others.mkdir()
    with suppress(OSError), (others / "bytes").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    with suppress(OSError):
        for number in count():
            (others / str(number)).touch()
    room = os.statvfs(disk)
    assert (room.f_bavail, room.f_favail) == (0, 0)


@needs_root
def test_a_full_disk_refuses_uploads_with_507_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", "size=4m") as disk,
        serving(tmp_path / "served", {"HEROIMG_UPLOAD_DIR": str(disk / "uploads")}) as server,
    ):
        api = Api(server)
        image_id = api.keep(pictures.jpeg(3))
        server.uploads = disk / "uploads"
        before = server.names()
        for _ in range(3):
            answer = api.upload(pictures.jpeg(3))
            assert (answer.status_code, answer.json()["code"]) == (507, "no_room")
            assert server.names() == before
        assert api.retrieve(image_id).content == pictures.jpeg(3)
        wait_for(lambda: server.names() == [], "the picture to be gone")  # the reader gets it earlier
        assert api.upload(pictures.jpeg(3)).status_code == 200


@contextmanager
def shop_on(disk: Path, folder: Path, **settings: str) -> Iterator[tuple[Api, StandIn]]:
    with StandIn() as stand_in:
        settings = {"HEROIMG_UPLOAD_DIR": str(disk / "uploads"), **stripe_settings(stand_in), **settings}
        with serving(folder, settings) as server:
            server.uploads = disk / "uploads"
            stand_in.webhook_url = f"{server.url}/api/checkout/webhook"
            yield Api(server), stand_in


def pay(stand_in: StandIn, session_id: str) -> None:
    delivered = len(stand_in.deliveries)
    stand_in.pay(session_id)
    wait_for(lambda: len(stand_in.deliveries) > delivered, "the webhook to be called")
    assert stand_in.deliveries[-1].status == 200


def expect_no_room(api: Api, reason: str) -> None:
    answer = api.upload(pictures.jpeg())
    assert (answer.status_code, answer.json()["code"]) == (507, "no_room")
    ready = api.request("GET", "/readyz")
    assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
    assert reason in api.server.log()
    assert api.request("GET", "/healthz").status_code == 200


@needs_root
def test_small_uploads_leave_enough_inodes_to_pay_for_and_fetch_every_picture(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", "size=1g,nr_inodes=401") as disk,
        shop_on(disk, tmp_path / "served", HEROIMG_MIN_FREE_BYTES=str(256 * 2**20)) as (api, stand_in),
    ):
        mine, other = api.keep(pictures.jpeg()), api.keep(pictures.jpeg())
        session_id = api.session_of(mine)
        tiny = pictures.encode(pictures.noise(1, 1), "PNG")
        while (answer := api.upload(tiny)).status_code == 200:
            pass
        assert (answer.status_code, answer.json()["code"]) == (507, "no_room")
        assert os.statvfs(disk).f_favail in (126, 127)
        expect_no_room(api, "inodes free, and uploads are refused below 128")
        pay(stand_in, session_id)
        assert api.status(session_id).json()["status"] == "complete"
        assert api.open_checkout(other).status_code == 200
        assert api.retrieve(mine, TOKEN).content == pictures.jpeg()
        assert api.confirm(mine, TOKEN).status_code == 204


@needs_root
def test_on_a_disk_that_others_filled_pictures_are_paid_for_and_handed_over_once(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", "size=20m,nr_inodes=300") as disk,
        shop_on(disk, tmp_path / "served") as (api, stand_in),
    ):
        mine, plain, late = (api.keep(pictures.jpeg()) for _ in range(3))
        session_id = api.session_of(mine)
        fill(disk)
        expect_no_room(api, "takes no more files")
        pay(stand_in, session_id)
        late_session = api.session_of(late)
        assert api.session_of(late) == late_session
        api.server.kill()
        api.server.gunicorn()
        assert api.open_checkout(mine).json()["code"] == "checkout_complete"
        for _ in range(3):
            assert api.retrieve(mine, TOKEN).content == pictures.jpeg()
            assert api.retrieve(mine, OTHER_TOKEN).status_code == 409
        assert [answer.status_code for answer in api.many(4, plain)].count(200) == 1
        assert api.confirm(mine, TOKEN).status_code == 204
        assert api.retrieve(mine, TOKEN).status_code == 404
        shutil.rmtree(disk / "others")
        assert api.retrieve(late, TOKEN).status_code == 200
        assert api.upload(pictures.jpeg()).status_code == 200
        assert api.request("GET", "/readyz").status_code == 200


def test_a_quota_refuses_uploads_with_507_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    server = Server(tmp_path / "served", {})
    gunicorn = f"exec {sys.executable} -m gunicorn --bind 127.0.0.1:0 --workers 1"
    server.start("bash", "-c", f"ulimit -f 1000; {gunicorn} --config {Path(__file__).parents[2]}/gunicorn.conf.py")
    try:
        api = Api(server)
        answer = api.upload(pictures.jpeg(3))
        assert (answer.status_code, answer.json()["code"]) == (507, "no_room")
        assert server.names() == []
        assert api.upload(pictures.jpeg()).status_code == 200
    finally:
        server.stop()
