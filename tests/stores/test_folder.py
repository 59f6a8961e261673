"""The pictures' folder: other programs' files stay untouched, and the folder stays private."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.serving import Server, serving, wait_for
from tests.helpers.store_shelf import TOKEN, UNKNOWN


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.parametrize(
    "files",
    [
        {"notes.txt": "mine"},
        {UNKNOWN: "a cached page"},
        {f"{UNKNOWN}.json": '{"cached": true}'},
        {f"{UNKNOWN}.part": "half of a film"},
        {UNKNOWN: "a cached page", f"{UNKNOWN}.json": '{"cached": true}'},
        {f"{UNKNOWN}/page.html": "in a folder"},
        {".htaccess": "Deny from all", "index.html": "a page"},
    ],
    ids=" ".join,
)
def test_a_folder_with_files_of_others_stops_the_start_and_stays_as_is(tmp_path: Path, files: dict[str, str]) -> None:
    folder = tmp_path / "theirs"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    folder.chmod(0o755)
    server = Server(tmp_path, {"HEROIMG_UPLOAD_DIR": str(folder)})
    with pytest.raises(AssertionError, match=r"HEROIMG_UPLOAD_DIR is .*it holds other files, such as "):
        server.gunicorn()
    assert UNKNOWN not in server.log()  # it could be a picture's id
    assert server.flask("sweep").returncode != 0
    assert mode_of(folder) == 0o755
    for name, content in files.items():
        assert (folder / name).read_text() == content


@pytest.mark.parametrize("suffix", ["", ".json", ".new"])
def test_private_files_of_another_program_with_names_like_ours_stop_the_start_and_stay(
    tmp_path: Path, suffix: str
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    theirs = {f"{number:032x}{suffix}": b"\x80\x04a pickled session" for number in range(3)}  # such as cachelib's
    for name, content in theirs.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    folder.chmod(0o755)
    swept = Server(tmp_path, {"HEROIMG_UPLOAD_DIR": str(folder)}).flask("sweep")
    assert "it holds other files, such as 0000" in swept.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == theirs
    assert mode_of(folder) == 0o755


def test_leftovers_of_a_power_cut_are_ours(tmp_path: Path) -> None:
    server = Server(tmp_path, {})
    server.uploads.mkdir(mode=0o700)
    left = {
        "a" * 32: pictures.jpeg()[:4096],
        "b" * 32: pictures.png()[:4096],
        "c" * 32: b"",
        "d" * 32: b"not yet written",
        "d" * 32 + ".json": b"",
        "e" * 32 + ".json": bytes(4096),
        "f" * 32 + ".new": b'{"mimetype',
        "0" * 32 + ".part": b"not yet written",
        "1" * 32: pictures.jpeg(),
        "1" * 32 + ".json": b"another file's bytes",
    }
    for name, content in left.items():
        (server.uploads / name).write_bytes(content)
        (server.uploads / name).chmod(0o600)
        os.utime(server.uploads / name, (0, 0))
    assert server.flask("sweep").stdout == "Swept 0 expired pictures and 8 leftovers.\n"
    assert server.names() == []


def test_a_folder_with_placeholders_and_copied_pictures_is_ours_and_made_private(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    for name in (".htaccess", ".gitkeep"):
        (folder / name).touch()
    (folder / "lost+found").mkdir()
    (folder / UNKNOWN).write_bytes(pictures.jpeg())
    folder.chmod(0o755)
    (folder / f"{UNKNOWN}.json").write_text(json.dumps({"mimetype": "image/jpeg", "timestamp": time.time()}))
    with serving(tmp_path / "served", {"HEROIMG_UPLOAD_DIR": str(folder)}) as server:
        assert mode_of(folder) == 0o700
        assert Api(server).retrieve(UNKNOWN, TOKEN).content == pictures.jpeg()


@pytest.mark.parametrize("change", ["made again", "opened"])
def test_a_folder_that_is_open_while_running_is_made_private_again(own: Api, change: str) -> None:
    folder = own.server.uploads
    if change == "made again":
        folder.rmdir()
        folder.mkdir()
    folder.chmod(0o755)
    image_id = own.keep(pictures.jpeg())
    assert mode_of(folder) == 0o700
    assert own.retrieve(image_id).status_code == 200


def test_a_folder_of_others_in_the_place_of_ours_is_left_alone(tmp_path: Path) -> None:
    with serving(tmp_path / "served", {"HEROIMG_SWEEP_SECONDS": "0"}) as server:
        api = Api(server)
        server.uploads.rmdir()
        server.uploads.mkdir(mode=0o755)
        (server.uploads / UNKNOWN).write_text("a cached page")
        assert api.upload(pictures.jpeg()).json()["code"] == "store_unavailable"
        assert api.request("GET", "/readyz").json()["code"] == "store_unavailable"
        assert "it holds other files, such as 012345" in server.log()
        assert UNKNOWN not in server.log()
        assert server.flask("sweep").returncode != 0
        assert server.names() == [UNKNOWN]
        assert mode_of(server.uploads) == 0o755
        (server.uploads / UNKNOWN).unlink()
        assert api.upload(pictures.jpeg()).status_code == 200
        assert mode_of(server.uploads) == 0o700


def test_a_file_of_others_does_not_stop_a_worker_that_replaces_a_killed_one(tmp_path: Path) -> None:
    with serving(tmp_path / "served") as server:
        image_id = Api(server).keep(pictures.jpeg())
        (server.uploads / "notes.txt").write_text("mine")
        for worker in server.workers():
            os.kill(worker, signal.SIGKILL)
        wait_for(lambda: server.log().count("ready: ") == 4 or server.has_ended(), "new workers")
        assert Api(server).retrieve(image_id).content == pictures.jpeg()
        assert Api(server).upload(pictures.jpeg()).status_code == 200
        assert (server.uploads / "notes.txt").read_text() == "mine"
