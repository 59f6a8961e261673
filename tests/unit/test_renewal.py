"""The renewal of claims, without a server: the shortest claim that the settings allow."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from heroimg.config import MIN_CLAIM_SECONDS, Config
from heroimg.pictures.hand_over import HandOvers
from heroimg.stores.files.store import FileStore
from heroimg.stores.image import StoredImage
from tests.helpers.store_shelf import START, TOKEN, Clock

SLOW_DISK_SECONDS = 1.0


class NoCheckout:
    """A checkout without any session."""

    def end(self, image: StoredImage) -> None: ...
    def end_before_hand_over(self, image: StoredImage) -> None: ...
    def try_to_end(self, image: StoredImage) -> None: ...


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("phase", range(12))
@pytest.mark.parametrize("second", [0.0, 0.999])
def test_the_shortest_claim_is_renewed_before_it_lapses(tmp_path: Path, second: float, phase: int, late: int) -> None:
    """The job that renews claims begins in any phase, and each second run is late because of a slow disk."""
    clock = Clock()
    config = Config(upload_dir=tmp_path, min_free_bytes=0, claim_seconds=MIN_CLAIM_SECONDS)
    store = FileStore(config, clock)
    with closing(store.stage()) as staged:
        image_id = store.keep(staged, "image/png").id
    hand_overs = HandOvers(store, clock, config.claim_seconds, NoCheckout(), on_removed=lambda **_: None)
    clock.now = START + second
    with closing(hand_overs.start(image_id, TOKEN, before_stripe=lambda: None)):
        for run in range(24):
            clock.now = START + second + (run + phase / 12) * hand_overs.renewal_seconds
            clock.now += SLOW_DISK_SECONDS if run % 2 == late else 0
            assert store.get(image_id).claim, f"it has lapsed after {clock.now - START - second:.1f} seconds"
            hand_overs.renew_claims()
