"""Torture: many whole journeys at once, while faults happen everywhere; `python -m tests.soak.torture --help`.

Customers reach nginx and several gunicorn workers through a network that cuts connections at random bytes. The workers
are killed, reloaded and restarted all the time. The stand-in for Stripe fails at random. The sweep runs every second.
Some pictures are about to expire when they arrive. `model.py` compares every answer, and the pictures that remain at
the end, with the promises. The seed decides what each customer does; the timing of faults also depends on the machine.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from heroimg.config import Config
from heroimg.stores import open_store
from tests.helpers.production import Production, addresses, production
from tests.helpers.proxy import Proxy, Stop
from tests.helpers.redis_servers import RedisServer
from tests.helpers.serving import wait_for
from tests.soak.customers import Customer
from tests.soak.model import TortureModel

WORKERS = 4
STRIPE_FAILURES = ("401", "429", "500", "not_json", "disconnect", "lost_answer")
DAYS = 2 * 86400


class Network(Proxy):
    """Cuts one connection in five, after a random number of bytes in one direction or the other."""

    def __init__(self, model: TortureModel, rng: random.Random) -> None:
        super().__init__()
        self._model, self._rng = model, rng
        self.is_calm = False

    def source(self) -> str:
        return next(addresses)

    def stop_for(self, data: bytes) -> Stop | None:
        is_new = data.startswith(b"\x16\x03")  # a TLS handshake
        if self.is_calm or not is_new or self._rng.random() > 0.2:
            return None
        self._model.note_fault("connections cut")
        return Stop(b"", after=int(10 ** self._rng.uniform(0, 6)), upwards=self._rng.random() < 0.5)


class Faults:
    """The faults of the server, each caused again and again by a thread of its own until :meth:`stop`."""

    def __init__(self, house: Production, model: TortureModel, seed: int) -> None:
        self._house, self._model, self._seed = house, model, seed
        self._is_over = threading.Event()
        self._asked_before = 0
        self._threads = [
            threading.Thread(target=model.watch(self._again_and_again), args=arguments)
            for arguments in (
                (self._kill_a_worker, 0.5, 2.0),
                (self._restart, 6.0, 12.0),
                (self._fail_stripe, 0.05, 0.4),
            )
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _again_and_again(self, fault: Callable[[random.Random], None], least: float, most: float) -> None:
        rng = random.Random(f"{self._seed} {fault.__name__}")
        while not self._is_over.wait(rng.uniform(least, most)):
            fault(rng)

    def _kill_a_worker(self, rng: random.Random) -> None:
        with suppress(OSError, AssertionError, IndexError):  # no worker: the server is restarting
            worker = rng.choice(self._house.server.workers())
            with self._model.fault("workers killed (-9)"):
                self._model.killed_at.append(time.time())
                os.kill(worker, signal.SIGKILL)

    def _restart(self, rng: random.Random) -> None:
        if rng.random() < 0.5:
            with self._model.fault("reloads"):
                self._house.server.signal(signal.SIGHUP)
        else:
            with self._model.fault("restarts"):
                self._house.server.stop()
                self._house.start()

    def _fail_stripe(self, rng: random.Random) -> None:
        asked = len(self._house.stand_in.requests)
        if asked - self._asked_before >= 3:  # so that some requests succeed
            self._asked_before = asked
            with self._model.fault("failures of Stripe"):
                self._house.stand_in.fail_next(rng.choice(STRIPE_FAILURES))


def torture(folder: Path, store: str, seed: int, customers: int, seconds: float) -> TortureModel:
    """Run customers and faults for some seconds, then end the faults and check the remaining pictures."""
    model = TortureModel(store, seed)
    rng = random.Random(seed)
    settings = {"HEROIMG_SWEEP_SECONDS": "1"}
    with ExitStack() as stack:
        if store == "redis":
            redis = stack.enter_context(RedisServer(folder / "redis"))
            settings["REDIS_URL"] = redis.url
        house = stack.enter_context(production(folder / "whole", WORKERS, None, **settings))
        network = Network(model, rng)
        stack.enter_context(network)
        network.target = house.url
        config = Config.from_env(house.server.environ)
        earlier = open_store(config, lambda: time.time() - config.image_seconds + 3)
        faults = Faults(house, model, seed)
        deadline = time.monotonic() + seconds
        people = [Customer(house, network.url, model, earlier, random.Random(f"{seed} {n}")) for n in range(customers)]
        threads = [threading.Thread(target=model.watch(person.make_journeys), args=(deadline,)) for person in people]
        faults.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        faults.stop()
        network.is_calm = True
        wait_for(lambda: len(house.server.workers()) == WORKERS, "all workers to be there")
        people[0].check_remaining_pictures()
        server = house.server
        if store == "files":
            server.flask("sweep")
            model.check_names(server.names())
            open_store(config, lambda: time.time() + DAYS).sweep()
            model.check_nothing_is_left(server.names())
        else:
            model.check_names([f"{key}{suffix}" for key in _held(redis) for suffix in ("", ".json")])
            model.check_nothing_is_left([key for key in redis.names() if redis.client.ttl(key) < 0])
        model.check_log(server.log())
        model.check_journeys(customers)
    return model


def _held(redis: RedisServer) -> list[str]:
    return [key.removeprefix("heroimg:{").removesuffix("}") for key in redis.names() if key.startswith("heroimg:{")]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.torture", description=(__doc__ or "").partition(";")[0])
    parser.add_argument("--seconds", type=float, default=90, help="how long customers begin journeys, per store")
    parser.add_argument("--customers", type=int, default=24, help="the number of customers at once")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="decides what the customers do")
    parser.add_argument("--store", choices=["files", "redis"], action="append", help="one store; by default both")
    asked = parser.parse_args()
    models = []
    for store in asked.store or ["files", "redis"]:
        with tempfile.TemporaryDirectory(prefix="heroimg-torture-") as folder:
            models.append(torture(Path(folder), store, asked.seed, asked.customers, asked.seconds))
        print(models[-1].table(), flush=True)
    return 1 if any(model.violations for model in models) else 0


if __name__ == "__main__":
    sys.exit(main())
