"""Redis with a fault: full, unreachable, killed in the middle of traffic, or without enough replicas."""

from __future__ import annotations

import random
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import requests

from tests.helpers import pictures
from tests.helpers.api import WEBHOOK, Api, new_token
from tests.helpers.machines import Machines, OpenMachines
from tests.helpers.redis_servers import RedisCluster, RedisServer
from tests.helpers.serving import LONG, Server, serving, wait_for
from tests.helpers.store_shelf import OTHER_TOKEN, TOKEN

pytestmark = pytest.mark.proof


def test_a_full_redis_refuses_uploads_and_hands_pictures_over(tmp_path: Path, open_machines: OpenMachines) -> None:
    with RedisServer(tmp_path / "redis", maxmemory="12mb") as redis:
        machines = open_machines(redis.url)
        one, kept = machines.one, list[str]()
        while (answer := one.upload(pictures.portrait())).status_code == 200:
            kept.append(answer.json()["imageId"])
        assert (answer.status_code, answer.json()["code"]) == (507, "no_room")
        assert "maxmemory" in one.server.log()
        assert len(redis.names()) == len(kept) >= 1
        redis.client.config_set("maxmemory", "1mb")
        assert one.request("GET", "/healthz").status_code == 200
        ready = one.request("GET", "/readyz")
        assert (ready.status_code, "maxmemory" in ready.json()["error"]) == (503, True)
        for image_id in kept:
            assert one.retrieve(image_id, TOKEN).content == pictures.portrait()
            assert one.retrieve(image_id, OTHER_TOKEN).status_code == 409
            assert one.confirm(image_id, TOKEN).status_code == 204
        redis.client.config_set("maxmemory", "12mb")
        assert one.upload(pictures.portrait()).status_code == 200


EVERYTHING: list[Callable[[Api, str], requests.Response]] = [
    lambda api, _: api.upload(pictures.jpeg()),
    lambda api, image_id: api.retrieve(image_id),
    lambda api, image_id: api.retrieve(image_id, TOKEN, "HEAD"),
    lambda api, image_id: api.confirm(image_id),
    lambda api, image_id: api.open_checkout(image_id),
    lambda api, _: api.request("GET", "/healthz"),
    lambda api, _: api.request("GET", "/readyz"),
]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["gone", "silent"])
def test_without_redis_everything_is_503_until_it_is_back(machines: Machines, redis: RedisServer, number: int) -> None:
    api = machines.one
    image_id = api.keep(pictures.jpeg())
    redis.end(number)
    for ask in EVERYTHING:
        answer = ask(api, image_id)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert "Redis at REDIS_URL failed" in api.server.log()
    assert "Traceback" not in api.server.log()
    if number == signal.SIGSTOP:
        redis.resume()
    else:
        redis.start()
    wait_for(lambda: api.request("GET", "/healthz").status_code == 200, "the connection to be back")
    machines.clock.forward(301)  # a claim that got 503 may still have been made, once Redis answered again
    assert api.retrieve(image_id).content == pictures.jpeg()


def test_without_redis_each_command_prints_one_sentence(tmp_path: Path, redis: RedisServer) -> None:
    redis.end()
    server = Server(tmp_path / "served", {"REDIS_URL": redis.url})
    server.folder.mkdir()
    for command in (("held",), ("sweep",), ("show", "8cf0c9"), ("forget", "8cf0c9")):
        ran = server.flask(*command)
        assert ran.returncode == 1
        assert re.fullmatch(r"Error: Redis at REDIS_URL failed \(ConnectionError: .*refused\.\)\n", ran.stderr)


def test_workers_start_without_redis_and_work_once_it_is_there(tmp_path: Path, redis: RedisServer) -> None:
    redis.end()
    with serving(tmp_path / "served", {"REDIS_URL": redis.url}) as server:
        assert Api(server).request("GET", "/readyz").status_code == 503
        redis.start()
        wait_for(lambda: Api(server).request("GET", "/readyz").status_code == 200, "the connection")


class Traffic:
    """Customers of two machines who upload, pay and fetch while Redis fails, and the answers that they got."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._data = pictures.jpeg(0.2)
        self.pinned: set[str] = set()
        self.received = Counter[str]()
        self.surprises: list[str] = []
        self.is_over = threading.Event()

    def customer(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.is_over.is_set():
            api = chance.choice([self._machines.one, self._machines.two])
            if (image_id := self._bring(api)) and chance.random() < 0.7:
                self._fetch(chance, image_id)

    def _bring(self, api: Api) -> str | None:
        upload = self._noted(api.upload(self._data), 200)
        if upload is None:
            return None
        image_id: str = upload.json()["imageId"]
        if self._noted(api.open_checkout(image_id), 200) is None:
            return None
        self.pinned.add(image_id)
        return image_id

    def _fetch(self, chance: random.Random, image_id: str) -> None:
        """Fetch the picture, with a new claim in each attempt, and confirm it."""
        for _ in range(30):
            token = new_token()
            answer = self._noted(self._machines.two.retrieve(image_id, token), 200, 404, 409)
            if answer is not None and answer.status_code == 200:
                if answer.content != self._data:
                    self.surprises.append(f"{len(answer.content)} bytes")
                self.received[image_id] += 1
                for _ in range(60):
                    if self._noted(self._machines.one.confirm(image_id, token), 204, 409) is not None:
                        break
                    self.is_over.wait(0.1)
                return
            self.is_over.wait(chance.random() / 10)

    def _noted(self, answer: requests.Response, *expected: int) -> requests.Response | None:
        if answer.status_code in expected:
            return answer
        if answer.status_code != 503:
            self.surprises.append(f"{answer.status_code} {answer.text[:100]}")
        return None

    def is_beyond(self, count: int) -> bool:
        return len(self.pinned) > count


def expect_promises_kept(machines: Machines, traffic: Traffic) -> None:
    assert traffic.surprises == []
    assert {image_id: count for image_id, count in traffic.received.items() if count > 1} == {}
    machines.clock.forward(301)  # past every claim
    for image_id in traffic.pinned - set(traffic.received):
        assert machines.one.retrieve(image_id).status_code == 200
    for image_id in traffic.received:
        assert machines.one.retrieve(image_id).status_code == 404


def test_redis_killed_and_started_again_in_the_middle_of_traffic_loses_and_doubles_nothing(
    tmp_path: Path, open_machines: OpenMachines
) -> None:
    # docs/redis.md asks for this. With everysec, Redis answers before a write if a slow disk is busy.
    with RedisServer(tmp_path / "redis", appendfsync="always") as redis:
        machines = open_machines(redis.url)
        traffic = Traffic(machines)

        def troubles(traffic: Traffic) -> None:
            for number in range(1, 5):
                wait_for(partial(traffic.is_beyond, 10 * number), "some traffic")
                redis.end()
                redis.start()

        run(traffic, troubles)
        assert len(traffic.pinned) > 40
        expect_promises_kept(machines, traffic)


def run(traffic: Traffic, troubles: Callable[[Traffic], None]) -> None:
    with ThreadPoolExecutor(6) as pool:
        customers = [pool.submit(traffic.customer, seed) for seed in range(6)]
        try:
            troubles(traffic)
        finally:
            traffic.is_over.set()
        for customer in customers:
            customer.result()


@pytest.mark.proof
def test_a_failover_of_the_cluster_in_the_middle_of_traffic_loses_and_doubles_nothing(
    tmp_path: Path, open_machines: OpenMachines
) -> None:
    with RedisCluster(tmp_path / "cluster", replicas=1) as cluster:
        machines = open_machines(cluster.url, HEROIMG_REDIS_REPLICAS="1")
        traffic = Traffic(machines)

        def troubles(traffic: Traffic) -> None:
            wait_for(partial(traffic.is_beyond, 10), "some traffic")
            cluster.nodes[0].end()
            heir = cluster.nodes[3].client
            wait_for(lambda: heir.info("replication")["role"] == "master", "the replica to take over")
            cluster.nodes[0].start()
            wait_for(lambda: cluster.nodes[0].client.info("replication").get("master_link_status") == "up", "the other")
            wait_for(partial(traffic.is_beyond, len(traffic.pinned) + 10), "traffic again")

        run(traffic, troubles)
        expect_promises_kept(machines, traffic)


def test_no_checkout_is_opened_for_a_picture_that_too_few_replicas_have(
    redis: RedisServer, open_machines: OpenMachines, tmp_path: Path
) -> None:
    machines = open_machines(redis.url, HEROIMG_REDIS_REPLICAS="1")
    image_id = machines.one.keep(pictures.jpeg())
    assert machines.one.open_checkout(image_id).status_code == 503
    assert "0 of 1 replicas" in machines.one.server.log()
    assert machines.stand_in.sessions == {}
    with RedisServer(tmp_path / "replica", replicaof=f"127.0.0.1 {redis.port}") as replica:
        # Ask until the checkout opens: a connected replica may still take longer than a checkout waits for it.
        wait_for(lambda: machines.one.open_checkout(image_id).status_code == 200, "the replica to have the picture")
        assert replica.names() == redis.names()


def test_a_picture_is_on_the_disk_before_its_checkout_is_opened_if_redis_can_tell(
    redis: RedisServer, open_machines: OpenMachines
) -> None:
    machines = open_machines(redis.url)
    machines.one.session_of(machines.one.keep(pictures.jpeg()))
    server = redis.client.info("server")
    can_tell = "valkey_version" in server or server["redis_version"] >= "7.2"
    waited = redis.client.info("commandstats").get("cmdstat_waitaof", {"calls": 0, "failed_calls": 0})
    assert (waited["calls"] - waited["failed_calls"] == 1) == can_tell


def begin_checkout(machines: Machines, pool: ThreadPoolExecutor) -> tuple[str, Future[requests.Response]]:
    """Open a checkout for a picture that is on the replica; Stripe answers once the stand-in is released."""
    other, image_id = machines.one.keep(pictures.jpeg()), machines.one.keep(pictures.jpeg())
    wait_for(lambda: machines.one.open_checkout(other).status_code == 200, "the replica to follow")
    asked = machines.stand_in.hold()

    def open_checkout() -> requests.Response:
        """Ask again while the pin gets 503, because the replica's slow disk takes longer than the 0.7 s allowed."""
        for _ in range(100):
            answer = machines.one.open_checkout(image_id)
            if asked.is_set():
                break
        return answer

    opening = pool.submit(open_checkout)
    assert asked.wait(LONG)  # so the pin has reached the replica
    return image_id, opening


def wait_until_replica_is_lost(redis: RedisServer) -> None:
    wait_for(lambda: redis.client.info("replication")["connected_slaves"] == 0, "the replica to be lost")


def test_a_checkout_that_no_replica_has_recorded_is_ended_and_not_returned(
    redis: RedisServer, open_machines: OpenMachines, tmp_path: Path
) -> None:
    with (
        RedisServer(tmp_path / "replica", replicaof=f"127.0.0.1 {redis.port}") as replica,
        ThreadPoolExecutor(1) as pool,
    ):
        machines = open_machines(redis.url, HEROIMG_REDIS_REPLICAS="1")
        image_id, opening = begin_checkout(machines, pool)
        replica.client.execute_command("REPLICAOF", "NO", "ONE")
        wait_until_replica_is_lost(redis)
        machines.stand_in.release()
        assert opening.result().status_code == 503
        assert [session["status"] for session in machines.stand_in.sessions.values()] == ["open", "expired"]
        redis.end()
        on_replica = open_machines(replica.url).one
        assert on_replica.retrieve(image_id).status_code == 200


def test_a_checkout_that_no_replica_has_recorded_and_that_stays_open_is_not_returned_by_the_next_request(
    redis: RedisServer, open_machines: OpenMachines, tmp_path: Path
) -> None:
    with (
        RedisServer(tmp_path / "replica", replicaof=f"127.0.0.1 {redis.port}") as replica,
        ThreadPoolExecutor(1) as pool,
    ):
        machines = open_machines(redis.url, HEROIMG_REDIS_REPLICAS="1")
        image_id, opening = begin_checkout(machines, pool)
        replica.end()
        wait_until_replica_is_lost(redis)
        machines.stand_in.fail_next("429", times=20)  # so the session cannot be ended either
        machines.stand_in.release()
        assert opening.result().status_code == 503
        machines.stand_in.recover()
        assert machines.one.open_checkout(image_id).status_code == 503
        assert [session["status"] for session in machines.stand_in.sessions.values()] == ["open", "open"]
        replica.start()
        wait_for(lambda: machines.one.open_checkout(image_id).status_code == 200, "the replica to be back")


def test_the_event_of_a_payment_is_asked_for_again_while_no_replica_can_note_it(
    redis: RedisServer, open_machines: OpenMachines, tmp_path: Path
) -> None:
    with RedisServer(tmp_path / "replica", replicaof=f"127.0.0.1 {redis.port}") as replica:
        settings = {"HEROIMG_REDIS_REPLICAS": "1", "STRIPE_WEBHOOK_SECRET": "whsec_standin"}
        machines = open_machines(redis.url, **settings)
        image_id = machines.one.keep(pictures.jpeg())
        wait_for(lambda: machines.one.open_checkout(image_id).status_code == 200, "the replica to follow")
        session_id = machines.one.session_of(image_id)
        machines.stand_in.pay(session_id)
        replica.end()
        wait_until_replica_is_lost(redis)
        machines.stand_in.webhook_url = machines.one.server.url + WEBHOOK

        def answer() -> int | None:
            delivery = machines.stand_in.send_webhook("checkout.session.completed", session_id)
            assert delivery
            return delivery.status

        assert answer() == 503
        replica.start()
        wait_for(lambda: answer() == 200, "the replica to be back")
