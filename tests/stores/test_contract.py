"""The contract in heroimg/stores/base.py, over every store."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heroimg.config import Config
from heroimg.errors import ImageClaimed, ImageNotFound, StoreFull
from heroimg.stores.base import Swept
from heroimg.stores.files.store import FileStore
from heroimg.stores.image import Claim, is_image_id
from tests.helpers.store_shelf import HOUR, OTHER_TOKEN, START, TOKEN, UNKNOWN, Clock, Shelf, noted
from tests.helpers.stores import STORES_AND_CLUSTER, StoreBackend


@pytest.fixture(scope="module", params=STORES_AND_CLUSTER)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreBackend]:
    with STORES_AND_CLUSTER[request.param](tmp_path_factory.mktemp(request.param)) as opened:
        yield opened


@pytest.fixture
def shelf(backend: StoreBackend) -> Shelf:
    return backend.open_shelf()


def test_a_kept_picture_is_described_and_given_as_it_came(shelf: Shelf) -> None:
    image = shelf.keep(b"\0\xff" * 500_000)
    assert is_image_id(image.id)
    assert (image.media_type, image.size, image.stored, image.expires) == ("image/png", 1_000_000, START, START + HOUR)
    assert shelf.store.get(image.id) == image
    assert shelf.read(image.id) == b"\0\xff" * 500_000


def test_a_staged_picture_is_not_visible_and_leaves_nothing_when_closed(shelf: Shelf) -> None:
    staged = shelf.store.stage()
    staged.write(b"half of a picture")
    assert shelf.store.held().images == 0
    staged.close()
    assert shelf.names() == []


def test_a_staged_picture_can_be_read_back_before_it_is_kept(shelf: Shelf) -> None:
    staged = shelf.store.stage()
    staged.write(b"one ")
    staged.write(b"two")
    staged.seek(0)
    assert staged.read() == b"one two"
    assert shelf.store.keep(staged, "image/png").size == 7
    staged.close()


@pytest.mark.parametrize("image_id", [UNKNOWN, "", "..", "x" * 32, UNKNOWN + "\n", UNKNOWN.upper(), f"{UNKNOWN}.json"])
def test_an_unknown_picture_is_not_found_and_removing_or_releasing_it_is_no_error(shelf: Shelf, image_id: str) -> None:
    with pytest.raises(ImageNotFound):
        shelf.store.get(image_id)
    with pytest.raises(ImageNotFound):
        shelf.store.pin(image_id, START)
    with pytest.raises(ImageNotFound):
        shelf.store.note(image_id, noted(checkout_complete=True))
    for take in (shelf.store.claim, shelf.store.renew):
        with pytest.raises(ImageNotFound):
            take(image_id, TOKEN)
    shelf.store.release(image_id, TOKEN)
    assert shelf.store.remove(image_id) is None


def test_a_claim_excludes_all_others_until_it_lapses(shelf: Shelf) -> None:
    image = shelf.keep()
    assert shelf.read(image.id) == shelf.read(image.id) == b"picture"
    shelf.clock.now += 299
    with pytest.raises(ImageClaimed) as refusal:
        shelf.store.claim(image.id, OTHER_TOKEN)
    assert refusal.value.retry_after == 1
    shelf.clock.now += 1
    assert shelf.read(image.id, OTHER_TOKEN) == b"picture"
    with pytest.raises(ImageClaimed):
        shelf.store.claim(image.id, TOKEN)


def test_a_claim_that_lapses_while_another_asks_is_judged_by_one_instant(shelf: Shelf) -> None:
    image = shelf.keep()
    shelf.read(image.id)
    instants = iter([299.0, 300.0, 301.0, 302.0, 303.0, 304.0])
    clock, now = type(shelf.clock), shelf.clock.now
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "__call__", lambda _: now + next(instants))
        try:
            shelf.store.claim(image.id, OTHER_TOKEN).stream.close()
        except ImageClaimed:
            return
    with pytest.raises(ImageClaimed):  # the other claim lasts
        shelf.store.claim(image.id, TOKEN)


def test_renewing_a_claim_starts_its_time_again(shelf: Shelf) -> None:
    image = shelf.keep()
    shelf.read(image.id)
    shelf.clock.now += 200
    shelf.store.renew(image.id, TOKEN)
    shelf.clock.now += 200
    with pytest.raises(ImageClaimed) as refusal:
        shelf.store.claim(image.id, OTHER_TOKEN)
    assert refusal.value.retry_after == 100


def test_a_strangers_renew_makes_no_claim_and_extends_none(shelf: Shelf) -> None:
    image = shelf.keep()
    with pytest.raises(ImageNotFound):
        shelf.store.renew(image.id, OTHER_TOKEN)
    assert shelf.store.get(image.id) == image
    shelf.read(image.id)
    with pytest.raises(ImageClaimed) as refusal:
        shelf.store.renew(image.id, OTHER_TOKEN)
    assert refusal.value.retry_after == 300
    claimed = shelf.store.get(image.id)
    shelf.clock.now += 299
    with pytest.raises(ImageClaimed):
        shelf.store.renew(image.id, OTHER_TOKEN)
    assert shelf.store.get(image.id) == claimed
    shelf.clock.now += 1
    with pytest.raises(ImageNotFound):
        shelf.store.renew(image.id, OTHER_TOKEN)
    assert shelf.store.get(image.id).claim_lapsed
    with pytest.raises(ImageNotFound):
        shelf.store.renew(UNKNOWN, OTHER_TOKEN)


def test_a_lapsed_claim_is_renewed_if_no_other_has_claimed_since(shelf: Shelf) -> None:
    image = shelf.keep()
    shelf.read(image.id)
    shelf.clock.now += 301
    shelf.store.renew(image.id, TOKEN)
    with pytest.raises(ImageClaimed):
        shelf.store.claim(image.id, OTHER_TOKEN)
    shelf.clock.now += 301
    shelf.read(image.id, OTHER_TOKEN)
    with pytest.raises(ImageClaimed):
        shelf.store.renew(image.id, TOKEN)
    shelf.clock.now += 301
    with pytest.raises(ImageNotFound):
        shelf.store.renew(image.id, TOKEN)


def test_a_claim_that_was_given_back_is_not_renewed(shelf: Shelf) -> None:
    image = shelf.keep()
    shelf.read(image.id)
    shelf.store.release(image.id, TOKEN)
    with pytest.raises(ImageNotFound):
        shelf.store.renew(image.id, TOKEN)
    assert shelf.store.get(image.id) == image


def test_claiming_again_starts_the_claims_time_again(shelf: Shelf) -> None:
    image = shelf.keep()
    shelf.read(image.id)
    shelf.clock.now += 200
    shelf.read(image.id)
    shelf.clock.now += 200
    with pytest.raises(ImageClaimed):
        shelf.store.claim(image.id, OTHER_TOKEN)


def test_a_released_claim_lets_others_in(shelf: Shelf) -> None:
    image = shelf.keep()
    shelf.read(image.id)
    shelf.store.release(image.id, OTHER_TOKEN)
    with pytest.raises(ImageClaimed):
        shelf.store.claim(image.id, OTHER_TOKEN)
    shelf.store.release(image.id, TOKEN)
    assert shelf.store.get(image.id).claim is None
    assert shelf.read(image.id, OTHER_TOKEN) == b"picture"


def test_a_claim_that_had_lapsed_when_it_was_given_back_has_lapsed(shelf: Shelf) -> None:
    image = shelf.keep()
    shelf.read(image.id)
    shelf.clock.now += 300
    shelf.store.release(image.id, TOKEN)
    assert shelf.store.get(image.id).claim_lapsed


def test_only_the_holder_removes_a_claimed_picture(shelf: Shelf) -> None:
    image = shelf.keep()
    shelf.read(image.id)
    for token in (OTHER_TOKEN, None):
        with pytest.raises(ImageClaimed):
            shelf.store.remove(image.id, token)
    removed = shelf.store.remove(image.id, TOKEN)
    assert removed
    assert removed.id == image.id
    assert shelf.store.remove(image.id, TOKEN) is None
    assert shelf.names() == []


def test_a_lapsed_holder_may_remove_a_picture_that_no_other_has_claimed(shelf: Shelf) -> None:
    image = shelf.keep()
    shelf.read(image.id)
    shelf.clock.now += 301
    assert shelf.store.remove(image.id, TOKEN)


def test_a_stream_can_be_read_to_its_end_though_the_picture_is_removed_meanwhile(shelf: Shelf) -> None:
    image = shelf.keep()
    _, stream = shelf.store.claim(image.id, TOKEN)
    shelf.store.remove(image.id, TOKEN)
    with stream:
        assert stream.read() == b"picture"


def test_one_of_many_claims_at_once_wins(shelf: Shelf) -> None:
    for _ in range(20):
        image = shelf.keep()

        def claim(number: int, image_id: str = image.id) -> bool:
            try:
                shelf.store.claim(image_id, f"token-number-{number:04}").stream.close()
            except ImageClaimed:
                return False
            return True

        with ThreadPoolExecutor(16) as pool:
            assert sum(pool.map(claim, range(16))) == 1


def test_an_expired_picture_is_not_found_from_the_second_on(shelf: Shelf) -> None:
    image = shelf.keep()
    shelf.clock.now = START + HOUR - 1
    assert shelf.store.get(image.id) == image
    shelf.clock.now = START + HOUR
    for action in (
        lambda: shelf.store.get(image.id),
        lambda: shelf.store.claim(image.id, TOKEN),
        lambda: shelf.store.pin(image.id, START + 2 * HOUR),
    ):
        with pytest.raises(ImageNotFound):
            action()
    assert shelf.store.held().images == 0


def test_a_sweep_removes_what_has_expired_and_nothing_else(shelf: Shelf) -> None:
    old = shelf.keep()
    shelf.clock.now += HOUR / 2
    young = shelf.keep()
    shelf.store.claim(young.id, TOKEN).stream.close()
    shelf.clock.now += HOUR / 2
    arriving = shelf.store.stage()
    arriving.write(b"half")
    swept = shelf.store.sweep()
    assert swept.leftovers == 0
    assert not [name for name in shelf.names() if old.id in name]
    assert shelf.read(young.id) == b"picture"
    shelf.store.keep(arriving, "image/png")
    arriving.close()


def test_a_pin_keeps_a_picture_at_least_until_then(shelf: Shelf) -> None:
    image = shelf.keep()
    assert shelf.store.pin(image.id, START + HOUR - 1).expires == START + HOUR
    assert shelf.store.pin(image.id, START + HOUR, renewed=START + 9 * HOUR).expires == START + HOUR
    assert shelf.store.pin(image.id, START + HOUR + 1).expires == START + HOUR + 1
    assert shelf.store.pin(image.id, START + HOUR + 2, renewed=START + 9 * HOUR).expires == START + 9 * HOUR
    assert shelf.store.pin(image.id, START + HOUR + 3, renewed=START + 99 * HOUR).expires == START + 9 * HOUR
    shelf.clock.now = START + 9 * HOUR - 1
    assert shelf.store.sweep() == Swept()
    assert shelf.read(image.id) == b"picture"


def test_a_pin_is_kept_though_the_renewal_would_end_before_it(shelf: Shelf) -> None:
    image = shelf.keep()
    assert shelf.store.pin(image.id, START + HOUR + 9, renewed=START + HOUR + 1).expires == START + HOUR + 9


def test_a_picture_kept_while_the_clock_was_ahead_is_kept_for_an_hour_from_its_pin_on(shelf: Shelf) -> None:
    shelf.clock.now = START + 24 * HOUR
    image = shelf.keep()
    shelf.store.claim(image.id, TOKEN).stream.close()
    shelf.clock.now = START
    pinned = shelf.store.pin(image.id, START + 1800, renewed=START + 9 * HOUR)
    assert (pinned.stored, pinned.expires) == (START, START + HOUR)
    assert pinned.claim == Claim(TOKEN, START + 300)
    assert shelf.store.held().oldest == START
    assert shelf.store.pin(image.id, START + 1800) == shelf.store.get(image.id) == pinned
    shelf.clock.now = START + HOUR - 1
    assert shelf.store.get(image.id)
    shelf.clock.now = START + HOUR
    shelf.store.sweep()
    assert shelf.names() == []


@pytest.mark.parametrize(
    "fields",
    [{"checkout_session": "cs_test_1"}, {"checkout_complete": True}, {"sessions_to_end": ("cs_test_1",)}],
    ids=["payable", "paid", "replaced"],
)
def test_the_time_of_a_picture_that_may_be_paid_for_is_not_shortened_because_the_clock_was_ahead(
    shelf: Shelf, fields: dict[str, Any]
) -> None:
    shelf.clock.now = START + 10 * 60
    image = shelf.keep()
    shelf.store.note(image.id, noted(**fields))
    shelf.clock.now = START
    shelf.store.sweep()
    assert shelf.store.pin(image.id, START + HOUR).expires == image.expires


def test_clocks_that_differ_by_less_than_a_minute_change_no_picture(shelf: Shelf) -> None:
    shelf.clock.now = START + 59
    image = shelf.keep()
    shelf.clock.now = START
    shelf.store.sweep()
    assert shelf.store.pin(image.id, START + HOUR) == image


def test_an_expired_picture_cannot_be_removed_and_is_left_to_the_sweep(shelf: Shelf) -> None:
    image = shelf.keep()
    shelf.store.note(image.id, noted(checkout_complete=True))
    shelf.clock.now += HOUR
    assert shelf.store.remove(image.id) is None
    assert [expired.is_paid for expired in shelf.store.sweep().expired] == [True]
    assert shelf.names() == []


def test_concurrent_pins_get_the_same_answer(shelf: Shelf) -> None:
    image = shelf.keep()
    with ThreadPoolExecutor(8) as pool:
        pins = pool.map(lambda n: shelf.store.pin(image.id, START + HOUR + 1, renewed=START + HOUR + 100 + n), range(8))
        assert len({pin.expires for pin in pins}) == 1


def test_the_checkouts_notes_are_kept_with_the_picture_and_survive_claims(shelf: Shelf) -> None:
    image = shelf.keep()
    states: list[dict[str, Any]] = [
        {"checkout_session": "cs_test_0"},
        {"checkout_session": "cs_test_1", "sessions_to_end": ("cs_test_0", "cs_test_2")},
        {"checkout_complete": True, "payment_pending": True, "sessions_to_end": ()},
        {"payment_pending": False},
        {"checkout_complete": False, "checkout_ended": True},
    ]
    for fields in states:
        before, after = shelf.store.note(image.id, noted(**fields))
        assert (before, after) == (image, replace(image, **fields))
        shelf.read(image.id)
        shelf.store.release(image.id, TOKEN)
        assert shelf.store.get(image.id) == after
        image = after


def test_concurrent_notes_are_all_kept(shelf: Shelf) -> None:
    image = shelf.keep()

    def add(number: int) -> None:
        session = f"cs_test_{number}"
        shelf.store.note(
            image.id, lambda now: replace(now, sessions_to_end=tuple(sorted({*now.sessions_to_end, session})))
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    assert sorted(shelf.store.get(image.id).sessions_to_end) == [f"cs_test_{number}" for number in range(8)]


def test_every_sweep_returns_a_picture_with_sessions_to_end_until_they_have_ended(shelf: Shelf) -> None:
    image = shelf.keep()
    shelf.keep()
    shelf.store.note(image.id, noted(checkout_session="cs_test_1", sessions_to_end=("cs_test_0",)))
    for _ in range(2):
        shelf.clock.now += 60
        assert shelf.store.sweep() == Swept(with_sessions_to_end=(image.id,))
    shelf.store.note(image.id, noted(sessions_to_end=()))
    shelf.clock.now += 60
    assert shelf.store.sweep() == Swept()


@pytest.mark.parametrize(
    ("claimed_at", "is_claimed", "has_lapsed_claim"),
    [(None, False, False), (HOUR - 300, True, True), (HOUR - 1, True, False)],
    ids=["unclaimed", "lapsed claim", "claimed"],
)
def test_a_sweep_returns_a_paid_picture_that_expired_once(
    shelf: Shelf, claimed_at: int | None, is_claimed: bool, has_lapsed_claim: bool
) -> None:
    image = shelf.keep()
    shelf.store.note(image.id, noted(checkout_session="cs_test_0123456789"))
    shelf.store.note(image.id, noted(checkout_complete=True))
    if claimed_at:
        shelf.clock.now = START + claimed_at
        shelf.read(image.id)
    shelf.clock.now = START + HOUR
    with ThreadPoolExecutor(4) as pool:
        sweeps = list(pool.map(lambda _: shelf.store.sweep(), range(4)))
    [expired] = [picture for swept in sweeps for picture in swept.expired]
    assert (expired.id, expired.checkout_session) == (image.id, "cs_test_0123456789")
    assert (expired.is_paid, expired.was_claimed, expired.claim_lapsed) == (True, is_claimed, has_lapsed_claim)
    assert shelf.names() == []
    with pytest.raises(ImageNotFound):
        shelf.store.get(image.id)


def test_a_paid_picture_that_is_kept_longer_expires_at_its_new_time(shelf: Shelf) -> None:
    image = shelf.keep()
    shelf.store.note(image.id, noted(checkout_complete=True))
    shelf.store.pin(image.id, START + 24 * HOUR)
    shelf.clock.now = START + 24 * HOUR - 1
    assert shelf.store.sweep() == Swept()
    assert shelf.store.get(image.id).checkout_complete
    shelf.clock.now = START + 24 * HOUR
    assert len(shelf.store.sweep().expired) == 1
    assert shelf.names() == []


def test_nothing_is_left_of_a_paid_picture_that_was_removed(shelf: Shelf) -> None:
    image = shelf.keep()
    shelf.store.note(image.id, noted(checkout_complete=True))
    assert shelf.store.remove(image.id)
    assert shelf.names() == []
    shelf.clock.now = START + HOUR
    assert shelf.store.sweep() == Swept()


def test_a_sweep_that_has_no_time_removes_one_picture(shelf: Shelf) -> None:
    for _ in range(3):
        shelf.store.note(shelf.keep().id, noted(checkout_complete=True))
    shelf.clock.now += HOUR
    for expired in (1, 1, 1, 0):
        assert len(shelf.store.sweep(seconds=0).expired) == expired
    assert shelf.names() == []


def test_held_counts_what_can_be_retrieved(shelf: Shelf) -> None:
    assert shelf.store.held() == (0, 0, None)
    shelf.keep(b"12345")
    shelf.clock.now += 10
    shelf.keep(b"123")
    assert shelf.store.held() == (2, 8, START)


def test_a_store_without_the_room_that_is_to_stay_free_refuses(tmp_path: Path) -> None:
    store = FileStore(Config(upload_dir=tmp_path, min_free_bytes=2**60), Clock())
    with pytest.raises(StoreFull):
        store.stage()
    with pytest.raises(StoreFull):
        store.check()
