"""Clocks that differ: sessions end by Stripe's clock, pictures by this machine's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from demo.stripe_stand_in import StandIn
from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.serving import DrivenClock, serving_at
from tests.helpers.shop import Shop, stripe_settings

OpenShop = Callable[[int], AbstractContextManager[Shop]]


@pytest.fixture
def shop_ahead(tmp_path: Path, clock: DrivenClock) -> OpenShop:
    """Open a shop whose clock is this many seconds ahead of Stripe's."""

    @contextmanager
    def opened(seconds: int) -> Iterator[Shop]:
        with (
            StandIn(clock=lambda: clock() - seconds) as stand_in,
            serving_at(clock, tmp_path / "served", stripe_settings(stand_in), workers=1) as server,
        ):
            yield Shop(Api(server), stand_in, clock)

    return opened


def test_a_clock_far_ahead_opens_no_checkout_that_outlives_its_picture(
    shop_ahead: OpenShop,
) -> None:
    with shop_ahead(25 * 60) as shop:
        image_id = shop.api.keep(pictures.jpeg())
        answer = shop.api.open_checkout(image_id)
        assert (answer.status_code, answer.json()["code"]) == (503, "clock_wrong")
        assert [session["status"] for session in shop.stand_in.sessions.values()] == ["expired"]
        assert "seconds ahead of Stripe's: synchronise it" in shop.api.server.log()
        assert shop.api.retrieve(image_id).content == pictures.jpeg()


def test_a_clock_far_behind_is_blamed_on_the_clock_and_not_on_the_product(
    shop_ahead: OpenShop,
) -> None:
    with shop_ahead(-15 * 60) as shop:
        answer = shop.api.open_checkout(shop.api.keep(pictures.jpeg()))
        assert (answer.status_code, answer.json()["code"]) == (503, "clock_wrong")
        assert "seconds behind Stripe's: synchronise it" in shop.api.server.log()
        assert "settings of the product" not in shop.api.server.log()


@pytest.mark.parametrize(("seconds", "direction"), [(90, "ahead of"), (-90, "behind")])
def test_a_clock_that_is_a_little_off_sells_and_warns_the_operator(
    shop_ahead: OpenShop, seconds: int, direction: str
) -> None:
    with shop_ahead(seconds) as shop:
        assert shop.api.open_checkout(shop.api.keep(pictures.jpeg())).status_code == 200
        (warning,) = shop.api.request("GET", "/readyz").json()["warnings"]
        assert f"seconds {direction} Stripe's" in warning
        assert shop.api.server.log().count(f"seconds {direction} Stripe's") == 1


def test_clocks_that_agree_are_not_mentioned(shop: Shop) -> None:
    assert shop.api.open_checkout(shop.api.keep(pictures.jpeg())).status_code == 200
    assert "Stripe's: synchronise it" not in shop.api.server.log()
