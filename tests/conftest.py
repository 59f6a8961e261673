"""Fixtures: servers that tests share, a server for one test alone, a stand-in for Stripe, and a clock to drive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.stripe_stand_in import StandIn

from .api import Api
from .serving import DrivenClock, serving, serving_at


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Serve with two workers, for tests that look at their own pictures only."""
    with serving(tmp_path_factory.mktemp("shared") / "served") as server:
        yield Api(server)


@pytest.fixture
def api(shared: Api) -> Api:
    """Serve with two workers, from an empty folder."""
    shared.server.clear()
    return shared


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Api]:
    """Serve with two workers, for one test, which may kill them."""
    with serving(tmp_path / "served") as server:
        yield Api(server)


@pytest.fixture
def clock(tmp_path: Path) -> DrivenClock:
    return DrivenClock(tmp_path / "clock")


class Shop:
    """A served application, a stand-in for Stripe, webhook included, and the clock that both go by."""

    def __init__(self, api: Api, stand_in: StandIn, clock: DrivenClock) -> None:
        self.api = api
        self.stand_in = stand_in
        self.clock = clock

    def clear(self) -> None:
        self.api.server.clear()
        self.stand_in.clear()
        self.stand_in.webhook_url = f"{self.api.server.url}/api/checkout/webhook"


@pytest.fixture(scope="session")
def open_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    clock = DrivenClock(folder / "clock")
    with StandIn(clock=clock) as stand_in:
        settings = {
            "STRIPE_SECRET_KEY": "sk_test_standin",
            "STRIPE_WEBHOOK_SECRET": "whsec_standin",
            "STRIPE_API_BASE": stand_in.url,
            "HEROIMG_MAX_IMAGE_BYTES": "20000000",
        }
        with serving_at(clock, folder / "served", settings) as server:
            yield Shop(Api(server), stand_in, clock)


@pytest.fixture
def shop(open_shop: Shop) -> Shop:
    """Serve with two workers, from an empty folder, with a stand-in for Stripe that knows nothing yet."""
    open_shop.clear()
    return open_shop
