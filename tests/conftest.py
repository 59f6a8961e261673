"""Fixtures: a server that most tests share, a stand-in for Stripe, and a clock to drive."""

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
def api(tmp_path: Path) -> Iterator[Api]:
    """Serve with two workers, for one test, from an empty folder."""
    with serving(tmp_path / "served") as server:
        yield Api(server)


@pytest.fixture
def clock(tmp_path: Path) -> DrivenClock:
    return DrivenClock(tmp_path / "clock")


@pytest.fixture
def stripe_stand_in(clock: DrivenClock) -> Iterator[StandIn]:
    with StandIn(clock=clock) as stand_in:
        yield stand_in


@pytest.fixture
def shop(tmp_path: Path, clock: DrivenClock, stripe_stand_in: StandIn) -> Iterator[Api]:
    """Serve with two workers, a driven clock, and the stand-in for Stripe, webhook included."""
    settings = {
        "STRIPE_SECRET_KEY": "sk_test_standin",
        "STRIPE_WEBHOOK_SECRET": "whsec_standin",
        "STRIPE_API_BASE": stripe_stand_in.url,
    }
    with serving_at(clock, tmp_path / "served", settings) as server:
        stripe_stand_in.webhook_url = f"{server.url}/api/checkout/webhook"
        yield Api(server)
