"""FileStore ended by SIGKILL after every step of every operation, and the power cut at every step around a pin.

pytest tests/stores/test_crash_points.py -s     # shows how many steps and states that were, as docs/proof.md has them
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path

import pytest

from heroimg.config import Config
from heroimg.errors import ImageClaimed, ImageNotFound, StoreFull
from heroimg.stores.base import StoredImage, Swept
from heroimg.stores.files.store import FileStore
from tests.helpers.power_cuts import Disk, State
from tests.helpers.store_shelf import CLAIM, HOUR, OTHER, START, Clock
from tests.helpers.system_calls import Step, needs_ptrace, trace

pytestmark = [needs_ptrace, pytest.mark.proof]

BYTES = b"the picture in question" * 100
END = START + 99 * HOUR  # when the time of every picture here is over
Seen = tuple[StoredImage, bytes]
Act = Callable[[FileStore, str], object]


@dataclass
class Shelf:
    """A folder with FileStore's folder in it, and a clock that stands unless it is set."""

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
        """See every picture that the store has, whole or not."""
        found = []
        for name in sorted({name.partition(".")[0] for name in self.names()}):
            with suppress(ImageNotFound):
                found.append((store.get(name), (self.uploads / name).read_bytes()))
        return found


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
    """Do something on a disk that has no room for a sidecar."""

    def act_without_room(store: FileStore, image_id: str) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
        with suppress(StoreFull):
            act(store, image_id)

    return act_without_room


def claim(store: FileStore, image_id: str) -> None:
    store.claim(image_id, CLAIM).stream.close()


def is_refused(act: Act) -> Callable[[FileStore, str], None]:
    def act_and_be_refused(store: FileStore, image_id: str) -> None:
        with pytest.raises(ImageClaimed):
            act(store, image_id)

    return act_and_be_refused


def empty(suffix: str) -> Act:
    """Leave a file of a picture empty, as a power cut or an end in the middle may."""
    return lambda store, image_id: Path(store._folder.path_of(image_id, suffix)).write_bytes(b"")


def sweep(store: FileStore, _: str) -> Swept:
    return store.sweep()


def nothing(_: FileStore, __: str) -> None:
    pass


@dataclass(frozen=True)
class Operation:
    """Something that a store does with a picture, what was done with that before, and how many seconds before."""

    name: str
    act: Act
    before: Act = nothing
    later: int = 1


OPERATIONS = [
    Operation("open", lambda store, _: FileStore(Config(upload_dir=store._folder._path, min_free_bytes=0), Clock())),
    Operation("stage, write, keep", lambda store, _: keep(store, b"another picture")),
    Operation("stage, write, close", give_up),
    Operation("keep without room", fail(lambda store, _: keep(store, b"another")), later=1),
    Operation("get", lambda store, image_id: store.get(image_id)),
    Operation("held", lambda store, _: store.held()),
    Operation("check", lambda store, _: store.check()),
    Operation("claim", claim),
    Operation("claim anew", claim, before=claim),
    Operation("claim after another", lambda store, image_id: store.claim(image_id, OTHER), before=claim, later=300),
    Operation("claim refused", is_refused(lambda store, image_id: store.claim(image_id, OTHER)), before=claim),
    Operation("claim without room", fail(claim)),
    Operation("renew", lambda store, image_id: store.renew(image_id, CLAIM), before=claim),
    Operation("release", lambda store, image_id: store.release(image_id, CLAIM), before=claim),
    Operation("pin", lambda store, image_id: store.pin(image_id, START + 2 * HOUR)),
    Operation("pin that changes nothing", lambda store, image_id: store.pin(image_id, START)),
    Operation("pin without room", fail(lambda store, image_id: store.pin(image_id, START + 2 * HOUR))),
    Operation("note_checkout", lambda store, image_id: store.note_checkout(image_id, "cs_test_1")),
    Operation("note_checkout, complete", lambda store, image_id: store.note_checkout(image_id, complete=True)),
    Operation("remove", lambda store, image_id: store.remove(image_id)),
    Operation("remove by its holder", lambda store, image_id: store.remove(image_id, CLAIM), before=claim),
    Operation("remove refused", is_refused(lambda store, image_id: store.remove(image_id, OTHER)), before=claim),
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
    """What was tried, and what was wrong: counted, and in words."""

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


@pytest.fixture(scope="module")
def tallies() -> Iterator[list[Tally]]:
    found = list[Tally]()
    yield found
    total = Tally("all of them")
    headings = ("steps", "states", "lost", "half", "leftovers")
    for name in headings:
        setattr(total, name, sum(getattr(tally, name) for tally in found))
    print(f"\n\n| {'operation':<40} |" + "".join(f" {heading:>9} |" for heading in headings))
    print(f"|{'-' * 42}|" + 5 * "----------:|")
    print(*(tally.row() for tally in [*found, total]), sep="\n")


def names_of(pictures: list[Seen]) -> list[str]:
    return sorted(image.id + suffix for image, _ in pictures for suffix in ("", ".json"))


def anonymous(pictures: list[Seen]) -> list[Seen]:
    """Leave out the ids, which differ each time that a picture is kept."""
    return sorted(((replace(image, id=""), content) for image, content in pictures), key=repr)


@dataclass
class Bench:
    """Where one operation is done again and again, each time beside the same other pictures."""

    folder: Path
    operation: Operation
    tally: Tally
    numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.start = Shelf(self.folder / "start")
        store = self.start.open()
        self.image_id = keep(store)
        others: list[Act] = [nothing, claim, lambda store, image_id: store.note_checkout(image_id, "cs_test")]
        for number, act in enumerate(others):
            other = keep(store, b"others" * number)
            store.pin(other, START + 9 * HOUR)
            act(store, other)
        self.operation.before(store, self.image_id)
        self.start.clock.now += self.operation.later

    def copy(self, shelf: Shelf) -> Shelf:
        folder = self.folder / str(next(self.numbers))
        shutil.copytree(shelf.folder, folder)
        return Shelf(folder, Clock(shelf.clock.now))

    def run(self, shelf: Shelf, act: Act, end_after: int | None = None) -> list[Step]:
        store = shelf.open()
        return trace(shelf.folder, lambda: act(store, self.image_id), end_after=end_after)

    def interrupt_everywhere(self) -> None:
        act, done = self.operation.act, self.copy(self.start)
        steps = self.run(done, act)
        outcomes = [shelf.pictures(shelf.open()) for shelf in (self.start, done)]
        if done.names() != names_of(outcomes[1]):
            self.tally.note(f"done, it leaves {done.names()}", leftovers=1)
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

    def interrupt_sweep(self, crashed: Shelf, outcomes: list[list[Seen]], when: str) -> None:
        """Interrupt the sweep that clears away what an interrupted operation left."""
        for number in range(1, len(self.run(self.copy(crashed), sweep)) + 1):
            again = self.copy(crashed)
            self.run(again, sweep, number)
            self.tally.steps += 1
            self.examine(again, outcomes, f"{when}, and after step {number} of the sweep")

    def examine(self, shelf: Shelf, outcomes: list[list[Seen]], when: str) -> None:
        """Look whether every picture is as it was before the operation or as it is after, and what a sweep leaves."""
        self.tally.states += 1
        store = shelf.open()
        found = shelf.pictures(store)
        if anonymous(found) not in map(anonymous, outcomes):
            is_lost = len(found) < min(map(len, outcomes))
            self.tally.note(f"{when}: {found}", lost=is_lost, half=not is_lost)
        if store.sweep().expired and shelf.clock.now < START + HOUR:
            self.tally.note(f"{when}: swept what has not expired", lost=1)
        if shelf.names() != names_of(found) or shelf.pictures(store) != found:
            self.tally.note(f"{when}: a sweep leaves {shelf.names()} for {found}", leftovers=1)
        if store.held().images != len(found):
            self.tally.note(f"{when}: held counts {store.held()} for {found}")
        for image, content in found:
            _, stream = store.claim(image.id, image.claim.token if image.claim else CLAIM)
            with stream:
                if stream.read() != content:
                    self.tally.note(f"{when}: other bytes", half=1)
        shelf.clock.now = END
        store.sweep()
        if shelf.names():
            self.tally.note(f"{when}: once all have expired a sweep leaves {shelf.names()}", leftovers=1)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_ended_after_any_step_every_picture_is_whole_or_absent_and_one_sweep_leaves_nothing_else(
    operation: Operation, tmp_path: Path, tallies: list[Tally]
) -> None:
    tallies.append(tally := Tally(operation.name))
    Bench(tmp_path, operation, tally).interrupt_everywhere()
    assert tally.faults == []


# Power cuts


@dataclass(frozen=True)
class Story:
    """What is done after a pin, and what is true of it from the moment it is done.

    :param is_safe: no power cut undoes it.
    :param is_end: the picture may be gone.
    """

    name: str
    act: Act
    before: Act = nothing
    is_safe: bool = False
    is_end: bool = False


UPLOAD = Story("power cut about an upload", nothing, is_end=True)
REMOVAL = Story("power cut about remove", lambda store, image_id: store.remove(image_id), is_end=True)
STORIES = [
    Story("power cut after pin", nothing),
    Story("power cut about get", lambda store, image_id: store.get(image_id)),
    Story("power cut about held", lambda store, _: store.held()),
    Story("power cut about check", lambda store, _: store.check()),
    Story("power cut about sweep", sweep),
    Story("power cut about keep of another", lambda store, _: keep(store, b"another")),
    Story("power cut about claim", claim),
    Story("power cut about claim anew", claim, before=claim),
    Story("power cut about claim without room", fail(claim)),
    Story("power cut about renew", lambda store, image_id: store.renew(image_id, CLAIM), before=claim),
    Story("power cut about release", lambda store, image_id: store.release(image_id, CLAIM), before=claim),
    Story("power cut about note_checkout", lambda store, image_id: store.note_checkout(image_id, "cs_1"), is_safe=True),
    Story(
        "power cut about note_checkout, complete",
        lambda store, image_id: store.note_checkout(image_id, complete=True),
        before=lambda store, image_id: store.note_checkout(image_id, "cs_1"),
        is_safe=True,
    ),
    Story("power cut about pin again", lambda store, image_id: store.pin(image_id, START + 3 * HOUR), is_safe=True),
    REMOVAL,
    Story(
        "power cut about remove by holder", lambda store, image_id: store.remove(image_id, CLAIM), claim, is_end=True
    ),
]


class Cuts:
    """A story told once, by a process that is stopped at every step, and everything that a power cut may leave of it.

    :ivar found: for each state of the disk, the story's picture if it is there when the store is opened anew.
    """

    def __init__(self, story: Story, folder: Path, tally: Tally) -> None:
        self.story, self.tally, self.folder, self.numbers = story, tally, folder, count()
        self.steps = self.tell(Shelf(folder / "told"))
        self.image_id = (self.steps[-1].look["kept"].content or b"").decode()
        self.found = list[Seen | None]()
        # What there was without a power cut: after one there is nothing else, and never a half of it.
        restored = [self.restore(_as_it_is(step)) for step in self.steps]
        really = [shelf.pictures(shelf.open()) for shelf in restored]
        self.whole, self.last = list(chain(*really)), really[-1]

    def tell(self, shelf: Shelf) -> list[Step]:
        def act() -> None:
            store = shelf.open()
            image_id = keep(store)
            if self.story is not UPLOAD:
                store.pin(image_id, START + 2 * HOUR)
            self.story.before(store, image_id)
            (shelf.folder / "kept").write_text(image_id)  # how the parent learns how far this is
            self.story.act(store, image_id)
            (shelf.folder / "done").touch()

        shelf.folder.mkdir()
        return trace(shelf.folder, act)

    def restore(self, state: State) -> Shelf:
        shelf = Shelf(self.folder / str(next(self.numbers)))
        shelf.uploads.mkdir(parents=True)
        for path, content, modified in state:
            if content is not None:
                (shelf.folder / path).write_bytes(content)
                os.utime(shelf.folder / path, (modified, modified))
        return shelf

    def cut_everywhere(self) -> None:
        disk, examined = Disk(), set[tuple[State, bool]]()
        for number, step in enumerate(self.steps):
            disk.follow(_without_signs(step))
            is_begun, is_done = bool(_content(step, "kept")), "done" in step.look
            if not is_begun and self.story is not UPLOAD:
                continue
            self.tally.steps += 1
            for state in disk.states():
                if (state, is_done) not in examined:
                    examined.add((state, is_done))
                    self.examine(state, f"at step {number}", is_done=is_done)

    def examine(self, state: State, when: str, *, is_done: bool) -> None:
        self.tally.states += 1
        shelf = self.restore(state)
        store = shelf.open()
        found = shelf.pictures(store)
        mine = next((seen for seen in found if seen[0].id == self.image_id), None)
        self.found.append(mine)
        if any(seen not in self.whole for seen in found):
            self.tally.note(f"{when}: {found}", half=1)
        if mine is None and not self.story.is_end:
            self.tally.note(f"{when}: lost in {state}", lost=1)
        if mine and self.story is not UPLOAD and mine[0].expires < START + 2 * HOUR:
            self.tally.note(f"{when}: the pin is undone in {state}", lost=1)
        if self.story.is_safe and is_done and mine not in self.last:
            self.tally.note(f"{when}: undone in {state}", lost=1)
        store.sweep()
        if shelf.pictures(store) != found:
            self.tally.note(f"{when}: swept what has not expired from {state}", lost=1)
        shelf.clock.now = END
        store.sweep()
        if shelf.names():
            self.tally.note(f"{when}: once all have expired a sweep leaves {shelf.names()}", leftovers=1)


def _content(step: Step, path: str) -> bytes | None:
    return step.look[path].content if path in step.look else None


def _without_signs(step: Step) -> Step:
    return Step({path: entry for path, entry in step.look.items() if path not in ("kept", "done")}, step.synced)


def _as_it_is(step: Step) -> State:
    look = _without_signs(step).look
    return frozenset((path, entry.content, entry.modified) for path, entry in look.items() if path != ".")


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_a_power_cut_leaves_a_pinned_picture_whole_until_its_pinned_time_or_until_it_is_removed(
    story: Story, tmp_path: Path, tallies: list[Tally]
) -> None:
    tallies.append(tally := Tally(story.name))
    Cuts(story, tmp_path, tally).cut_everywhere()
    assert tally.faults == []


def test_a_power_cut_may_take_a_picture_that_was_never_pinned_and_leaves_no_half_of_it(
    tmp_path: Path, tallies: list[Tally]
) -> None:
    tallies.append(tally := Tally(UPLOAD.name))
    cuts = Cuts(UPLOAD, tmp_path, tally)
    cuts.cut_everywhere()
    assert tally.faults == []
    assert None in cuts.found


def test_a_power_cut_may_bring_back_a_picture_that_was_removed_and_then_it_is_whole(tmp_path: Path) -> None:
    cuts = Cuts(REMOVAL, tmp_path, tally := Tally(REMOVAL.name))
    cuts.cut_everywhere()
    assert tally.faults == []
    assert {seen and seen[1] for seen in cuts.found} == {None, BYTES}
