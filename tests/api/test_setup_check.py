"""`flask --app heroimg.wsgi check`: each test breaks one part of the set-up, and reads the line about it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import stripe

from demo.stripe_stand_in import StandIn
from heroimg.config import Config
from heroimg.operations.setup_check import SetupCheck
from heroimg.payments.stripe_sessions import StripeSessions
from heroimg.payments.stripe_setup import StripeSetup
from heroimg.stores import open_store
from heroimg.stores.files.folder import Folder
from heroimg.stores.files.setup import check_folder
from heroimg.stores.redis import setup as redis_setup
from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.needed_programs import needs, needs_root, require
from tests.helpers.redis_servers import RedisServer
from tests.helpers.serving import DrivenClock, Server, serving, wait_for
from tests.helpers.shop import stripe_settings
from tests.helpers.store_shelf import UNKNOWN

WEBHOOK = "https://heroimg.example.com/api/checkout/webhook"


class Checked(NamedTuple):
    """The lines that the command reported, and its exit status."""

    lines: list[dict[str, str]]
    status: int

    def sentences(self, state: str, subject: str) -> str:
        """Join the sentences of one kind."""
        return "\n".join(
            line["sentence"] for line in self.lines if line["state"] == state and line["subject"] == subject
        )


def check(server: Server, *arguments: str, before: tuple[str, ...] = ()) -> Checked:
    ran = server.flask("check", "--json", *arguments, before=before)
    assert ran.stdout.startswith("["), ran.stdout + ran.stderr
    return Checked(json.loads(ran.stdout), ran.returncode)


@pytest.fixture
def stand_in(clock: DrivenClock) -> Iterator[StandIn]:
    with StandIn(clock=clock, webhook_url=WEBHOOK) as stand_in:
        yield stand_in


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    require("redis-server")
    with RedisServer(tmp_path / "redis") as server:
        yield server


def server_of(folder: Path, stand_in: StandIn, **settings: str) -> Server:
    return Server(folder, {**stripe_settings(stand_in), **settings})


def test_a_good_set_up_has_no_warning_and_exits_with_0(tmp_path: Path, stand_in: StandIn) -> None:
    server = server_of(tmp_path, stand_in)
    checked = check(server)
    assert [line for line in checked.lines if line["state"] != "ok"] == []
    assert checked.status == 0
    subjects = {"settings", "threads", "instance folder", "folder", "store", "stripe", "clock"}
    assert {line["subject"] for line in checked.lines} == subjects
    assert "the account is Stand-in (acct_standin)" in checked.sentences("ok", "stripe")
    assert server.names() == []
    assert {session["status"] for session in stand_in.sessions.values()} == {"expired"}


def test_without_json_each_finding_is_one_line(tmp_path: Path) -> None:
    ran = Server(tmp_path, {}).flask("check")
    assert ran.returncode == 0
    assert "ok       threads: this host allows them\n" in ran.stdout
    assert "warning  stripe: checkouts get 503: set STRIPE_SECRET_KEY, for example to rk_live_...\n" in ran.stdout
    assert "warning  clock: it is not compared with Stripe's, because STRIPE_SECRET_KEY is not set\n" in ran.stdout
    assert {line.split()[0] for line in ran.stdout.splitlines()} == {"ok", "warning"}


def test_no_secret_is_printed(tmp_path: Path, stand_in: StandIn, redis: RedisServer) -> None:
    redis.client.config_set("requirepass", "hidden-word")
    url = f"redis://:hidden-word@127.0.0.1:{redis.port}/0"
    server = server_of(tmp_path, stand_in, REDIS_URL=url)
    for mode in ("200", "401", "500"):
        if mode != "200":
            stand_in.fail_next(mode)
        for arguments in ((), ("--json",)):
            ran = server.flask("check", *arguments)
            for secret in ("sk_test_standin", "whsec_standin", "hidden-word", *stand_in.sessions):
                assert secret not in ran.stdout + ran.stderr


# Settings


def test_every_fault_of_the_settings_is_a_line_and_the_other_commands_still_refuse(tmp_path: Path) -> None:
    wrong = {
        "HEROIMG_UPLOAD_DIRS": "x",
        "HEROIMG_METRICS": "2",
        "STRIPE_SECRET_KEY": "sk_test_x",
        "HEROIMG_IMAGE_SECONDS": "3000",
    }
    server = Server(tmp_path, wrong)
    checked = check(server)
    assert checked.status == 1
    assert {line["state"] for line in checked.lines} == {"fault"}
    faults = checked.sentences("fault", "settings")
    assert "HEROIMG_UPLOAD_DIRS is not a setting" in faults
    assert "HEROIMG_METRICS must be a whole number from 0 to 1, not '2'; for example 0" in faults
    assert "HEROIMG_IMAGE_SECONDS minus HEROIMG_RETURN_SECONDS is 1800" in faults
    held = server.flask("held")
    assert (held.returncode, held.stdout) == (1, "")
    assert "heroimg cannot start with these settings" in held.stderr


# The folders


@pytest.mark.parametrize(("name", "setting"), [("uploads", "HEROIMG_UPLOAD_DIR"), ("instance", "HEROIMG_INSTANCE_DIR")])
def test_a_folder_that_cannot_be_one_is_a_fault_with_the_setting(tmp_path: Path, name: str, setting: str) -> None:
    (tmp_path / name).touch()
    checked = check(Server(tmp_path, {}))
    assert checked.status == 1
    assert checked.sentences("fault", "settings").startswith(f"{setting} is {tmp_path / name}, ")
    assert "make it a folder that belongs to the user running heroimg" in checked.sentences("fault", "settings")


@needs_root
@pytest.mark.parametrize(("name", "subject"), [("uploads", "folder"), ("instance", "instance folder")])
def test_a_folder_of_another_user_is_a_fault(tmp_path: Path, name: str, subject: str) -> None:
    (tmp_path / name).mkdir(0o700)
    os.chown(tmp_path / name, 12345, 12345)
    checked = check(Server(tmp_path, {}))
    assert checked.status == 1
    sentence = "belongs to uid 12345, and this command runs as uid 0: run it as the user"
    assert sentence in checked.sentences("fault", subject)


def test_an_instance_folder_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "instance").mkdir()
    (tmp_path / "instance").chmod(0o755)
    checked = check(Server(tmp_path, {}))
    assert f"`chmod 700 {tmp_path}/instance`" in checked.sentences("warning", "instance folder")
    assert checked.status == 0


def test_the_commands_make_private_files_whatever_the_umask_is(tmp_path: Path, stand_in: StandIn) -> None:
    server = server_of(tmp_path, stand_in, HEROIMG_METRICS="1")
    for command in (("check",), ("show", "cs_test_" + "a" * 58)):  # the second counts its call to Stripe
        server.flask(*command, before=("sh", "-c", 'umask 022; exec "$@"', "sh"))
    files = [path for path in (tmp_path / "instance").rglob("*") if path.is_file()]
    assert len(files) > 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_files_that_others_can_read_are_a_warning(tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir(0o700)
    (tmp_path / "uploads" / UNKNOWN).touch(0o644)
    sidecar = tmp_path / "uploads" / f"{UNKNOWN}.json"
    sidecar.touch(0o600)
    sidecar.write_text('{"mimetype": "image/png", "timestamp": 1}')
    checked = check(Server(tmp_path, {}))
    assert "1 files in" in checked.sentences("warning", "folder")
    assert "-exec chmod 600" in checked.sentences("warning", "folder")


@needs("strace")
def test_a_lock_that_excludes_no_process_is_a_fault(tmp_path: Path) -> None:
    before = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:retval=0")
    checked = check(Server(tmp_path, {}), before=before)
    assert checked.status == 1
    assert "locks (flock) do not keep others out" in checked.sentences("fault", "settings")


@needs("strace")
def test_a_lock_that_does_not_keep_a_second_process_out_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for injected, state, sentence in (
        ("retval=0", "fault", "does not keep a second process out"),
        ("error=ENOLCK", "warning", "No locks available"),
    ):
        second = tmp_path / state
        strace = f"strace -qq -o /dev/null -e trace=flock -e inject=flock:{injected}"
        second.write_text(f'#!/bin/sh\nexec {strace} {sys.executable} "$@"\n')
        second.chmod(0o755)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(second))
            findings = list(check_folder(Folder(tmp_path / "uploads", 0)))
        (wrong,) = [finding for finding in findings if finding.state != "ok"]
        assert (wrong.state, wrong.subject) == (state, "folder")
        assert sentence in wrong.sentence
    assert list((tmp_path / "uploads").iterdir()) == []


@needs("strace")
def test_a_file_that_cannot_be_renamed_is_a_fault(tmp_path: Path) -> None:
    calls = "rename,renameat,renameat2"
    before = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:error=EXDEV")
    server = Server(tmp_path, {})
    checked = check(server, before=before)
    assert checked.status == 1
    assert "cannot be renamed (Invalid cross-device link)" in checked.sentences("fault", "folder")
    assert server.names() == []


def test_few_free_bytes_are_a_warning_and_too_few_a_fault(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    free = status.f_bavail * status.f_frsize
    checked = check(Server(tmp_path, {"HEROIMG_MIN_FREE_BYTES": str(free * 2 // 3)}))
    assert "bytes free, and uploads are refused below" in checked.sentences("warning", "folder")
    assert checked.status == 0
    checked = check(Server(tmp_path, {"HEROIMG_MIN_FREE_BYTES": str(2**50)}))
    assert "below HEROIMG_MIN_FREE_BYTES=" in checked.sentences("fault", "store")


@needs_root
def test_few_free_inodes_are_a_warning(tmp_path: Path) -> None:
    disk = tmp_path / "uploads"
    disk.mkdir(0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g,nr_inodes=200,mode=700", "tmpfs", str(disk)], check=True)
    try:
        server = Server(tmp_path, {"HEROIMG_MIN_FREE_BYTES": "268435456"})
        assert "inodes free, and uploads are refused below 128" in check(server).sentences("warning", "folder")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# Stripe


@pytest.mark.parametrize(
    ("key", "state", "sentence"),
    [
        ("sk_test_other", "fault", "Stripe refuses the key: set STRIPE_SECRET_KEY to one under Developers > API keys"),
        ("rk_test_account", "fault", "the key may not write Checkout Sessions: give it that permission"),
        ("rk_test_checkout", "warning", "the key may not read webhook endpoints: check them yourself; under"),
        ("rk_test_checkout", "ok", "the key may not read the account's name, and heroimg does not need it"),
    ],
)
def test_the_missing_permissions_of_a_key_are_reported(
    tmp_path: Path, stand_in: StandIn, key: str, state: str, sentence: str
) -> None:
    checked = check(server_of(tmp_path, stand_in, STRIPE_SECRET_KEY=key))
    assert sentence in checked.sentences(state, "stripe")
    assert checked.status == (1 if state == "fault" else 0)


@pytest.mark.parametrize(("seconds", "direction"), [(90, "behind"), (-90, "ahead of"), (900, "behind")])
def test_a_clock_that_is_off_is_a_fault(tmp_path: Path, clock: DrivenClock, seconds: int, direction: str) -> None:
    with StandIn(clock=lambda: clock() + seconds) as stand_in:
        checked = check(server_of(tmp_path, stand_in))
    assert checked.status == 1
    assert f"seconds {direction} Stripe's: synchronise it, for example by `timedatectl" in checked.sentences(
        "fault", "clock"
    )


def test_a_stripe_out_of_reach_is_a_fault_with_its_reason(tmp_path: Path, stand_in: StandIn) -> None:
    stand_in.fail_next("disconnect", 4)
    checked = check(server_of(tmp_path, stand_in))
    assert checked.sentences("fault", "stripe") == (
        f"{stand_in.url} cannot be reached (Remote end closed connection without response): let the firewall allow "
        "connections to it"
    )
    checked = check(server_of(tmp_path, stand_in, STRIPE_API_BASE="http://127.0.0.1:9"))
    assert "http://127.0.0.1:9 cannot be reached (Connection refused): let" in checked.sentences("fault", "stripe")


def test_a_price_that_stripe_refuses_is_a_fault(tmp_path: Path, stand_in: StandIn) -> None:
    checked = check(server_of(tmp_path, stand_in, HEROIMG_CURRENCY="xyz"))
    assert "correct the settings of the product" in checked.sentences("fault", "stripe")


def test_without_a_webhook_secret_the_warning_names_the_endpoint_to_add(tmp_path: Path, stand_in: StandIn) -> None:
    checked = check(server_of(tmp_path, stand_in, STRIPE_WEBHOOK_SECRET=""))
    assert "set STRIPE_WEBHOOK_SECRET to the secret of a webhook endpoint" in checked.sentences("warning", "stripe")
    assert "checkout.session.async_payment_failed" in checked.sentences("warning", "stripe")


def no_endpoint(stand_in: StandIn) -> None:
    stand_in.webhook_url = None


def another_address(stand_in: StandIn) -> None:
    stand_in.webhook_url = "https://heroimg.example.com/webhook"


def disabled(stand_in: StandIn) -> None:
    stand_in.webhook["status"] = "disabled"


def one_event(stand_in: StandIn) -> None:
    stand_in.webhook["enabled_events"] = ["checkout.session.completed"]


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (no_endpoint, "the webhook endpoint for this address is missing"),
        (another_address, "the webhook endpoint for this address is missing"),
        (disabled, "the webhook endpoint for this address is disabled"),
        (one_event, "does not get checkout.session.async_payment_failed, checkout.session.async_payment_succeeded"),
    ],
)
def test_a_webhook_endpoint_that_gets_not_every_event_is_a_fault(
    tmp_path: Path, stand_in: StandIn, break_it: Callable[[StandIn], None], sentence: str
) -> None:
    break_it(stand_in)
    checked = check(server_of(tmp_path, stand_in))
    assert sentence in checked.sentences("fault", "stripe")
    assert checked.status == 1


def test_an_endpoint_of_another_address_is_a_fault_if_the_address_is_known(stand_in: StandIn, tmp_path: Path) -> None:
    config = config_of(tmp_path, stand_in)
    findings = list(StripeSetup(config, StripeSessions(config, stand_in.clock), stand_in.clock).check("https://a.test"))
    assert "enabled endpoint https://a.test/api/checkout/webhook must get" in findings[-1].sentence


def test_another_api_version_is_a_warning(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(tmp_path, stand_in)
    setup = StripeSetup(config, StripeSessions(config, stand_in.clock), stand_in.clock)
    current = stripe.api_version
    monkeypatch.setattr(stripe, "api_version", "2099-01-01.later")
    warnings = [finding.sentence for finding in setup.check(None) if finding.state == "warning"]
    assert warnings == [
        f"Stripe answers in its API version {current}, and heroimg uses 2099-01-01.later: upgrade heroimg"
    ]


def config_of(folder: Path, stand_in: StandIn) -> Config:
    return Config.from_env(
        {
            **stripe_settings(stand_in),
            "HEROIMG_UPLOAD_DIR": str(folder / "uploads"),
            "HEROIMG_INSTANCE_DIR": str(folder / "instance"),
        }
    )


# Redis


def test_a_good_redis_is_reported_with_its_version(tmp_path: Path, redis: RedisServer) -> None:
    checked = check(Server(tmp_path, {"REDIS_URL": redis.url}))
    assert checked.status == 0
    assert f"its version is {redis.client.info('server')['redis_version']}" in checked.sentences("ok", "redis")
    assert "it evicts no picture, and keeps pictures when it restarts" in checked.sentences("ok", "redis")
    assert not [name for name in redis.names() if name.startswith("heroimg:{")]


def test_a_redis_that_loses_pictures_is_a_warning(tmp_path: Path, redis: RedisServer) -> None:
    redis.client.config_set("appendonly", "no")
    redis.client.config_set("maxmemory-policy", "allkeys-lru")
    warnings = check(Server(tmp_path, {"REDIS_URL": redis.url})).sentences("warning", "redis")
    assert "set its maxmemory-policy to noeviction, not allkeys-lru" in warnings
    assert "set its appendonly to yes" in warnings


def test_an_old_redis_is_a_fault(tmp_path: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_setup, "_CALLS", (("EVAL", "#", 0),))  # Redis 6.2 answers the same to a script with flags
    config = Config(redis_url=redis.url, instance_dir=tmp_path)
    setup = SetupCheck(config, open_store(config, lambda: 0), lambda _url: (), lambda: None)
    (sentence,) = {
        finding.sentence for finding in setup.run() if (finding.state, finding.subject) == ("fault", "redis")
    }
    assert "too old to run heroimg's scripts: install 7.0 or later, or Valkey" in sentence


def test_missing_replicas_are_a_fault(tmp_path: Path, redis: RedisServer) -> None:
    checked = check(Server(tmp_path, {"REDIS_URL": redis.url, "HEROIMG_REDIS_REPLICAS": "1"}))
    assert "0 replicas are connected, and HEROIMG_REDIS_REPLICAS is 1" in checked.sentences("fault", "redis")
    assert checked.status == 1


def test_a_replica_that_nothing_waits_for_is_a_warning(tmp_path: Path, redis: RedisServer) -> None:
    with RedisServer(tmp_path / "replica", replicaof=f"127.0.0.1 {redis.port}"):
        wait_for(lambda: redis.client.info("replication")["connected_slaves"] == 1, "the replica to connect")
        warnings = check(Server(tmp_path, {"REDIS_URL": redis.url})).sentences("warning", "redis")
    assert "1 replicas are connected, and a failover may still lose a paid picture" in warnings
    assert "set HEROIMG_REDIS_REPLICAS to 1" in warnings


def test_every_command_that_redis_does_not_allow_is_named(tmp_path: Path, redis: RedisServer) -> None:
    refused = ("hset", "eval", "incrby", "unlink", "scan")
    rules = [f"-{command}" for command in refused]
    redis.client.execute_command("ACL", "SETUSER", "heroimg", "on", ">word", "~*", "+@all", *rules)
    url = f"redis://heroimg:word@127.0.0.1:{redis.port}/0"
    checked = check(Server(tmp_path, {"REDIS_URL": url}))
    assert checked.status == 1
    assert "with ~heroimg:* +hset +unlink +incrby +eval +scan" in checked.sentences("fault", "redis")


def test_a_redis_that_does_not_answer_is_a_fault(tmp_path: Path, redis: RedisServer) -> None:
    redis.end()
    assert "Redis at REDIS_URL failed" in check(Server(tmp_path, {"REDIS_URL": redis.url})).sentences("fault", "store")


def test_the_check_of_a_running_server_leaves_its_pictures_alone(tmp_path: Path) -> None:
    with serving(tmp_path / "served") as server:
        image_id = Api(server).keep(pictures.jpeg())
        assert check(server).status == 0
        assert server.names() == [image_id, f"{image_id}.json"]
