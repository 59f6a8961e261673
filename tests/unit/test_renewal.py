"""The renewal of claims, without a server: the shortest claim that the settings allow."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from heroimg.config import MIN_CLAIM_SECONDS, Config
from heroimg.pictures.hand_over import HandOvers
from heroimg.stores.files.store import FileStore
from heroimg.stores.image import StoredImage
from tests.helpers.store_shelf import START, TOKEN, Clock, no_file_larger_than

SLOW_DISK_SECONDS = 1.0


class NoCheckout:
    """A checkout without any session."""

    def end(self, image: StoredImage) -> None: ...
    def end_before_hand_over(self, image: StoredImage) -> None: ...
    def try_to_end(self, image: StoredImage) -> None: ...


def open_hand_overs(folder: Path, clock: Clock) -> tuple[HandOvers, str]:
    """Open a folder; return its hand-overs, and the id of the picture in it."""
    store = FileStore(Config(upload_dir=folder, min_free_bytes=0, claim_seconds=MIN_CLAIM_SECONDS), clock)
    with closing(store.stage()) as staged:
        staged.write(b"picture")
        image_id = store.keep(staged, "image/png").id
    return HandOvers(store, clock, MIN_CLAIM_SECONDS, NoCheckout(), on_removed=lambda **_: None), image_id


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("phase", range(12))
@pytest.mark.parametrize("second", [0.0, 0.999])
def test_the_shortest_claim_is_renewed_before_it_lapses(tmp_path: Path, second: float, phase: int, late: int) -> None:
    """The job that renews claims begins in any phase, and each second run is late because of a slow disk."""
    clock = Clock()
    hand_overs, image_id = open_hand_overs(tmp_path, clock)
    clock.now = START + second
    with closing(hand_overs.start(image_id, TOKEN, before_stripe=lambda: None)):
        for run in range(24):
            clock.now = START + second + (run + phase / 12) * hand_overs.renewal_seconds
            clock.now += SLOW_DISK_SECONDS if run % 2 == late else 0
            assert hand_overs.store.get(image_id).claim, f"it has lapsed after {clock.now - START - second:.1f} seconds"
            hand_overs.renew_claims()


def test_a_reader_whose_renewal_finds_no_room_gets_the_picture_and_keeps_the_claim(tmp_path: Path) -> None:
    clock = Clock()
    hand_overs, image_id = open_hand_overs(tmp_path, clock)
    with closing(hand_overs.start(image_id, TOKEN, before_stripe=lambda: None)) as hand_over:
        clock.now += MIN_CLAIM_SECONDS
        with no_file_larger_than(10):
            hand_overs.renew_claims()
            assert next(hand_over) == b"picture"
        hand_overs.renew_claims()
        assert hand_overs.store.get(image_id).claim
