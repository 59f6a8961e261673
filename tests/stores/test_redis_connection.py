"""Connections to Redis that no longer work: after a planned failover, and after a long idle time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.machines import OpenMachines
from tests.helpers.redis_network import RedisNetwork
from tests.helpers.redis_servers import RedisServer
from tests.helpers.serving import wait_for
from tests.helpers.store_shelf import TOKEN


def keep_many(api: Api) -> list[str]:
    """Upload at the same time, so that the worker has several connections."""
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: api.upload(pictures.jpeg()), range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6
    return [answer.json()["imageId"] for answer in answers]


def is_online(redis: RedisServer) -> bool:
    """Return whether Redis has one replica that follows, as FAILOVER requires. It may have all keys before that."""
    replication = redis.client.info("replication")
    return bool(replication["connected_slaves"] == 1 and replication["slave0"]["state"] == "online")


def test_after_a_planned_failover_every_request_is_served_over_new_connections(
    redis: RedisServer, open_machines: OpenMachines, tmp_path: Path
) -> None:
    with (
        RedisServer(tmp_path / "heir", replicaof=f"127.0.0.1 {redis.port}") as heir,
        RedisNetwork(redis.port) as network,
    ):
        api = open_machines(network.url).one
        ids = keep_many(api)
        wait_for(lambda: is_online(redis), "the replica to follow")
        redis.client.execute_command("FAILOVER", "TO", "127.0.0.1", heir.port)
        wait_for(lambda: heir.client.info("replication")["role"] == "master", "the failover")
        wait_for(lambda: redis.client.info("replication")["role"] == "slave", "the failover")
        network.target = heir.port
        with ThreadPoolExecutor(6) as pool:
            assert [answer.status_code for answer in pool.map(api.open_checkout, ids)] == [200] * 6
        keep_many(api)
        assert api.request("GET", "/readyz").status_code == 200
        assert api.retrieve(ids[0], TOKEN).status_code == 200
        assert api.confirm(ids[0], TOKEN).status_code == 204
        assert "answered 503" not in api.server.log()


def wait_until_idle(redis: RedisServer) -> None:
    """Wait until Redis has had no command for two seconds from any connection but the test's own."""

    def is_idle() -> bool:
        own = redis.client.client_id()
        return all(int(each["idle"]) >= 2 for each in redis.client.client_list() if int(each["id"]) != own)

    wait_for(is_idle, "all connections to be idle")


def test_after_a_quiet_time_every_request_is_served_though_the_network_forgot_the_connections(
    redis: RedisServer, open_machines: OpenMachines
) -> None:
    with RedisNetwork(redis.port) as network, ThreadPoolExecutor(6) as pool:
        api = open_machines(network.url, HEROIMG_SWEEP_SECONDS="0").one

        def is_served_after_a_quiet_time() -> bool:
            ids = keep_many(api)
            wait_until_idle(redis)
            network.forget_connections()
            return {answer.status_code for answer in pool.map(api.open_checkout, ids)} == {200}

        # A busy machine may take longer for a new connection than heroimg waits, but not three times.
        assert any(is_served_after_a_quiet_time() for _ in range(3))
