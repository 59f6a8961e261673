"""Picture ids: an id opens its picture, so no one may be able to guess it."""

from __future__ import annotations

import random

from heroimg.stores.image import new_image_id


def test_ids_do_not_come_from_a_generator_that_can_be_seeded() -> None:
    state = random.getstate()
    random.seed(1)
    first = new_image_id()
    random.seed(1)
    assert new_image_id() != first
    random.setstate(state)
