"""Random sequences of all store operations, against a model of the contract in heroimg/stores/base.py.

The suite runs the same sequences each time. To run others for minutes, and print the number of steps:

    pytest tests/stores/test_model.py -s --timeout=0 --hypothesis-profile=long --hypothesis-seed=1
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from heroimg.errors import HeroimgError, ImageClaimed, ImageNotFound
from heroimg.stores.base import Held, Staged
from heroimg.stores.image import Claim, StoredImage
from heroimg.stores.redis.blocks import BLOCK_BYTES
from heroimg.stores.redis.store import RedisStore
from tests.helpers.store_shelf import HOUR, UNKNOWN, Clock, Shelf, noted
from tests.helpers.stores import STORES

pytestmark = pytest.mark.timeout(900)  # a sequence that fails is made shorter before it is shown

CLAIM_SECONDS = 300
IS_LONG = settings.get_current_profile_name() == "long"
SETTINGS = (
    settings() if IS_LONG else settings(derandomize=True, deadline=None, max_examples=100, stateful_step_count=25)
)

# Drawn by name, because Hypothesis records every value that it draws, and recording a megabyte is slow.
CONTENTS = {"none": b"", "some": b"one picture", "more": b"another\0\xff" * 1000, "blocks": b"x" * (BLOCK_BYTES + 1)}
WRONG_IDS = [UNKNOWN, "", "..", "x" * 32, UNKNOWN + "\n", UNKNOWN.upper(), f"{UNKNOWN}.json"]
SESSIONS = st.sampled_from(["cs_test_1", "cs_test_2"])
ONE = st.sampled_from([0, 0, 0, 1, 1, 2] * 15 + WRONG_IDS)  # the youngest picture, or one before it, or none
NEAR = st.sampled_from([0, -1, 1])
COMING = st.fixed_dictionaries(
    {
        "one": ONE,
        "when": st.sampled_from(["now", "lapse", "lapse", "expiry"]),
        "near": NEAR,
        "who": st.sampled_from(["the last", "another", "the last", "another", "nobody"]),
        "verb": st.sampled_from(["claim", "claim", "release", "renew", "remove"]),
    }
)
TOKENS = ["the-token-of-one", "-" * 64]
AHEAD = st.sampled_from([0, 1, HOUR])


class StoreModel:
    """A model of the contract. `kept` has each picture with its last claim, until it is removed or swept."""

    def __init__(self, clock: Clock) -> None:
        self.kept = dict[str, StoredImage]()
        self.clock = clock

    @property
    def now(self) -> int:
        return int(self.clock.now)

    def seen(self, image: StoredImage) -> StoredImage:
        is_held = image.claim is not None and image.claim.until > self.now
        return replace(image, claim=image.claim if is_held else None, claim_lapsed=bool(image.claim) and not is_held)

    def get(self, image_id: str, token: str | None = None, *, by_anybody: bool = True) -> StoredImage:
        if image_id not in self.kept or self.kept[image_id].expires <= self.now:
            raise ImageNotFound
        image = self.seen(self.kept[image_id])
        if image.claim and not by_anybody and image.claim.token != token:
            raise ImageClaimed(retry_after=image.claim.until - self.now)
        return image

    def change(self, before: StoredImage, **changes: Any) -> StoredImage:
        self.kept[before.id] = replace(self.kept[before.id], **changes)
        return before

    def pin(self, image_id: str, until: int, renewed: int) -> StoredImage:
        if (image := self.get(image_id)).expires < until:
            self.change(image, expires=max(until, renewed))
        return self.get(image_id)

    def note(self, image_id: str, change: Callable[[StoredImage], StoredImage]) -> tuple[StoredImage, StoredImage]:
        before = self.get(image_id)
        after = change(before)
        self.change(before, **{name: getattr(after, name) for name in after.checkout_fields()})
        return before, after

    def claim(self, image_id: str, token: str) -> StoredImage:
        image = self.get(image_id, token, by_anybody=False)
        return self.change(image, claim=Claim(token, self.now + CLAIM_SECONDS))

    def renew(self, image_id: str, token: str) -> None:
        image = self.get(image_id, token, by_anybody=False)
        last = self.kept[image_id].claim
        if last is None or last.token != token:
            raise ImageNotFound
        self.change(image, claim=Claim(token, self.now + CLAIM_SECONDS))

    def release(self, image_id: str, token: str) -> None:
        with suppress(ImageNotFound):
            if (image := self.get(image_id)).claim and image.claim.token == token:
                self.change(image, claim=None)

    def remove(self, image_id: str, token: str | None = None) -> StoredImage | None:
        with suppress(ImageNotFound):
            image = self.get(image_id, token, by_anybody=False)
            del self.kept[image_id]
            return image
        return None

    def sweep(self) -> list[StoredImage]:
        over = [self.seen(self.kept.pop(image.id)) for image in [*self.kept.values()] if image.expires <= self.now]
        return sorted(over, key=lambda image: image.id)

    def held(self) -> Held:
        there = [image for image in self.kept.values() if image.expires > self.now]
        return Held(
            len(there), sum(image.size for image in there), min((image.stored for image in there), default=None)
        )


def answer(call: Callable[[], Any]) -> Any:
    """Return the result of a call; or the class of our error that it raises, and its seconds to wait."""
    try:
        return call()
    except HeroimgError as error:
        return type(error), error.retry_after


class Sequence(RuleBasedStateMachine):
    """Runs the same operations on a store and on the model; every answer must be the same."""

    steps = 0

    def __init__(self, shelf: Shelf) -> None:
        super().__init__()
        self.shelf, self.store, self.clock = shelf, shelf.store, shelf.clock
        self.model = StoreModel(shelf.clock)
        self.is_redis = isinstance(shelf.store, RedisStore)
        self.contents = dict[str, bytes]()
        self.arriving = list[tuple[Staged, bytes]]()
        self.streams = list[tuple[BinaryIO, bytes]]()

    def an_id(self, one: int | str) -> str:
        """Return an invalid id unchanged; for a number, return the id of a recent picture. Two are always held."""
        if isinstance(one, str):
            return one
        while self.model.held().images < 2:
            self.stage(sorted(CONTENTS)[len(self.contents) % len(CONTENTS)])
            self.keep("image/png")
        return [UNKNOWN, *self.model.kept][-1 - one]

    def agree(self, real: Callable[[], Any], model: Callable[[], Any]) -> None:
        assert answer(real) == answer(model)

    @rule(name=st.sampled_from(sorted(CONTENTS)))
    def stage(self, name: str) -> None:
        content = CONTENTS[name]
        staged = self.store.stage()
        assert staged.write(content[:5]) + staged.write(content[5:]) == len(content)
        staged.seek(0)
        assert staged.read() == content
        self.arriving.append((staged, content))

    @precondition(lambda self: self.arriving)
    @rule(media_type=st.sampled_from(["image/png", "image/jpeg"]))
    def keep(self, media_type: str) -> None:
        staged, content = self.arriving.pop()
        image = self.store.keep(staged, media_type)
        staged.close()
        now = self.model.now
        assert image == StoredImage(image.id, media_type, len(content), now, now + HOUR)
        assert image.id not in self.contents
        self.model.kept[image.id] = image
        self.contents[image.id] = content

    @precondition(lambda self: self.arriving)
    @rule()
    def give_up(self) -> None:
        self.arriving.pop(0)[0].close()

    @rule(one=ONE, near=NEAR, ahead=AHEAD, renewed=st.sampled_from([0, 1, 2 * HOUR]))
    def pin(self, one: int | str, near: int, ahead: int, renewed: int) -> None:
        image_id = self.an_id(one)
        kept = self.model.kept.get(image_id)
        until = near + (kept.expires if kept and ahead < HOUR else self.model.now + ahead)
        renewed = renewed and self.model.now + renewed
        self.agree(lambda: self.store.pin(image_id, until, renewed), lambda: self.model.pin(image_id, until, renewed))

    @rule(one=ONE, session=st.none() | SESSIONS, others=st.lists(SESSIONS, max_size=2), complete=st.booleans())
    def note(self, one: int | str, session: str | None, others: list[str], complete: bool) -> None:
        image_id = self.an_id(one)
        change = noted(
            checkout_session=session,
            checkout_complete=complete,
            checkout_ended=not complete,
            sessions_to_end=tuple(others),
        )
        self.agree(lambda: self.store.note(image_id, change), lambda: self.model.note(image_id, change))

    def claim(self, image_id: str, token: str) -> None:
        real, model = (
            answer(lambda: self.store.claim(image_id, token)),
            answer(lambda: self.model.claim(image_id, token)),
        )
        if isinstance(model, StoredImage):
            self.streams.append((real.stream, self.contents[image_id]))
            real = real.image
        assert real == model

    def come_back(self, one: int | str, when: str, near: int, who: str, verb: str) -> None:
        """Operate on a picture with its last claim, another or none, now or close to an instant of expiry."""
        image_id = self.an_id(one)
        if image_id in self.model.kept and not self.model.kept[image_id].claim:
            self.claim(image_id, TOKENS[0])
        kept = self.model.kept.get(image_id)
        if kept and when == "expiry":
            self.clock.now = max(self.clock.now, kept.expires + near)
        if kept and kept.claim and when == "lapse":
            self.clock.now = max(self.clock.now, kept.claim.until + near)
        last = kept.claim.token if kept and kept.claim else TOKENS[0]
        another = TOKENS[1 - TOKENS.index(last)]
        token = None if who == "nobody" and verb == "remove" else last if who == "the last" else another
        if verb == "claim" and token:
            self.claim(image_id, token)
        else:
            real, model = getattr(self.store, verb), getattr(self.model, verb)
            self.agree(lambda: real(image_id, token), lambda: model(image_id, token))

    @rule(coming=COMING)
    def come(self, coming: dict[str, Any]) -> None:
        self.come_back(**coming)

    @rule(coming=COMING)
    def come_again(self, coming: dict[str, Any]) -> None:
        """Repeat the rule, so that it runs more often than the others."""
        self.come_back(**coming)

    @precondition(lambda self: self.streams)
    @rule()
    def read(self) -> None:
        """Read a picture that was claimed some steps ago, even if it has been removed since."""
        stream, content = self.streams.pop()
        with stream:
            assert stream.read(3) + stream.read() == content

    @rule(seconds=st.sampled_from([0.5, 1.0, 299.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(one=st.sampled_from([0, 0, 0, 1, 2]), near=NEAR, part=st.sampled_from([0.0, 0.9]))
    def an_instant_is_near(self, one: int, near: int, part: float) -> None:
        """Go to just before, at, or just after an instant at which a picture expires or a claim lapses."""
        kept = self.model.kept.values()
        instants = {image.expires for image in kept} | {image.claim.until for image in kept if image.claim}
        if to_come := sorted(instant for instant in instants if instant + near + part > self.clock.now):
            self.clock.now = to_come[min(one, len(to_come) - 1)] + near + part

    @rule()
    def sweep(self) -> None:
        self.store.check()
        assert self.store.warnings() == []
        swept, expired = self.store.sweep(), self.model.sweep()
        if self.is_redis:  # Redis itself removes unpaid pictures, and the store does not report them
            expired = [image for image in expired if image.is_paid]
        reported = [image for image in swept.expired if image.is_paid or not self.is_redis]
        reported.sort(key=lambda image: image.id)
        assert (reported, swept.leftovers) == (expired, 0)
        names = [name for name in self.shelf.names() if not name.endswith((".part", ":due"))]
        patterns = ["heroimg:{%s}"] if self.is_redis else ["%s", "%s.json"]
        assert names == sorted(pattern % image_id for image_id in self.model.kept for pattern in patterns)

    @invariant()
    def agree_on_everything(self) -> None:
        type(self).steps += 1
        assert self.store.held() == self.model.held()
        for image_id in [*self.contents, *WRONG_IDS]:
            self.agree(lambda: self.store.get(image_id), lambda: self.model.get(image_id))  # noqa: B023

    def teardown(self) -> None:
        while self.arriving:
            self.give_up()
        while self.streams:
            self.read()
        self.sweep()
        self.clock.now = max([self.clock.now, *(image.expires for image in self.model.kept.values())])
        self.sweep()
        assert self.shelf.names() == []


@pytest.mark.proof
@pytest.mark.parametrize("name", STORES)
def test_every_sequence_is_answered_as_the_contract_says(tmp_path: Path, name: str) -> None:
    with STORES[name](tmp_path) as backend:

        class Counted(Sequence):
            def __init__(self) -> None:
                super().__init__(backend.open_shelf())

        run_state_machine_as_test(Counted, settings=SETTINGS)
    print(f"{Counted.steps} steps")
    assert Counted.steps > SETTINGS.max_examples
