"""Clocks that differ: sessions end by Stripe's clock, pictures by this machine's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from demo.stripe_stand_in import StandIn
from tests.helpers import pictures
from tests.helpers.api import WEBHOOK, Api
from tests.helpers.serving import DrivenClock, serving_at
from tests.helpers.shop import Shop, stripe_settings

HOUR = 3600

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


def test_a_paid_picture_is_kept_by_a_new_process_whose_clock_is_ahead_and_an_old_event_is_refused(
    shop_ahead: OpenShop,
) -> None:
    with shop_ahead(10 * 60) as shop:
        image_id = shop.api.keep(pictures.jpeg())
        session_id = shop.api.session_of(image_id)
        shop.stand_in.pay(session_id)
        shop.api.server.stop()
        shop.api.server.gunicorn(app="tests.helpers.clocked_wsgi:app", workers=1)
        shop.stand_in.webhook_url = f"{shop.api.server.url}{WEBHOOK}"
        for age, status in ((0, 200), (301, 400)):
            signed_at = shop.stand_in.clock() - age
            delivery = shop.stand_in.send_webhook("checkout.session.completed", session_id, signed_at=signed_at)
            assert delivery
            assert delivery.status == status
        shop.clock.forward(23 * HOUR)
        assert shop.api.retrieve(image_id).content == pictures.jpeg()


def test_clocks_that_agree_are_not_mentioned(shop: Shop) -> None:
    assert shop.api.open_checkout(shop.api.keep(pictures.jpeg())).status_code == 200
    assert "Stripe's: synchronise it" not in shop.api.server.log()
