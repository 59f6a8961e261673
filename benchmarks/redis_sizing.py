"""What a picture and a journey cost a Redis, for docs/redis.md: `python -m benchmarks.redis_sizing`.

Starts a redis-server, a gunicorn and the stand-in for Stripe on free ports, and reads Redis' own counters.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from demo.stripe_stand_in import StandIn
from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.redis_servers import RedisServer
from tests.helpers.serving import serving
from tests.helpers.shop import stripe_settings

SIZES = (0.7, 1.2, 3.0, 4.9)
HELD = 50
JOURNEYS = 20
CLAIM = "a-token-of-the-benchmark"


def main() -> None:
    with tempfile.TemporaryDirectory() as name, StandIn() as stand_in, RedisServer(Path(name) / "redis") as redis:
        settings = {
            "REDIS_URL": redis.url,
            **stripe_settings(stand_in),
            "HEROIMG_IMAGE_CHECK": "header",
        }
        with serving(Path(name) / "served", settings) as server:
            api = Api(server)
            stand_in.webhook_url = f"{server.url}/api/checkout/webhook"
            print(f"Redis {redis.client.info('server')['redis_version']}, {HELD} pictures of each size held")
            for size in SIZES:
                print_held(redis, api, pictures.jpeg().ljust(int(size * 1024 * 1024), b"\0"), size)
            print(f"\nOne journey with a picture of 3 MB, the mean of {JOURNEYS}")
            print_journey(redis, api, stand_in)


def print_held(redis: RedisServer, api: Api, picture: bytes, size: float) -> None:
    redis.client.flushall()
    api.keep(picture)  # what Redis takes once, such as the connections' buffers
    before = redis.client.info("memory")["used_memory"]
    for _ in range(HELD):
        api.keep(picture)
    each = (redis.client.info("memory")["used_memory"] - before) / HELD
    print(f"{size:4.1f} MB: {each:>10,.0f} bytes of memory a picture, {each / len(picture):.3f} of its size")


def print_journey(redis: RedisServer, api: Api, stand_in: StandIn) -> None:
    picture = pictures.jpeg().ljust(3 * 1024 * 1024, b"\0")
    steps: dict[str, Callable[[str, str], Any]] = {
        "embedded-session": lambda image_id, _: api.session_of(image_id),
        "webhook": lambda _, session_id: stand_in.pay(session_id),
        "session-status": lambda _, session_id: api.status(session_id),
        "retrieve": lambda image_id, _: api.retrieve(image_id, CLAIM),
        "confirm": lambda image_id, _: api.confirm(image_id, CLAIM),
    }
    costs: dict[str, list[tuple[int, int, int]]] = {name: [] for name in ("upload", *steps)}
    for _ in range(JOURNEYS):
        image_id, cost = measured(redis, lambda: api.keep(picture))
        costs["upload"].append(cost)
        session_id = ""
        for name, step in steps.items():
            result, cost = measured(redis, partial(step, image_id, session_id))
            session_id = session_id or result
            costs[name].append(cost)
    print(f"{'step':18}{'commands':>10}{'bytes in':>12}{'bytes out':>12}")
    total = [0.0, 0.0, 0.0]
    for name, found in costs.items():
        means = [sum(column) / len(found) for column in zip(*found, strict=True)]
        total = [one + other for one, other in zip(total, means, strict=True)]
        print(f"{name:18}{means[0]:>10.1f}{means[1]:>12,.0f}{means[2]:>12,.0f}")
    print(f"{'together':18}{total[0]:>10.1f}{total[1]:>12,.0f}{total[2]:>12,.0f}")


def measured(redis: RedisServer, action: Callable[[], Any]) -> tuple[Any, tuple[int, int, int]]:
    """Do something; return what comes of it, and Redis' commands and bytes in and out, less what asking costs."""
    before = counters(redis)
    nothing = counters(redis)
    result = action()
    after = counters(redis)
    own = [later - earlier for later, earlier in zip(nothing, before, strict=True)]
    cost = [later - earlier - less for later, earlier, less in zip(after, nothing, own, strict=True)]
    return result, (cost[0], cost[1], cost[2])


def counters(redis: RedisServer) -> tuple[int, int, int]:
    stats = redis.client.info("stats")
    return stats["total_commands_processed"], stats["total_net_input_bytes"], stats["total_net_output_bytes"]


if __name__ == "__main__":
    main()
