"""The permissions of the user of REDIS_URL: those in docs/redis.md suffice, and the log names a missing one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from heroimg.stores.redis import setup
from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.machines import OpenMachines
from tests.helpers.needed_programs import require
from tests.helpers.redis_servers import RedisCluster, RedisServer
from tests.helpers.serving import ROOT, serving, wait_for
from tests.helpers.store_shelf import TOKEN

PAGE = (ROOT / "docs" / "redis.md").read_text().partition("## TLS and permissions\n")[2].partition("\n## ")[0]
COMMANDS = re.findall(r"^ACL SETUSER heroimg .*", PAGE, re.MULTILINE)
FOR_NEW, FOR_CLUSTERS, FOR_DATABASES = re.findall(r"`(\+[^`]+)`", PAGE.partition("```\n\n")[2])[:3]


@pytest.fixture(autouse=True)
def _programs() -> None:
    require("redis-server")


def allow(servers: list[RedisServer], further: str) -> None:
    """Create the Redis user of docs/redis.md."""
    for server in servers:
        for command in (*COMMANDS, f"ACL SETUSER heroimg {further}"):
            server.client.execute_command(*command.split())


def expect_that_nothing_is_refused(open_machines: OpenMachines, servers: list[RedisServer], url: str) -> None:
    """Do everything that heroimg does with Redis; fail if Redis refused a command."""
    settings = {"HEROIMG_REDIS_REPLICAS": "1", "HEROIMG_UPLOAD_RATE": "9 per second", "HEROIMG_SWEEP_SECONDS": "1"}
    machines = open_machines(url.replace("://", "://heroimg:password@"), **settings)
    api, server = machines.one, machines.one.server
    assert api.request("GET", "/readyz").json() == {"status": "ok"}
    image_id = api.keep(pictures.jpeg())
    session_id = api.session_of(image_id)
    for command in (("held",), ("show", image_id[:6])):
        assert server.flask(*command).returncode == 0
    machines.stand_in.pay(session_id)
    assert api.status(session_id).json()["status"] == "complete"
    assert api.retrieve(image_id, TOKEN).content == pictures.jpeg()
    assert api.confirm(image_id, TOKEN).status_code == 204
    checked = server.flask("check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert server.flask("forget", api.keep(pictures.jpeg())).returncode == 0
    session_id = api.session_of(api.keep(pictures.jpeg()))
    machines.stand_in.pay(session_id)
    assert api.status(session_id).json()["status"] == "complete"
    machines.clock.forward(3601)
    wait_for(lambda: "was paid for" in server.log() + machines.two.server.log(), "a sweep")
    assert [refused for one in servers for refused in one.client.acl_log()] == []


@pytest.mark.proof
def test_the_listed_permissions_suffice(tmp_path: Path, redis: RedisServer, open_machines: OpenMachines) -> None:
    with RedisServer(tmp_path / "replica", replicaof=f"127.0.0.1 {redis.port}") as replica:
        wait_for(lambda: replica.client.info("replication")["master_link_status"] == "up", "the replica to follow")
        allow([redis], FOR_DATABASES)
        expect_that_nothing_is_refused(open_machines, [redis], redis.url.removesuffix("/0") + "/1")


@pytest.mark.proof
def test_the_listed_permissions_suffice_in_a_cluster(tmp_path: Path, open_machines: OpenMachines) -> None:
    with RedisCluster(tmp_path / "redis", replicas=1) as cluster:
        allow(cluster.nodes, FOR_CLUSTERS)
        expect_that_nothing_is_refused(open_machines, cluster.nodes, cluster.url)


def test_exactly_the_listed_commands_are_tried() -> None:
    listed = set(re.findall(r"\+(\w+)", " ".join([*COMMANDS, FOR_NEW])))
    tried = {str(call[0]).lower() for call in (*setup._CALLS, setup._WAIT, *setup._OPERATOR_CALLS)}
    assert tried | {"set", "info"} == listed


@pytest.mark.parametrize("command", ["eval", "hset", "multi", "wait", "ping"])
def test_readyz_fails_if_a_command_that_a_checkout_needs_is_forbidden_and_the_log_names_it(
    tmp_path: Path, redis: RedisServer, command: str
) -> None:
    redis.client.execute_command("ACL", "SETUSER", "heroimg", "on", ">word", "~*", "+@all", f"-{command}")
    url = f"redis://heroimg:word@127.0.0.1:{redis.port}/0"
    with serving(tmp_path / "served", {"REDIS_URL": url, "HEROIMG_REDIS_REPLICAS": "1"}, workers=1) as server:
        assert Api(server).request("GET", "/readyz").status_code == 503
        assert f"may not run {command.upper()} on heroimg:*: allow it" in server.log()
        redis.client.execute_command("ACL", "SETUSER", "heroimg", f"+{command}")
        assert Api(server).request("GET", "/readyz").json() == {"status": "ok"}


def test_readyz_only_warns_if_info_and_config_are_forbidden(tmp_path: Path, redis: RedisServer) -> None:
    rules = ("on", ">word", "~*", "+@all", "-info", "-config")
    redis.client.execute_command("ACL", "SETUSER", "heroimg", *rules)
    url = f"redis://heroimg:word@127.0.0.1:{redis.port}/0"
    with serving(tmp_path / "served", {"REDIS_URL": url}, workers=1) as server:
        answer = Api(server).request("GET", "/readyz")
        assert answer.status_code == 200
        (warning,) = answer.json()["warnings"]
        assert "may not run INFO" in warning
        checked = server.flask("check")
        assert (checked.returncode, "warning  redis: The user of REDIS_URL may not run INFO" in checked.stdout) == (
            0,
            True,
        )
