"""Every operation of FileStore, and a test bench that interrupts an operation after each of its steps."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import pytest

from heroimg.config import Config
from heroimg.errors import ImageClaimed, ImageNotFound, StoreFull
from heroimg.stores.base import Swept
from heroimg.stores.files import sidecar
from heroimg.stores.files.store import FileStore
from heroimg.stores.image import StoredImage
from tests.helpers.store_shelf import HOUR, OTHER_TOKEN, START, TOKEN, Clock, noted
from tests.helpers.system_calls import Step, trace

BYTES = b"\xff\xd8\xff the picture in question" * 100  # begins like a JPEG
ALL_EXPIRED = START + 99 * HOUR  # when every picture here has expired
Seen = tuple[StoredImage, bytes]
Act = Callable[[FileStore, str], object]


@dataclass
class FolderShelf:
    """A folder with FileStore's folder in it, and a clock that moves only if it is set."""

    folder: Path
    clock: Clock = field(default_factory=Clock)

    @property
    def uploads(self) -> Path:
        return self.folder / "uploads"

    def open(self) -> FileStore:
        return FileStore(Config(upload_dir=self.uploads, min_free_bytes=0), self.clock)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.uploads.iterdir())

    def pictures(self, store: FileStore) -> list[Seen]:
        """List every picture in the store, whole or not."""
        pictures = []
        for name in sorted({name.partition(".")[0] for name in self.names()}):
            with suppress(ImageNotFound):
                pictures.append((store.get(name), (self.uploads / name).read_bytes()))
        return pictures


def keep(store: FileStore, content: bytes = BYTES) -> str:
    staged = store.stage()
    staged.write(content[:7])
    staged.write(content[7:])
    image = store.keep(staged, "image/png")
    staged.close()
    return image.id


def give_up(store: FileStore, _: str) -> None:
    staged = store.stage()
    staged.write(BYTES)
    staged.close()


def fail(act: Act) -> Callable[[FileStore, str], None]:
    """Act on a disk that has no room for a sidecar."""

    def act_without_room(store: FileStore, image_id: str) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
        with suppress(StoreFull):
            act(store, image_id)

    return act_without_room


def on_full_disk(act: Act) -> Callable[[FileStore, str], None]:
    """Act on a disk that has no room for another file."""

    def refuse_new_files(path: str, flags: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.open(path, flags)

    def act_on_full_disk(store: FileStore, image_id: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sidecar, "private_opener", refuse_new_files)
            act(store, image_id)

    return act_on_full_disk


def claim(store: FileStore, image_id: str) -> None:
    store.claim(image_id, TOKEN).stream.close()


def is_refused(act: Act) -> Callable[[FileStore, str], None]:
    def act_and_be_refused(store: FileStore, image_id: str) -> None:
        with pytest.raises(ImageClaimed):
            act(store, image_id)

    return act_and_be_refused


def empty(suffix: str) -> Act:
    """Leave a file of a picture empty, as after a power cut or a killed process."""
    return lambda store, image_id: Path(store._folder.path_of(image_id, suffix)).write_bytes(b"")


def sweep(store: FileStore, _: str) -> Swept:
    return store.sweep()


def nothing(_: FileStore, __: str) -> None:
    pass


@dataclass(frozen=True)
class Operation:
    """An operation on a picture, the operation before it, and the seconds between them."""

    name: str
    act: Act
    before: Act = nothing
    later: int = 1


OPERATIONS = [
    Operation("open", lambda store, _: FileStore(Config(upload_dir=store._folder._path, min_free_bytes=0), Clock())),
    Operation("stage, write, keep", lambda store, _: keep(store, b"another picture")),
    Operation("stage, write, close", give_up),
    Operation("keep without room", fail(lambda store, _: keep(store, BYTES + b"another")), later=1),
    Operation("get", lambda store, image_id: store.get(image_id)),
    Operation("held", lambda store, _: store.held()),
    Operation("check", lambda store, _: store.check()),
    Operation("claim", claim),
    Operation("claim again", claim, before=claim),
    Operation(
        "claim after another", lambda store, image_id: store.claim(image_id, OTHER_TOKEN), before=claim, later=300
    ),
    Operation("claim refused", is_refused(lambda store, image_id: store.claim(image_id, OTHER_TOKEN)), before=claim),
    Operation("claim without room", fail(claim)),
    Operation("claim on a full disk", on_full_disk(claim)),
    Operation("claim again on a full disk", on_full_disk(claim), before=on_full_disk(claim)),
    Operation("claim after changes on a full disk", claim, before=on_full_disk(claim)),
    Operation("renew", lambda store, image_id: store.renew(image_id, TOKEN), before=claim),
    Operation("release", lambda store, image_id: store.release(image_id, TOKEN), before=claim),
    Operation("pin", lambda store, image_id: store.pin(image_id, START + 2 * HOUR)),
    Operation("pin that changes nothing", lambda store, image_id: store.pin(image_id, START)),
    Operation("pin without room", fail(lambda store, image_id: store.pin(image_id, START + 2 * HOUR))),
    Operation("note", lambda store, image_id: store.note(image_id, noted(checkout_session="cs_test_1"))),
    Operation("note, complete", lambda store, image_id: store.note(image_id, noted(checkout_complete=True))),
    Operation("remove", lambda store, image_id: store.remove(image_id)),
    Operation("remove by its holder", lambda store, image_id: store.remove(image_id, TOKEN), before=claim),
    Operation("remove refused", is_refused(lambda store, image_id: store.remove(image_id, OTHER_TOKEN)), before=claim),
    Operation("claim over a leftover", claim, before=empty(".new")),
    Operation("remove over a leftover", lambda store, image_id: store.remove(image_id), before=empty(".new")),
    Operation("sweep of a leftover", sweep, before=empty(".new")),
    Operation("sweep", sweep),
    Operation("sweep of an empty sidecar", sweep, before=empty(".json")),
    Operation("sweep of an empty picture", sweep, before=empty(""), later=HOUR),
    Operation("sweep of an expired one", sweep, later=HOUR),
    Operation("sweep of an expired claim", sweep, before=claim, later=HOUR),
]


@dataclass
class Tally:
    """The numbers of tries and of faults, and a description of each fault."""

    name: str
    steps: int = 0
    states: int = 0
    lost: int = 0
    half: int = 0
    leftovers: int = 0
    faults: list[str] = field(default_factory=list)

    def note(self, fault: str, **counted: int) -> None:
        self.faults.append(fault)
        for name, number in counted.items():
            setattr(self, name, getattr(self, name) + number)

    def row(self) -> str:
        numbers = (self.steps, self.states, self.lost, self.half, self.leftovers)
        return f"| {self.name:<40} |" + "".join(f" {number:>9} |" for number in numbers)


def names_of(pictures: list[Seen]) -> list[str]:
    return sorted(image.id + suffix for image, _ in pictures for suffix in ("", ".json"))


def anonymous(pictures: list[Seen]) -> list[Seen]:
    """Leave out the ids, which differ each time that a picture is kept."""
    return sorted(((replace(image, id=""), content) for image, content in pictures), key=repr)


@dataclass
class Bench:
    """Repeats one operation, each time in a new folder with the same other pictures."""

    folder: Path
    operation: Operation
    tally: Tally
    numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.start = FolderShelf(self.folder / "start")
        store = self.start.open()
        self.image_id = keep(store)
        others: list[Act] = [
            nothing,
            claim,
            lambda store, image_id: store.note(image_id, noted(checkout_session="cs_test")),
        ]
        for number, act in enumerate(others):
            other = keep(store, b"others" * number)
            store.pin(other, START + 9 * HOUR)
            act(store, other)
        self.operation.before(store, self.image_id)
        self.start.clock.now += self.operation.later

    def copy(self, shelf: FolderShelf) -> FolderShelf:
        folder = self.folder / str(next(self.numbers))
        shutil.copytree(shelf.folder, folder)
        return FolderShelf(folder, Clock(shelf.clock.now))

    def run(self, shelf: FolderShelf, act: Act, end_after: int | None = None) -> list[Step]:
        store = shelf.open()
        return trace(shelf.folder, lambda: act(store, self.image_id), end_after=end_after)

    def interrupt_everywhere(self) -> None:
        act, done = self.operation.act, self.copy(self.start)
        steps = self.run(done, act)
        outcomes = [shelf.pictures(shelf.open()) for shelf in (self.start, done)]
        if done.names() != names_of(outcomes[1]):
            self.tally.note(f"completed, it leaves {done.names()}", leftovers=1)
        self.examine(done, outcomes[1:], "done")
        swept = set[tuple[tuple[str, int], ...]]()
        for number in range(1, len(steps) + 1):
            crashed = self.copy(self.start)
            self.run(crashed, act, number)
            self.tally.steps += 1
            kind = tuple(sorted((path.suffix, path.stat().st_size) for path in crashed.uploads.iterdir()))
            if kind not in swept:
                swept.add(kind)
                self.interrupt_sweep(crashed, outcomes, f"after step {number}")
            self.examine(crashed, outcomes, f"after step {number}")

    def interrupt_sweep(self, crashed: FolderShelf, outcomes: list[list[Seen]], when: str) -> None:
        """Interrupt the sweep that removes the leftovers of an interrupted operation."""
        for number in range(1, len(self.run(self.copy(crashed), sweep)) + 1):
            again = self.copy(crashed)
            self.run(again, sweep, number)
            self.tally.steps += 1
            self.examine(again, outcomes, f"{when}, and after step {number} of the sweep")

    def examine(self, shelf: FolderShelf, outcomes: list[list[Seen]], when: str) -> None:
        """Check that each picture is as before or after the operation, and that a sweep leaves nothing else."""
        self.tally.states += 1
        store = shelf.open()
        pictures = shelf.pictures(store)
        if anonymous(pictures) not in map(anonymous, outcomes):
            is_lost = len(pictures) < min(map(len, outcomes))
            self.tally.note(f"{when}: {pictures}", lost=is_lost, half=not is_lost)
        if store.sweep().expired and shelf.clock.now < START + HOUR:
            self.tally.note(f"{when}: a sweep removed an unexpired picture", lost=1)
        if shelf.names() != names_of(pictures) or shelf.pictures(store) != pictures:
            self.tally.note(f"{when}: a sweep leaves {shelf.names()} for {pictures}", leftovers=1)
        if store.held().images != len(pictures):
            self.tally.note(f"{when}: held counts {store.held()} for {pictures}")
        for image, content in pictures:
            _, stream = store.claim(image.id, image.claim.token if image.claim else TOKEN)
            with stream:
                if stream.read() != content:
                    self.tally.note(f"{when}: other bytes", half=1)
        shelf.clock.now = ALL_EXPIRED
        store.sweep()
        if shelf.names():
            self.tally.note(f"{when}: after all have expired, a sweep leaves {shelf.names()}", leftovers=1)
