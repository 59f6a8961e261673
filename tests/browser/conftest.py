"""Fixtures: the three engines, and a front end on another origin than heroimg."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from demo.stripe_stand_in import StandIn
from tests.helpers.api import Api
from tests.helpers.browser import Visitor
from tests.helpers.engines import ENGINES, Engine, running
from tests.helpers.front_end import FrontEnd, ShopElsewhere
from tests.helpers.serving import DrivenClock, serving_at
from tests.helpers.shop import Site, stripe_settings


@pytest.fixture(
    scope="session",
    params=[ENGINES[0], *(pytest.param(name, marks=pytest.mark.proof) for name in ENGINES[1:])],
)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with running(request.param) as started:
        yield started


@pytest.fixture(scope="session")
def open_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShopElsewhere]:
    folder = tmp_path_factory.mktemp("elsewhere")
    clock = DrivenClock(folder / "clock")
    with StandIn(clock=clock) as stand_in, FrontEnd() as front_end:
        settings = {
            "FRONTEND_URL": front_end.url,
            "HEROIMG_MAX_IMAGE_BYTES": str(1024 * 1024),  # so that photographs over it are quickly made
            **stripe_settings(stand_in),
        }
        with serving_at(clock, folder / "served", settings) as server:
            yield ShopElsewhere(Api(server), stand_in, clock, front_end)


@pytest.fixture
def elsewhere(open_elsewhere: ShopElsewhere) -> ShopElsewhere:
    """Serve heroimg for a front end on another origin, from an empty folder."""
    open_elsewhere.clear()
    return open_elsewhere


@pytest.fixture
def page(site: Site, visitor: Visitor) -> Page:
    """Open a blank page on the front end's origin."""
    visitor.page.route(f"{site.proxy.url}/blank", lambda route: route.fulfill(body="<!doctype html>"))
    visitor.page.goto(f"{site.proxy.url}/blank")
    return visitor.page
