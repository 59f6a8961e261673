"""Fixtures: a Redis, and two machines over it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from demo.stripe_stand_in import StandIn
from tests.helpers.api import Api
from tests.helpers.machines import Machines, OpenMachines
from tests.helpers.needed_programs import require
from tests.helpers.redis_servers import RedisServer
from tests.helpers.serving import DrivenClock, serving_at

NAMES = ("machine1", "machine2")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    require("redis-server")
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def open_machines(tmp_path: Path, clock: DrivenClock) -> Iterator[OpenMachines]:
    with ExitStack() as stack:

        def open_two(url: str, **settings: str) -> Machines:
            stand_in = stack.enter_context(StandIn(clock=clock))
            settings = {
                "REDIS_URL": url,
                "STRIPE_SECRET_KEY": "sk_test_standin",
                "STRIPE_API_BASE": stand_in.url,
                **settings,
            }
            servers = [  # one worker each is enough
                stack.enter_context(serving_at(clock, tmp_path / name, settings, workers=1)) for name in NAMES
            ]
            return Machines([Api(server) for server in servers], stand_in, clock)

        yield open_two


@pytest.fixture
def machines(redis: RedisServer, open_machines: OpenMachines) -> Machines:
    return open_machines(redis.url)
