"""FileStore killed after every step of every operation, and a power cut at every step around a pin.

pytest tests/stores/test_crash_points.py -s     # prints the number of steps and states
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import pytest

from tests.helpers.interrupted_store import (
    ALL_EXPIRED,
    BYTES,
    OPERATIONS,
    Act,
    Bench,
    FolderShelf,
    Operation,
    Seen,
    Tally,
    claim,
    fail,
    keep,
    nothing,
    on_full_disk,
    sweep,
)
from tests.helpers.power_cuts import Disk, State
from tests.helpers.store_shelf import HOUR, START, TOKEN, noted
from tests.helpers.system_calls import Step, needs_ptrace, trace

pytestmark = [needs_ptrace, pytest.mark.proof]


@pytest.fixture(scope="module")
def tallies() -> Iterator[list[Tally]]:
    tallied = list[Tally]()
    yield tallied
    total = Tally("all of them")
    headings = ("steps", "states", "lost", "half", "leftovers")
    for name in headings:
        setattr(total, name, sum(getattr(tally, name) for tally in tallied))
    print(f"\n\n| {'operation':<40} |" + "".join(f" {heading:>9} |" for heading in headings))
    print(f"|{'-' * 42}|" + 5 * "----------:|")
    print(*(tally.row() for tally in [*tallied, total]), sep="\n")


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
    """An operation after a pin, and the effects that a power cut may have.

    :param is_safe: once the operation has returned, no power cut undoes it.
    :param is_end: the picture may be gone after a power cut.
    """

    name: str
    act: Act
    before: Act = nothing
    is_safe: bool = False
    is_end: bool = False


UPLOAD_STORY = Story("power cut during an upload", nothing, is_end=True)
REMOVAL_STORY = Story("power cut during remove", lambda store, image_id: store.remove(image_id), is_end=True)
STORIES = [
    Story("power cut after pin", nothing),
    Story("power cut during get", lambda store, image_id: store.get(image_id)),
    Story("power cut during held", lambda store, _: store.held()),
    Story("power cut during check", lambda store, _: store.check()),
    Story("power cut during sweep", sweep),
    Story("power cut during keep of another", lambda store, _: keep(store, BYTES + b"another")),
    Story("power cut during claim", claim),
    Story("power cut during claim again", claim, before=claim),
    Story("power cut during claim without room", fail(claim)),
    Story("power cut during claim on a full disk", on_full_disk(claim)),
    Story("power cut during claim again on a full disk", on_full_disk(claim), before=on_full_disk(claim)),
    Story("power cut during claim after changes on a full disk", claim, before=on_full_disk(claim)),
    Story(
        "power cut during pin on a full disk",
        on_full_disk(lambda store, image_id: store.pin(image_id, START + 3 * HOUR)),
        before=on_full_disk(claim),
        is_safe=True,
    ),
    Story(
        "power cut during note on a full disk",
        on_full_disk(lambda store, image_id: store.note(image_id, noted(checkout_session="cs_2"))),
        before=on_full_disk(claim),
        is_safe=True,
    ),
    Story("power cut during renew", lambda store, image_id: store.renew(image_id, TOKEN), before=claim),
    Story("power cut during release", lambda store, image_id: store.release(image_id, TOKEN), before=claim),
    Story(
        "power cut during note",
        lambda store, image_id: store.note(image_id, noted(checkout_session="cs_1")),
        is_safe=True,
    ),
    Story(
        "power cut during note, complete",
        lambda store, image_id: store.note(image_id, noted(checkout_complete=True)),
        before=lambda store, image_id: store.note(image_id, noted(checkout_session="cs_1")),
        is_safe=True,
    ),
    Story("power cut during pin again", lambda store, image_id: store.pin(image_id, START + 3 * HOUR), is_safe=True),
    REMOVAL_STORY,
    Story(
        "power cut during remove by holder", lambda store, image_id: store.remove(image_id, TOKEN), claim, is_end=True
    ),
]


class Cuts:
    """Runs a story once, stopped at every step, and examines every state that a power cut may leave.

    :ivar survivors: for each state of the disk, the story's picture if it is there when the store is opened again.
    """

    def __init__(self, story: Story, folder: Path, tally: Tally) -> None:
        self.story, self.tally, self.folder, self.numbers = story, tally, folder, count()
        self.steps = self.record(FolderShelf(folder / "recorded"))
        self.image_id = (self.steps[-1].look["kept"].content or b"").decode()
        self.survivors = list[Seen | None]()
        # The pictures after each step. A power cut leaves no other picture, and no half picture.
        restored = [self.restore(_as_it_is(step)) for step in self.steps]
        really = [shelf.pictures(shelf.open()) for shelf in restored]
        self.whole, self.last = list(chain(*really)), really[-1]

    def record(self, shelf: FolderShelf) -> list[Step]:
        def act() -> None:
            store = shelf.open()
            image_id = keep(store)
            if self.story is not UPLOAD_STORY:
                store.pin(image_id, START + 2 * HOUR)
            self.story.before(store, image_id)
            (shelf.folder / "kept").write_text(image_id)  # marks the step at which the operation begins
            self.story.act(store, image_id)
            (shelf.folder / "done").touch()

        shelf.folder.mkdir()
        return trace(shelf.folder, act)

    def restore(self, state: State) -> FolderShelf:
        shelf = FolderShelf(self.folder / str(next(self.numbers)))
        shelf.uploads.mkdir(parents=True)
        for path, content, modified in state:
            if content is not None:
                (shelf.folder / path).write_bytes(content)
                (shelf.folder / path).chmod(0o600)
                os.utime(shelf.folder / path, (modified, modified))
        return shelf

    def cut_everywhere(self) -> None:
        disk, examined = Disk(), set[tuple[State, bool]]()
        for number, step in enumerate(self.steps):
            disk.follow(_without_signs(step))
            is_begun, is_done = bool(_content(step, "kept")), "done" in step.look
            if not is_begun and self.story is not UPLOAD_STORY:
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
        pictures = shelf.pictures(store)
        mine = next((seen for seen in pictures if seen[0].id == self.image_id), None)
        self.survivors.append(mine)
        if any(seen not in self.whole for seen in pictures):
            self.tally.note(f"{when}: {pictures}", half=1)
        if mine is None and not self.story.is_end:
            self.tally.note(f"{when}: lost in {state}", lost=1)
        if mine and self.story is not UPLOAD_STORY and mine[0].expires < START + 2 * HOUR:
            self.tally.note(f"{when}: the pin is undone in {state}", lost=1)
        if self.story.is_safe and is_done and mine not in self.last:
            self.tally.note(f"{when}: undone in {state}", lost=1)
        store.sweep()
        if shelf.pictures(store) != pictures:
            self.tally.note(f"{when}: a sweep removed an unexpired picture from {state}", lost=1)
        shelf.clock.now = ALL_EXPIRED
        store.sweep()
        if shelf.names():
            self.tally.note(f"{when}: after all have expired, a sweep leaves {shelf.names()}", leftovers=1)


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
    tallies.append(tally := Tally(UPLOAD_STORY.name))
    cuts = Cuts(UPLOAD_STORY, tmp_path, tally)
    cuts.cut_everywhere()
    assert tally.faults == []
    assert None in cuts.survivors


def test_a_power_cut_may_bring_back_a_picture_that_was_removed_and_then_it_is_whole(tmp_path: Path) -> None:
    cuts = Cuts(REMOVAL_STORY, tmp_path, tally := Tally(REMOVAL_STORY.name))
    cuts.cut_everywhere()
    assert tally.faults == []
    assert {seen and seen[1] for seen in cuts.survivors} == {None, BYTES}
