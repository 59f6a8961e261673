"""Pictures in Redis: two gunicorns as two machines, and a Redis that is full, gone, killed, or set wrongly."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from demo.stripe_stand_in import StandIn
from tests.helpers import pictures
from tests.helpers.api import Api, new_token
from tests.helpers.redis_servers import RedisCluster, RedisServer
from tests.helpers.requirements import require
from tests.helpers.serving import DrivenClock, Server, serving, serving_at, wait_for

CLAIM, OTHER = "the-token-of-one", "the-token-of-two"


@pytest.fixture(autouse=True)
def _programs() -> None:
    require("redis-server")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


class Machines:
    """Two gunicorns with folders of their own, over one Redis, one stand-in for Stripe and one clock."""

    def __init__(self, apis: list[Api], stand_in: StandIn, clock: DrivenClock) -> None:
        self.one, self.two = apis
        self.stand_in = stand_in
        self.clock = clock


OpenMachines = Callable[..., Machines]


NAMES = ("machine1", "machine2")


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
            servers = [  # of one worker each: that there are two machines is what matters here
                stack.enter_context(serving_at(clock, tmp_path / name, settings, workers=1)) for name in NAMES
            ]
            return Machines([Api(server) for server in servers], stand_in, clock)

        yield open_two


@pytest.fixture
def machines(redis: RedisServer, open_machines: OpenMachines) -> Machines:
    return open_machines(redis.url)


@pytest.mark.proof
def test_of_16_readers_on_two_machines_exactly_one_gets_the_picture_in_each_of_100_rounds(machines: Machines) -> None:
    apis = [machines.one, machines.two]
    data = pictures.jpeg()
    with ThreadPoolExecutor(16) as pool:
        for number in range(100):
            image_id = apis[number % 2].keep(data)
            tokens = [new_token() if number % 4 < 2 else None for _ in range(16)]
            readers = [pool.submit(api.retrieve, image_id, token) for api, token in zip(apis * 8, tokens, strict=True)]
            answers = [reader.result() for reader in readers]
            assert Counter(answer.status_code for answer in answers)[200] == 1
            assert {answer.status_code for answer in answers} <= {200, 404, 409}
            assert [answer.content for answer in answers if answer.status_code == 200] == [data]


def test_a_journey_begun_on_one_machine_ends_on_the_other(machines: Machines, redis: RedisServer) -> None:
    one, two = machines.one, machines.two
    image_id = one.keep(pictures.portrait())
    session_id = two.session_of(image_id)
    assert one.session_of(image_id) == session_id
    machines.stand_in.pay(session_id)
    assert one.status(session_id).json()["status"] == "complete"
    assert two.open_checkout(image_id).json()["code"] == "checkout_complete"
    answer = two.retrieve(image_id, CLAIM)
    assert (answer.content, answer.headers["Content-Type"]) == (pictures.portrait(), "image/jpeg")
    assert one.retrieve(image_id, OTHER).status_code == 409
    assert one.confirm(image_id, CLAIM).status_code == 204
    assert two.retrieve(image_id, CLAIM).status_code == 404
    assert redis.names() == []
    for api in (one, two):
        assert not (api.server.folder / "uploads").exists()
        assert not (api.server.folder / "instance").exists()


@pytest.mark.parametrize("claim", [None, CLAIM], ids=["plain", "with a claim"])
def test_a_machine_killed_in_the_middle_of_a_retrieval_leaves_the_picture_to_the_other(
    redis: RedisServer, open_machines: OpenMachines, claim: str | None
) -> None:
    machines = open_machines(redis.url, HEROIMG_MAX_IMAGE_BYTES="20000000")
    one, two = machines.one, machines.two
    image_id = one.keep(pictures.long_jpeg())
    query = f"?imageId={image_id}" + (f"&claim={claim}" if claim else "")
    with one.connection(window=32768) as connection:
        connection.sendall(f"GET /api/temp-image-retrieve{query} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        assert connection.recv(1000)
        one.server.kill()
    assert two.retrieve(image_id, OTHER).status_code == 409
    machines.clock.forward(301)
    assert two.retrieve(image_id, OTHER).content == pictures.long_jpeg()


def test_rates_hold_over_all_machines(redis: RedisServer, open_machines: OpenMachines) -> None:
    machines = open_machines(redis.url, HEROIMG_UPLOAD_RATE="5 per hour")
    answers = [api.upload(pictures.jpeg()) for api in [machines.one, machines.two] * 3]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert 3590 <= int(answers[-1].headers["Retry-After"]) <= 3601


def test_keys_of_others_in_the_same_redis_are_neither_read_nor_deleted(machines: Machines, redis: RedisServer) -> None:
    others: dict[str, str] = {
        "a" * 32: "plain",
        "heroimg": "name",
        "heroimg:{x}": "braces",
        "heroimg:{" + "g" * 32 + "}": "g",
    }
    for key, value in others.items():
        redis.client.set(key, value)
    image_id = machines.one.keep(pictures.jpeg())
    for strange in (*others, "*", "../" + image_id, image_id + "}", "{" + image_id):
        assert machines.one.retrieve(strange).status_code == 404
        assert machines.one.confirm(strange).status_code == 204
        assert machines.one.open_checkout(strange).status_code == 404
    assert "Pictures held: 1," in machines.one.server.flask("held").stdout
    assert machines.one.server.flask("sweep").stdout == "Swept 0 expired pictures and 0 leftovers.\n"
    assert machines.one.retrieve(image_id).status_code == 200
    wait_for(lambda: redis.names() == sorted(others), "the picture to be gone, and nothing else")
    assert {key: redis.client.get(key).decode() for key in others} == others


def test_a_script_cache_that_was_flushed_does_no_harm(machines: Machines, redis: RedisServer) -> None:
    image_id = machines.one.keep(pictures.jpeg())
    assert machines.one.retrieve(image_id, CLAIM).status_code == 200
    redis.client.script_flush()
    assert machines.one.retrieve(image_id, CLAIM).status_code == 200
    redis.client.script_flush()
    assert machines.one.confirm(image_id, CLAIM).status_code == 204


def test_redis_forgets_a_picture_when_its_time_is_over_and_every_picture_has_such_a_time(
    tmp_path: Path, redis: RedisServer
) -> None:
    settings = {"REDIS_URL": redis.url, "HEROIMG_IMAGE_SECONDS": "1"}
    with serving(tmp_path / "served", settings) as server:
        image_id = Api(server).keep(pictures.jpeg())
        assert redis.client.ttl(f"heroimg:{{{image_id}}}") in (0, 1)
        wait_for(lambda: redis.names() == [], "Redis to forget it")


def test_the_bytes_are_kept_as_they_are_in_one_hash_a_picture(machines: Machines, redis: RedisServer) -> None:
    data = pictures.portrait()
    image_id = machines.one.keep(data)
    assert redis.names() == [f"heroimg:{{{image_id}}}"]
    fields = redis.client.hgetall(redis.names()[0])
    assert b"".join(fields[str(number).encode()] for number in range(int(fields[b"blocks"]))) == data


def memory(worker: int, what: str) -> int:
    """Read how many megabytes a process has, or had at the most since it was last asked to forget."""
    line = next(line for line in Path(f"/proc/{worker}/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) // 1024


def test_a_worker_has_a_picture_in_memory_once_while_it_passes_and_none_of_those_held(tmp_path: Path) -> None:
    settings = {"HEROIMG_IMAGE_CHECK": "header", "HEROIMG_MAX_IMAGE_BYTES": str(32 * 2**20)}
    with (
        RedisServer(tmp_path / "redis", appendonly="no") as redis,
        serving(tmp_path / "served", {"REDIS_URL": redis.url, **settings}, workers=1) as server,
    ):
        api = Api(server)
        (worker,) = server.workers()
        api.retrieve(api.keep(pictures.jpeg()))
        before = memory(worker, "VmHWM")
        picture = pictures.jpeg().ljust(30 * 2**20, b"\0")
        image_id = api.keep(picture)
        assert memory(worker, "VmHWM") - before < 55
        Path(f"/proc/{worker}/clear_refs").write_text("5")  # forget the peak
        before = memory(worker, "VmRSS")
        assert api.retrieve(image_id).content == picture
        assert memory(worker, "VmHWM") - before < 55
        for _ in range(20):
            api.keep(pictures.portrait())
        before = memory(worker, "VmRSS")
        for _ in range(40):
            api.keep(pictures.portrait())
        assert memory(worker, "VmRSS") - before < 20


# A Redis that does not do its work


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
            assert one.retrieve(image_id, CLAIM).content == pictures.portrait()
            assert one.retrieve(image_id, OTHER).status_code == 409
            assert one.confirm(image_id, CLAIM).status_code == 204
        redis.client.config_set("maxmemory", "12mb")
        assert one.upload(pictures.portrait()).status_code == 200


EVERYTHING: list[Callable[[Api, str], requests.Response]] = [
    lambda api, _: api.upload(pictures.jpeg()),
    lambda api, image_id: api.retrieve(image_id),
    lambda api, image_id: api.retrieve(image_id, CLAIM, "HEAD"),
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
    assert "does not do its work" in api.server.log()
    assert "Traceback" not in api.server.log()
    if number == signal.SIGSTOP:
        redis.resume()
    else:
        redis.start()
    wait_for(lambda: api.request("GET", "/healthz").status_code == 200, "the connection to be back")
    machines.clock.forward(301)  # a claim that was told 503 may have been made all the same, when Redis spoke again
    assert api.retrieve(image_id).content == pictures.jpeg()


def test_workers_start_without_redis_and_work_once_it_is_there(tmp_path: Path, redis: RedisServer) -> None:
    redis.end()
    with serving(tmp_path / "served", {"REDIS_URL": redis.url}) as server:
        assert Api(server).request("GET", "/readyz").status_code == 503
        redis.start()
        wait_for(lambda: Api(server).request("GET", "/readyz").status_code == 200, "the connection")


class Traffic:
    """Customers of two machines who come, pay and go while Redis has its troubles, and what they were told."""

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
        """Let two readers of their own ask for it until one has it, as pages do."""
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
    redis: RedisServer, machines: Machines
) -> None:
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


# A Redis that is not set as it should be


def test_readyz_warns_where_redis_could_lose_pictures(tmp_path: Path, redis: RedisServer) -> None:
    with serving(tmp_path / "served", {"REDIS_URL": redis.url}) as server:

        def ready() -> Any:
            answer = Api(server).request("GET", "/readyz")
            assert answer.status_code == 200
            return answer.json()

        assert ready() == {"status": "ok"}
        for policy in ("allkeys-lru", "volatile-ttl"):
            redis.client.config_set("maxmemory-policy", policy)
            (warning,) = ready()["warnings"]
            assert f"set its maxmemory-policy to noeviction, not {policy}" in warning
        redis.client.config_set("appendonly", "no")
        assert any("set its appendonly to yes" in warning for warning in ready()["warnings"])


def test_no_checkout_is_opened_for_a_picture_that_too_few_replicas_have(
    redis: RedisServer, open_machines: OpenMachines, tmp_path: Path
) -> None:
    machines = open_machines(redis.url, HEROIMG_REDIS_REPLICAS="1")
    image_id = machines.one.keep(pictures.jpeg())
    assert machines.one.open_checkout(image_id).status_code == 503
    assert "0 of 1 replicas" in machines.one.server.log()
    assert machines.stand_in.sessions == {}
    with RedisServer(tmp_path / "replica", replicaof=f"127.0.0.1 {redis.port}") as replica:
        # The replica says so earlier than the primary, and the primary's word is what WAIT counts by.
        wait_for(lambda: redis.client.info("replication").get("slave0", {}).get("state") == "online", "the replica")
        assert machines.one.open_checkout(image_id).status_code == 200
        assert replica.names() == redis.names()


def test_a_picture_is_on_the_disk_before_its_checkout_is_opened_where_redis_can_tell(
    redis: RedisServer, open_machines: OpenMachines
) -> None:
    machines = open_machines(redis.url)
    machines.one.session_of(machines.one.keep(pictures.jpeg()))
    server = redis.client.info("server")
    can_tell = "valkey_version" in server or server["redis_version"] >= "7.2"
    waited = redis.client.info("commandstats").get("cmdstat_waitaof", {"calls": 0, "failed_calls": 0})
    assert (waited["calls"] - waited["failed_calls"] == 1) == can_tell


def test_the_password_of_redis_url_never_reaches_the_log(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", requirepass="a-long-secret") as redis:
        url = redis.url.replace("://", "://:a-long-secret@")
        with serving(tmp_path / "served", {"REDIS_URL": url}) as server:
            assert Api(server).request("GET", "/readyz").status_code == 200
            redis.end()
            assert Api(server).request("GET", "/readyz").status_code == 503
            assert f"pictures wait in {redis.url}" in server.log()
            assert "a-long-secret" not in server.log()


def test_a_unix_socket_serves_too(tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    with (
        RedisServer(tmp_path / "redis", unixsocket=str(socket)),
        serving(tmp_path / "served", {"REDIS_URL": f"unix://{socket}?db=0"}) as server,
    ):
        image_id = Api(server).keep(pictures.jpeg())
        assert Api(server).retrieve(image_id).content == pictures.jpeg()


@pytest.mark.parametrize(
    "url", ["redis://:hunter2/x@localhost:6379", "redis+cluster://localhost", "redis://localhost/?maxconnections=3"]
)
def test_a_redis_url_that_cannot_be_read_stops_the_start_and_is_not_repeated(tmp_path: Path, url: str) -> None:
    server = Server(tmp_path, {"REDIS_URL": url})
    with pytest.raises(AssertionError, match="REDIS_URL cannot be read") as stopped:
        server.gunicorn()
    assert "hunter2" not in str(stopped.value)


@pytest.fixture
def without_redis_py(tmp_path: Path) -> dict[str, Any]:
    """Make an environment in which `import redis` fails as if it were not installed."""
    (tmp_path / "hidden" / "redis").mkdir(parents=True)
    (tmp_path / "hidden" / "redis" / "__init__.py").write_text("raise ModuleNotFoundError('No module named redis')\n")
    server = Server(tmp_path, {})
    return {"PYTHONPATH": f"{tmp_path / 'hidden'}:{server.environ['PYTHONPATH']}"}


def test_without_redis_py_the_start_says_what_to_install(tmp_path: Path, without_redis_py: dict[str, str]) -> None:
    server = Server(tmp_path, {"REDIS_URL": "redis://localhost", **without_redis_py})
    with pytest.raises(AssertionError, match=r"pip install -r requirements-redis\.txt"):
        server.gunicorn()


def test_without_redis_url_nobody_imports_redis(tmp_path: Path, without_redis_py: dict[str, str]) -> None:
    with serving(tmp_path, without_redis_py) as server:
        assert Api(server).upload(pictures.jpeg()).status_code == 200
