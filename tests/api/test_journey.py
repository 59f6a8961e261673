"""The whole journey: a photograph is uploaded, paid for, and returned unchanged, once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.helpers import pictures
from tests.helpers.serving import wait_for
from tests.helpers.shop import Shop


@pytest.mark.parametrize(
    ("make", "media_type"), [(pictures.jpeg, "image/jpeg"), (pictures.png, "image/png")], ids=["jpeg", "png"]
)
def test_a_photograph_comes_back_after_payment_byte_for_byte_and_once(
    shop: Shop, make: Callable[[float], bytes], media_type: str
) -> None:
    photograph = make(3)
    assert len(photograph) > 2_500_000

    image_id = shop.api.keep(photograph)
    session_id = shop.api.session_of(image_id)
    assert shop.api.status(session_id).json()["status"] == "open"

    shop.stand_in.pay(session_id)
    assert shop.api.status(session_id).json() == {
        "status": "complete",
        "payment_status": "paid",
        "metadata": {"imageId": image_id},
    }

    answer = shop.api.retrieve(image_id)
    assert answer.status_code == 200
    assert answer.content == photograph
    assert answer.headers["Content-Type"] == media_type
    assert int(answer.headers["Content-Length"]) == len(photograph)

    wait_for(lambda: shop.api.server.names() == [], "the picture to be gone")
    second = shop.api.retrieve(image_id)
    assert (second.status_code, second.json()["error"]) == (404, "Image not found or expired")


def test_the_journey_with_a_claim_survives_a_reload_and_ends_with_confirmation(
    shop: Shop,
) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    shop.stand_in.pay(shop.api.session_of(image_id))
    claim = "page-of-the-customer"
    assert shop.api.retrieve(image_id, claim).content == pictures.jpeg()
    assert shop.api.retrieve(image_id, claim).content == pictures.jpeg()
    assert shop.api.confirm(image_id, claim).status_code == 204
    assert shop.api.confirm(image_id, claim).status_code == 204
    assert shop.api.retrieve(image_id, claim).status_code == 404
    assert shop.api.server.names() == []
