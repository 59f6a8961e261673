"""The commands `show` and `forget`, which describe and remove one picture, in each store."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.stripe_stand_in import StandIn
from tests.helpers import pictures
from tests.helpers.api import Api, new_token
from tests.helpers.redis_servers import RedisServer
from tests.helpers.requirements import require
from tests.helpers.serving import DrivenClock, serving
from tests.helpers.shop import Shop, stripe_settings


class Desk:
    """A shop, the operator's commands, and what its store holds."""

    def __init__(self, shop: Shop, redis: RedisServer | None) -> None:
        self.shop = shop
        self.api = shop.api
        self._redis = redis

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self.api.server.flask(*command)

    def lines(self, *command: str) -> list[str]:
        ran = self.run(*command)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.splitlines()

    def error(self, *command: str) -> str:
        ran = self.run(*command)
        assert (ran.returncode, ran.stdout) == (1, "")
        return ran.stderr

    def names(self) -> list[str]:
        if self._redis is None:
            return self.api.server.names()
        return [name for name in self._redis.names() if "rate" not in name]


@pytest.fixture(params=["files", "redis"])
def desk(request: pytest.FixtureRequest, tmp_path: Path, clock: DrivenClock) -> Iterator[Desk]:
    redis = None
    if request.param == "redis":
        require("redis-server")
        redis = RedisServer(tmp_path / "redis")
        redis.start()
    with StandIn() as stand_in:
        settings = stripe_settings(stand_in) | ({"REDIS_URL": redis.url} if redis else {})
        with serving(tmp_path / "served", settings, workers=1) as server:
            stand_in.webhook_url = f"{server.url}/api/checkout/webhook"
            yield Desk(Shop(Api(server), stand_in, clock), redis)
    if redis:
        redis.__exit__()


def test_show_says_what_is_known_of_a_picture_and_prints_no_whole_id(desk: Desk) -> None:
    image_id, token = desk.api.keep(pictures.jpeg()), new_token()
    session_id = desk.api.session_of(image_id)
    desk.shop.stand_in.pay(session_id)
    desk.api.retrieve(image_id, token)
    names = (image_id, f"{image_id[:6]}...", image_id[:6], session_id, f"{session_id[:12]}...")
    shown = [desk.lines("show", name) for name in names]
    for lines in shown:
        assert lines[0] == f"picture {image_id[:6]}...: image/jpeg, {len(pictures.jpeg())} bytes"
        assert lines[1].startswith("stored: 20")
        assert lines[2].endswith("in 1440 minutes")
        assert "claim: a reader has it until " in lines[3]
        assert lines[4] == f"checkout: {session_id[:12]}..., noted as complete; Stripe says complete, paid"
        assert not [secret for secret in (image_id, session_id, token) if secret in "\n".join(lines)]


def test_show_explains_a_payment_whose_picture_is_gone(desk: Desk) -> None:
    image_id = desk.api.keep(pictures.jpeg())
    session_id = desk.api.session_of(image_id)
    desk.shop.stand_in.pay(session_id)
    desk.api.confirm(image_id)
    first, second = desk.lines("show", session_id)
    assert first == f"checkout {session_id[:12]}...: Stripe says complete, paid"
    assert second.startswith(f"picture {image_id[:6]}...: handed over, expired, or removed by `forget`. Look for")
    assert f"Look for `confirmed {image_id[:6]}...` and `handed over {image_id[:6]}...` in the log" in second
    assert f"No picture is held for {image_id[:6]}...: it was handed over" in desk.error("show", image_id)
    assert "Stripe has no such session" in desk.error("show", "cs_test_" + "x" * 58)


def test_a_session_that_its_picture_has_forgotten_still_finds_the_picture(desk: Desk) -> None:
    replaced = desk.api.session_of(image_id := desk.api.keep(pictures.jpeg()))
    desk.shop.stand_in.expire(replaced)
    current = desk.api.session_of(image_id)
    asked = f"checkout {replaced[:12]}...: Stripe says expired, unpaid"
    lines = desk.lines("show", replaced)
    assert lines[:2] == [asked, f"picture {image_id[:6]}...: image/jpeg, {len(pictures.jpeg())} bytes"]
    assert lines[-1] == f"checkout: {current[:12]}..., noted as open; Stripe says open, unpaid"
    desk.shop.stand_in.fail_next("500", 10)
    assert f"No picture's record has {replaced[:12]}..., and Stripe cannot be asked" in desk.error("forget", replaced)
    desk.shop.stand_in.recover()
    assert desk.lines("forget", replaced) == [
        asked,
        f"checkout {current[:12]}... is ended",
        f"picture {image_id[:6]}... is removed, with everything that was noted about it",
    ]
    assert desk.names() == []
    assert "No picture is held" in desk.error("forget", replaced)


def test_a_name_that_is_none_or_means_several_pictures_is_refused(desk: Desk) -> None:
    assert "Give at least four digits" in desk.error("show", "abc")
    for _ in range(2):
        desk.api.session_of(desk.api.keep(pictures.jpeg()))
    assert "2 pictures match cs_test_...: give more of the id" in desk.error("forget", "cs_test_")
    assert desk.api.server.flask("held").stdout.startswith("Pictures held: 2,")


def test_forget_ends_the_checkout_and_leaves_nothing_of_the_picture(desk: Desk) -> None:
    kept = desk.api.keep(pictures.jpeg())
    image_id, token = desk.api.keep(pictures.jpeg()), new_token()
    session_id = desk.api.session_of(image_id)
    desk.api.retrieve(image_id, token)
    assert desk.lines("forget", f"{image_id[:6]}...") == [
        f"checkout {session_id[:12]}... is ended",
        f"picture {image_id[:6]}... is removed, with everything that was noted about it",
    ]
    assert desk.shop.stand_in.sessions[session_id]["status"] == "expired"
    assert [name for name in desk.names() if kept not in name] == []
    assert desk.api.retrieve(image_id, token).status_code == 404
    assert "No picture is held" in desk.error("forget", image_id)
    assert desk.api.retrieve(kept).content == pictures.jpeg()


def test_forget_reports_a_payment(desk: Desk) -> None:
    session_id = desk.api.session_of(image_id := desk.api.keep(pictures.jpeg()))
    desk.shop.stand_in.pay(session_id)
    assert "is complete: refund it if the customer asks" in desk.lines("forget", image_id)[0]
    assert desk.names() == []


@pytest.mark.parametrize("change", ["another account", "no key"])
def test_forget_reports_a_checkout_that_it_could_not_end(desk: Desk, change: str) -> None:
    session_id = desk.api.session_of(image_id := desk.api.keep(pictures.jpeg()))
    if change == "another account":
        desk.shop.stand_in.clear()
    else:
        for name in stripe_settings(desk.shop.stand_in):
            del desk.api.server.environ[name]
    assert desk.lines("forget", image_id) == [
        f"checkout {session_id[:12]}... is not in this Stripe account, or STRIPE_SECRET_KEY is not set: it may still "
        "be payable, so expire it in its own account",
        f"picture {image_id[:6]}... is removed, with everything that was noted about it",
    ]
    assert desk.names() == []


def test_forget_leaves_the_picture_while_its_checkout_may_be_open(desk: Desk) -> None:
    desk.api.session_of(image_id := desk.api.keep(pictures.jpeg()))
    desk.shop.stand_in.fail_next("500", 10)
    assert "The picture stays, and its checkout may still be open (payment_failed)" in desk.error("forget", image_id)
    desk.shop.stand_in.recover()
    assert desk.api.retrieve(image_id, new_token()).status_code == 200
