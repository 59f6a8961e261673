"""FileStore on the disk: the files that it writes, that a crash may leave, and that people may put there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from heroimg.config import Config
from heroimg.errors import ImageClaimed, ImageNotFound, StoreFull, StoreUnavailable
from heroimg.stores.base import Swept
from heroimg.stores.files.store import FileStore
from heroimg.stores.image import Claim
from tests.helpers.needed_programs import needs
from tests.helpers.serving import Server
from tests.helpers.store_shelf import START, TOKEN, UNKNOWN, Clock, Shelf, no_file_larger_than, noted

LIVING = "f" * 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def shelf(folder: Path) -> Shelf:
    clock = Clock()
    store = FileStore(Config(upload_dir=folder, min_free_bytes=0), clock)
    return Shelf(store, clock, lambda: sorted(path.name for path in folder.iterdir()))


def sidecar(**fields: object) -> str:
    return json.dumps({"mimetype": "image/png", "timestamp": START, **fields})


@pytest.mark.parametrize(
    "leftover",
    [
        {".part": "half a pict"},
        {".part": "a picture", ".json": sidecar(size=9)},
        {".part": "a picture", ".json": '{"mimet'},
        {".json": sidecar(size=9)},
        {".json": ""},
        {".new": sidecar()},
        {".json": sidecar(), ".new": '{"mime'},
        {"": "a picture"},
        {"": "a picture", ".json": ""},
        {"": "a picture", ".json": '{"mimetype"'},
        {"": "a picture", ".json": "[]"},
        {"": "a picture", ".json": "null"},
        {"": "a picture", ".json": '{"mimetype": "image/png"}'},
        {"": "a picture", ".json": sidecar(timestamp="today")},
        {"": "a picture", ".json": sidecar(timestamp=float("inf"))},
        {"": "a picture", ".json": sidecar(claim="mine")},
        {"": "a picture", ".json": "[" * 100_000},
        {"": "a pict", ".json": sidecar(size=9)},
        {"": "", ".json": sidecar(size=9), ".new": sidecar(size=9)},
    ],
    ids=lambda leftover: str(leftover)[:60],
)
def test_every_leftover_of_a_crash_is_not_found_and_gone_after_one_sweep(
    shelf: Shelf, folder: Path, leftover: dict[str, str]
) -> None:
    for suffix, content in leftover.items():
        (folder / f"{UNKNOWN}{suffix}").write_text(content)
    with pytest.raises(ImageNotFound):
        shelf.store.get(UNKNOWN)
    with pytest.raises(ImageNotFound):
        shelf.store.claim(UNKNOWN, TOKEN)
    assert shelf.store.sweep() == Swept(leftovers=1)
    assert shelf.names() == []


def test_a_sweep_removes_the_leftover_of_an_interrupted_change_and_keeps_the_picture(
    shelf: Shelf, folder: Path
) -> None:
    image = shelf.keep()
    (folder / f"{image.id}.new").write_text('{"mime')
    shelf.store.sweep()
    assert shelf.names() == [image.id, f"{image.id}.json"]
    assert shelf.read(image.id) == b"picture"


def test_a_sweep_leaves_alone_what_is_not_ours(shelf: Shelf, folder: Path) -> None:
    for name in (".htaccess", "notes.txt", f"{UNKNOWN}.jpg", "0" * 31, f"{UNKNOWN}.json.bak"):
        (folder / name).write_text("")
    before = shelf.names()
    assert shelf.store.sweep() == Swept()
    assert shelf.names() == before


def test_a_sidecar_written_by_hand_is_valid_with_mimetype_and_timestamp_alone(shelf: Shelf, folder: Path) -> None:
    (folder / UNKNOWN).write_bytes(b"by hand")
    (folder / f"{UNKNOWN}.json").write_text(json.dumps({"mimetype": "image/jpeg", "timestamp": START + 0.5}))
    image = shelf.store.get(UNKNOWN)
    assert (image.media_type, image.size, image.expires) == ("image/jpeg", 7, START + 3600)
    assert shelf.store.sweep() == Swept()
    assert shelf.read(UNKNOWN) == b"by hand"
    shelf.clock.now += 3600
    with pytest.raises(ImageNotFound):
        shelf.store.get(UNKNOWN)
    assert len(shelf.store.sweep().expired) == 1
    assert shelf.names() == []


def test_a_claim_by_hand_is_a_claim(shelf: Shelf, folder: Path) -> None:
    (folder / UNKNOWN).write_bytes(b"by hand")
    (folder / f"{UNKNOWN}.json").write_text(sidecar(claim={"token": 1, "until": START + 5.5}))
    with pytest.raises(ImageClaimed):
        shelf.store.claim(UNKNOWN, TOKEN)


def test_a_file_that_cannot_be_swept_is_reported_and_does_not_stop_the_sweep(shelf: Shelf, folder: Path) -> None:
    (folder / UNKNOWN).mkdir()
    (folder / f"{LIVING}.part").touch()
    swept = shelf.store.sweep()
    assert swept.leftovers == 1
    assert [failure.startswith(f"012345... in {folder}: ") for failure in swept.failures] == [True]


def test_a_name_that_cannot_be_looked_at_does_not_stop_the_sweep(shelf: Shelf, folder: Path) -> None:
    for name in (UNKNOWN, "x" * 32):
        (folder / f"{name}.json").symlink_to(f"{name}.json")  # a link to itself: reading its status fails
    (folder / UNKNOWN).symlink_to(UNKNOWN)
    (folder / f"{LIVING}.part").touch()
    swept = shelf.store.sweep()
    assert (swept.leftovers, len(swept.failures)) == (1, 1)


def test_a_sidecar_stays_if_its_picture_cannot_be_checked(shelf: Shelf, folder: Path) -> None:
    (folder / UNKNOWN).symlink_to(UNKNOWN)
    (folder / f"{UNKNOWN}.json").write_text(sidecar())
    assert len(shelf.store.sweep().failures) == 1
    assert (folder / f"{UNKNOWN}.json").exists()


def test_the_sidecar_says_what_the_design_says(shelf: Shelf, folder: Path) -> None:
    image = shelf.keep()
    path = folder / f"{image.id}.json"
    fields = {"mimetype": "image/png", "timestamp": START, "size": 7, "expires": START + 3600}
    assert json.loads(path.read_text()) == fields
    shelf.read(image.id)
    assert json.loads(path.read_text()) == fields | {"claim": {"token": TOKEN, "until": START + 300}}


def test_a_sweep_reads_only_the_sidecars_that_are_due(shelf: Shelf, folder: Path) -> None:
    image = shelf.keep()
    path = folder / f"{image.id}.json"
    assert path.stat().st_mtime == image.expires
    pinned = shelf.store.pin(image.id, START + 3601)
    assert path.stat().st_mtime == pinned.expires
    path.write_text("unreadable")
    os.utime(path, (pinned.expires, pinned.expires))
    assert shelf.store.sweep() == Swept()


def test_a_sweep_moves_a_picture_that_was_kept_while_the_clock_was_ahead_back_to_now(
    shelf: Shelf, folder: Path
) -> None:
    shelf.clock.now = START + 86400
    image = shelf.keep()
    shelf.read(image.id)
    shelf.clock.now = START
    assert shelf.store.sweep() == Swept()
    moved = shelf.store.get(image.id)
    assert (moved.stored, moved.expires, moved.claim) == (START, START + 3600, Claim(TOKEN, START + 300))
    assert (folder / image.id).stat().st_mtime == START
    shelf.clock.now = START + 3600
    assert len(shelf.store.sweep().expired) == 1
    assert shelf.names() == []


def test_a_session_is_ended_by_the_next_sweep_though_the_clock_was_ahead_when_its_picture_was_kept(
    shelf: Shelf,
) -> None:
    shelf.clock.now = START + 600
    image = shelf.keep()
    shelf.store.note(image.id, noted(sessions_to_end=("cs_test_0",)))
    shelf.clock.now = START
    assert shelf.store.sweep() == Swept(with_sessions_to_end=(image.id,))


@pytest.mark.parametrize(("module", "call"), [(os, "fstat"), (fcntl, "flock")])
def test_a_picture_that_the_file_server_no_longer_knows_is_unavailable(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, module: ModuleType, call: str
) -> None:
    image = shelf.keep()
    real = getattr(module, call)

    def fail(*arguments: Any) -> Any:
        if call == "fstat" or arguments[1] == fcntl.LOCK_UN:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, call, fail)
        with pytest.raises(StoreUnavailable):
            shelf.store.remove(image.id)


def test_a_file_system_that_counts_no_inodes_has_enough(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def as_btrfs(path: str) -> os.statvfs_result:
        room = list(statvfs(path))
        room[5:8] = 0, 0, 0  # f_files, f_ffree, f_favail
        return os.statvfs_result(room)

    statvfs = os.statvfs
    monkeypatch.setattr(os, "statvfs", as_btrfs)
    store = FileStore(Config(upload_dir=folder, min_free_bytes=2 * 1024 * 1024), Clock())
    assert store.room().inodes is None
    store.check()
    store.stage().close()


def test_a_sweep_passes_over_what_is_in_use_and_says_nothing(
    shelf: Shelf, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = shelf.keep()
    shelf.clock.now += 3600
    arriving = shelf.store.stage()
    with (folder / image.id).open() as held, ThreadPoolExecutor(1) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            assert pool.submit(shelf.store.sweep).result(20) == Swept()
        finally:
            fcntl.flock(held, fcntl.LOCK_UN)
    assert caplog.text == ""
    assert len(shelf.store.sweep().expired) == 1
    arriving.close()


def test_a_sweep_that_saw_a_sidecar_without_its_picture_looks_again(
    shelf: Shelf, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = shelf.keep()
    with os.scandir(folder) as entries:
        seen = [entry for entry in entries if entry.name.endswith(".json")]
    monkeypatch.setattr(os, "scandir", lambda _: nullcontext(seen))
    assert shelf.store.sweep() == Swept()
    assert shelf.read(image.id) == b"picture"


def test_a_part_that_a_sweep_removed_before_it_was_locked_is_opened_again(
    shelf: Shelf, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, taken = fcntl.flock, list[Path]()

    def take_the_first(file: Any, operation: int) -> None:
        if not taken:
            taken.extend(folder.iterdir())
            taken[0].unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", take_the_first)
    shelf.keep()
    assert len(shelf.names()) == 2


def test_an_open_folder_is_made_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    FileStore(Config(upload_dir=tmp_path, min_free_bytes=0), Clock())
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_a_picture_without_room_for_its_sidecar_leaves_nothing(shelf: Shelf) -> None:
    staged = shelf.store.stage()
    staged.write(b"picture")
    with no_file_larger_than(10), pytest.raises(StoreFull):
        shelf.store.keep(staged, "image/png")
    staged.close()
    assert shelf.names() == []


def test_a_claim_that_finds_no_room_changes_nothing(shelf: Shelf) -> None:
    image = shelf.keep()
    with no_file_larger_than(10), pytest.raises(StoreFull):
        shelf.store.claim(image.id, TOKEN)
    assert shelf.names() == [image.id, f"{image.id}.json"]
    assert shelf.read(image.id, "the-token-of-two") == b"picture"


def test_a_record_that_finds_no_room_does_not_stop_the_sweep(shelf: Shelf, folder: Path) -> None:
    expired = {shelf.keep().id for _ in range(5)}
    shelf.clock.now += 2 * 3600
    ahead = shelf.keep()
    shelf.clock.now -= 3600
    with no_file_larger_than(10):
        swept = shelf.store.sweep()
    assert {image.id for image in swept.expired} == expired
    assert [failure.startswith(f"{ahead.id[:6]}... in {folder}: ") for failure in swept.failures] == [True]


def test_a_disk_that_takes_a_part_of_a_write_refuses_the_rest(shelf: Shelf) -> None:
    staged = shelf.store.stage()
    with no_file_larger_than(10), pytest.raises(StoreFull):
        staged.write(b"x" * 20)
    staged.close()


@needs("strace")
def test_a_pinned_picture_its_sidecar_and_their_folder_are_synced_before_it_returns(tmp_path: Path) -> None:
    script = (
        "import time; from pathlib import Path; from heroimg.config import Config;"
        "from heroimg.stores.files.store import FileStore; import sys;"
        "store = FileStore(Config(upload_dir=Path(sys.argv[1]), min_free_bytes=0), time.time);"
        "part = store.stage(); part.write(b'x'); image = store.keep(part, 'image/png'); part.close();"
        "store.pin(image.id, 0); store.claim(image.id, 16 * 'x').stream.close()"
    )
    server = Server(tmp_path, {})
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-y", "-e", "trace=fsync,rename,renameat", "-o", str(trace)]
    python = [*command, sys.executable, "-c", script, str(tmp_path / "pictures")]
    subprocess.run(python, env=server.environ, check=True)
    calls = [line.split(maxsplit=1)[1] for line in trace.read_text().splitlines() if str(tmp_path / "pictures") in line]
    assert ".part" in calls[0]
    names = [call.partition("(")[0].removesuffix("at") for call in calls]
    assert names == ["rename", "fsync", "fsync", "rename", "fsync", "fsync", "rename"]
    assert all(".new" in calls[number] for number in (2, 3, 5, 6))  # the sidecar never loses synced data
    assert calls[4].endswith("pictures>) = 0")


def test_a_note_that_changes_nothing_waits_for_the_folder_too(
    shelf: Shelf, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, synced = shelf.keep(), list[str]()
    monkeypatch.setattr("heroimg.stores.files.folder.sync_folder", synced.append)
    shelf.store.note(image.id, noted())
    assert synced == [str(folder)]
