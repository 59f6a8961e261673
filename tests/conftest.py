"""Fixtures: servers (shared, or for one test), the stand-in for Stripe, a driven clock, and browsers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from playwright.sync_api import Browser

from demo.run import PRODUCT
from demo.stripe_stand_in import StandIn
from tests.helpers.api import Api
from tests.helpers.browser import Visitor, chromium
from tests.helpers.needed_programs import require
from tests.helpers.proxy import Proxy
from tests.helpers.serving import DrivenClock, serving, serving_at
from tests.helpers.shop import Shop, Site, stripe_settings
from tests.helpers.stores import STORES

# For a search that takes minutes: tests/stores/test_model.py.
settings.register_profile("long", deadline=None, max_examples=2000, stateful_step_count=100, print_blob=True)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Serve with two workers, for tests that look only at their own pictures."""
    with serving(tmp_path_factory.mktemp("shared") / "served") as server:
        yield Api(server)


@pytest.fixture
def api(shared: Api) -> Api:
    """Serve with two workers, with an empty folder."""
    shared.server.clear()
    return shared


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Api]:
    """Serve with two workers that the test may kill."""
    with serving(tmp_path / "served") as server:
        yield Api(server)


@pytest.fixture
def clock(tmp_path: Path) -> DrivenClock:
    return DrivenClock(tmp_path / "clock")


@pytest.fixture(params=STORES)
def store_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the settings that select each store."""
    with STORES[request.param](tmp_path) as backend:
        yield backend.settings


@pytest.fixture(scope="session")
def open_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    clock = DrivenClock(folder / "clock")
    with StandIn(clock=clock) as stand_in:
        settings = {**stripe_settings(stand_in), "HEROIMG_MAX_IMAGE_BYTES": "20000000"}
        with serving_at(clock, folder / "served", settings) as server:
            yield Shop(Api(server), stand_in, clock)


@pytest.fixture
def shop(open_shop: Shop) -> Shop:
    """Serve with two workers, with an empty folder and an empty stand-in for Stripe."""
    open_shop.clear()
    return open_shop


@pytest.fixture(scope="session")
def open_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    clock = DrivenClock(folder / "clock")
    with StandIn(clock=clock) as stand_in, Proxy() as proxy:
        settings = {"FRONTEND_URL": proxy.url, **PRODUCT, **stripe_settings(stand_in)}
        with serving_at(clock, folder / "served", settings) as server:
            proxy.target = server.url
            yield Site(Api(server), stand_in, clock, proxy)


@pytest.fixture
def site(open_site: Site) -> Iterator[Site]:
    """Serve the page as well, with an empty folder."""
    open_site.clear()
    yield open_site
    open_site.proxy.clear()  # a request that the proxy holds would keep the server from stopping


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    require("chromium")
    with chromium() as started:
        yield started


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[[str], Visitor]]:
    """Open browsers, each with a profile of its own, as a "phone" or a "desktop"; fail if one reports an error."""
    visitors = list[Visitor]()

    def arrive(window: str) -> Visitor:
        visitors.append(Visitor(browser, window))
        return visitors[-1]

    yield arrive
    for visitor in visitors:
        visitor.context.close()
    assert [complaint for visitor in visitors for complaint in visitor.complaints] == []


@pytest.fixture
def visitor(visit: Callable[[str], Visitor]) -> Visitor:
    """Open one browser, as a desktop."""
    return visit("desktop")
