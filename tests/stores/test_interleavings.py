"""Two processes on one FileStore, interleaved at every system call: the result is as if one had followed the other.

The first process is stopped after each of its system calls, as in test_crash_points.py. The second then runs its whole
operation, unless it would have to wait for a lock that the first one holds. Then the first continues.
"""

from __future__ import annotations

import fcntl
from itertools import count
from pathlib import Path

import pytest

from heroimg.errors import ImageClaimed, ImageNotFound
from heroimg.stores.base import Swept
from heroimg.stores.files.store import FileStore
from tests.helpers.interrupted_store import (
    OPERATIONS,
    Act,
    Bench,
    FolderShelf,
    Operation,
    Tally,
    anonymous,
    names_of,
)
from tests.helpers.store_shelf import OTHER_TOKEN
from tests.helpers.system_calls import needs_ptrace, trace

pytestmark = [needs_ptrace, pytest.mark.proof]

# A sweep does not wait for locks. It skips a locked picture and does not count it.
SWEEP = Operation("sweep", lambda store, _: str(store.sweep()))
PAIRS = [
    (first, second)
    for first in OPERATIONS
    if first.name in ("claim", "pin", "remove", "sweep of an expired one")
    for second in (
        Operation("claim by another", lambda store, image_id: store.claim(image_id, OTHER_TOKEN).stream.close()),
        Operation("remove", lambda store, image_id: store.remove(image_id)),
        SWEEP,
    )
]
PAIRS += [(first, SWEEP) for first in OPERATIONS if first.name == "stage, write, keep"]


class Interruption:
    """An operation that runs while another process is stopped after a system call, if it need not wait."""

    def __init__(self, bench: Bench, shelf: FolderShelf, act: Act, number: int) -> None:
        self.picture, self.number, self.calls = shelf.uploads / bench.image_id, number, 0
        self.act, self.store, self.image_id, self.answer = act, shelf.open(), bench.image_id, "not asked"

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.number and (self.act is SWEEP.act or not is_locked(self.picture)):
            self.answer = answer(self.act, self.store, self.image_id)


def is_locked(picture: Path) -> bool:
    try:
        with picture.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def answer(act: Act, store: FileStore, image_id: str) -> str:
    try:
        result = act(store, image_id)
    except (ImageNotFound, ImageClaimed) as error:
        return type(error).__name__
    return repr(result) if isinstance(result, Swept) else "" if isinstance(result, str) else repr(result is None)


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda operation: operation.name)
def test_two_interleaved_operations_have_the_result_of_one_after_the_other(
    first: Operation, second: Operation, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, first, Tally(first.name))
    (nowhere := tmp_path / "nowhere").mkdir()

    def outcome(shelf: FolderShelf, answers: tuple[str, str]) -> tuple[object, ...]:
        store = shelf.open()
        store.sweep()
        pictures = shelf.pictures(store)
        assert shelf.names() == names_of(pictures)
        return (*answers, anonymous(pictures))

    one, other = bench.copy(bench.start), bench.copy(bench.start)
    done = answer(first.act, one.open(), bench.image_id)
    one_first = outcome(one, (done, answer(second.act, one.open(), bench.image_id)))
    done = answer(second.act, other.open(), bench.image_id)
    other_first = outcome(other, (answer(first.act, other.open(), bench.image_id), done))
    for number in count(1):
        shelf = bench.copy(bench.start)
        interruption = Interruption(bench, shelf, second.act, number)
        store, first_answer = shelf.open(), shelf.folder / "answer"
        trace(
            nowhere,
            lambda: first_answer.write_text(answer(first.act, store, bench.image_id)),  # noqa: B023
            meanwhile=interruption,
        )
        if interruption.calls < number:
            break
        if interruption.answer != "not asked":
            assert outcome(shelf, (first_answer.read_text(), interruption.answer)) in (one_first, other_first), number
