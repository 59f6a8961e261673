"""Sessions that were replaced, and could not be ended at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.stripe_stand_in import StandIn
from tests.helpers import pictures
from tests.helpers.api import Api, new_token
from tests.helpers.serving import DrivenClock, serving_at, wait_for
from tests.helpers.shop import Shop, stripe_settings


@contextmanager
def open_shop(folder: Path, clock: DrivenClock, settings: dict[str, str], sweep_seconds: int) -> Iterator[Shop]:
    with StandIn(clock=clock) as stand_in:
        settings = stripe_settings(stand_in) | settings | {"HEROIMG_SWEEP_SECONDS": str(sweep_seconds)}
        with serving_at(clock, folder / "served", settings) as server:
            yield Shop(Api(server), stand_in, clock)


def replace_a_session(shop: Shop, image_id: str) -> list[int]:
    """Open two sessions, before and after the hour starts again, while Stripe refuses to end the first."""
    shop.clock.forward(300)
    with ThreadPoolExecutor(2) as pool:
        is_held = shop.stand_in.hold()
        first = pool.submit(shop.api.open_checkout, image_id)
        assert is_held.wait(20)
        shop.clock.forward(400)
        second = pool.submit(shop.api.open_checkout, image_id)
        wait_for(lambda: sum(r.method == "POST" for r in shop.stand_in.requests) == 2, "both to ask Stripe")
        shop.stand_in.fail_next("429", times=100)
        shop.stand_in.release()
        return sorted([first.result().status_code, second.result().status_code])


def open_sessions(shop: Shop) -> list[str]:
    return [session_id for session_id, session in shop.stand_in.sessions.items() if session["status"] == "open"]


def test_no_second_secret_is_given_out_and_no_picture_handed_over_before_the_replaced_session_has_ended(
    tmp_path: Path, clock: DrivenClock, store_settings: dict[str, str]
) -> None:
    with open_shop(tmp_path, clock, store_settings, sweep_seconds=0) as shop:
        image_id = shop.api.keep(pictures.jpeg())
        assert replace_a_session(shop, image_id) == [200, 503]
        assert len(open_sessions(shop)) == 2
        for answer in (shop.api.open_checkout(image_id), shop.api.retrieve(image_id), shop.api.confirm(image_id)):
            assert (answer.status_code, answer.json()["code"]) == (503, "payment_unreachable")
        shop.stand_in.recover()
        assert shop.api.session_of(image_id) in open_sessions(shop)
        assert len(open_sessions(shop)) == 1


def test_a_reader_with_a_claim_gets_the_picture_and_confirms_only_after_the_replaced_session_has_ended(
    tmp_path: Path, clock: DrivenClock, store_settings: dict[str, str]
) -> None:
    with open_shop(tmp_path, clock, store_settings, sweep_seconds=0) as shop:
        image_id, claim = shop.api.keep(pictures.jpeg()), new_token()
        replace_a_session(shop, image_id)
        assert shop.api.retrieve(image_id, claim).content == pictures.jpeg()
        answer = shop.api.confirm(image_id, claim)
        assert (answer.status_code, answer.json()["code"]) == (503, "payment_unreachable")
        assert shop.api.retrieve(image_id, claim).content == pictures.jpeg()
        shop.stand_in.recover()
        assert shop.api.confirm(image_id, claim).status_code == 204
        assert open_sessions(shop) == []


def test_the_sweep_ends_the_replaced_session(
    tmp_path: Path, clock: DrivenClock, store_settings: dict[str, str]
) -> None:
    with open_shop(tmp_path, clock, store_settings, sweep_seconds=1) as shop:
        image_id = shop.api.keep(pictures.jpeg())
        replace_a_session(shop, image_id)
        wait_for(lambda: "cannot end all replaced checkouts" in shop.api.server.log(), "a sweep to try")
        assert len(open_sessions(shop)) == 2
        shop.stand_in.recover()
        clock.forward(60)
        wait_for(lambda: len(open_sessions(shop)) == 1, "a sweep to end the replaced session")
        assert shop.api.session_of(image_id) == open_sessions(shop)[0]


def test_a_picture_whose_session_ended_asks_nothing_more_of_stripe(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.long_jpeg())
    shop.api.session_of(image_id)
    shop.api.hang_up_after(1, image_id)
    wait_for(lambda: shop.api.retrieve(image_id, method="HEAD").status_code == 200, "the claim to be given back")
    asked = len(shop.stand_in.requests)
    for _ in range(5):
        shop.api.hang_up_after(1, image_id)
        wait_for(lambda: shop.api.retrieve(image_id, method="HEAD").status_code == 200, "the claim to be given back")
    assert len(shop.stand_in.requests) == asked


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_address_that_makes_heroimg_ask_stripe_too_often_is_refused(tmp_path: Path, method: str) -> None:
    with StandIn() as stand_in:
        settings = stripe_settings(stand_in) | {"HEROIMG_CHECKOUT_RATE": "3 per minute"}
        with serving_at(DrivenClock(tmp_path / "clock"), tmp_path / "served", settings, workers=1) as server:
            api = Api(server)
            image_ids = [api.keep(pictures.jpeg()) for _ in range(3)]
            for image_id in image_ids:
                api.session_of(image_id)
            stand_in.fail_next("500", times=100)
            for _ in range(3):
                api.retrieve(image_ids[0], method="DELETE")
            answer = api.retrieve(image_ids[0], method=method)
            assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
            assert api.retrieve(image_ids[0], method="HEAD").status_code == 200
