"""The commands `show` and `forget`, which describe and remove one picture, in each store."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.stripe_stand_in import StandIn
from demo.stripe_stand_in.answers import Answer, ApiRequest, Silence
from heroimg.logs import short
from tests.helpers import pictures
from tests.helpers.api import Api, new_token
from tests.helpers.needed_programs import require
from tests.helpers.redis_servers import RedisServer
from tests.helpers.serving import DrivenClock, serving
from tests.helpers.shop import Shop, stripe_settings


class Operator:
    """A shop, the operator's commands, and the names in its store."""

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


@pytest.fixture(params=["files", pytest.param("redis", marks=pytest.mark.proof)])
def operator(request: pytest.FixtureRequest, tmp_path: Path, clock: DrivenClock) -> Iterator[Operator]:
    redis = None
    if request.param == "redis":
        require("redis-server")
        redis = RedisServer(tmp_path / "redis")
        redis.start()
    with StandIn() as stand_in:
        settings = stripe_settings(stand_in) | ({"REDIS_URL": redis.url} if redis else {})
        with serving(tmp_path / "served", settings, workers=1) as server:
            stand_in.webhook_url = f"{server.url}/api/checkout/webhook"
            yield Operator(Shop(Api(server), stand_in, clock), redis)
    if redis:
        redis.__exit__()


def test_show_says_what_is_known_of_a_picture_and_prints_no_whole_id(operator: Operator) -> None:
    image_id, token = operator.api.keep(pictures.jpeg()), new_token()
    session_id = operator.api.session_of(image_id)
    operator.shop.stand_in.pay(session_id)
    operator.api.retrieve(image_id, token)
    names = (image_id, f"{image_id[:6]}...", image_id[:6], session_id, f"{session_id[:12]}...")
    shown = [operator.lines("show", name) for name in names]
    for lines in shown:
        assert lines[0] == f"picture {image_id[:6]}...: image/jpeg, {len(pictures.jpeg())} bytes"
        assert lines[1].startswith("stored: 20")
        assert lines[2].endswith("in 1440 minutes")
        assert "claim: a reader has it until " in lines[3]
        assert lines[4] == f"checkout: {session_id[:12]}..., noted as complete; Stripe says complete, paid"
        assert not [secret for secret in (image_id, session_id, token) if secret in "\n".join(lines)]


def test_show_explains_a_payment_whose_picture_is_gone(operator: Operator) -> None:
    image_id = operator.api.keep(pictures.jpeg())
    session_id = operator.api.session_of(image_id)
    operator.shop.stand_in.pay(session_id)
    operator.api.confirm(image_id)
    first, second = operator.lines("show", session_id)
    assert first == f"checkout {session_id[:12]}...: Stripe says complete, paid"
    assert second.startswith(f"picture {image_id[:6]}...: handed over, expired, or removed by `forget`. Look for")
    assert f"Look for `confirmed {image_id[:6]}...` and `handed over {image_id[:6]}...` in the log" in second
    assert f"No picture is held for {image_id[:6]}...: it was handed over" in operator.error("show", image_id)
    assert "Stripe has no such session" in operator.error("show", "cs_test_" + "x" * 58)


def test_a_replaced_session_still_leads_to_its_picture(operator: Operator) -> None:
    replaced = operator.api.session_of(image_id := operator.api.keep(pictures.jpeg()))
    operator.shop.stand_in.expire(replaced)
    current = operator.api.session_of(image_id)
    asked = f"checkout {replaced[:12]}...: Stripe says expired, unpaid"
    lines = operator.lines("show", replaced)
    assert lines[:2] == [asked, f"picture {image_id[:6]}...: image/jpeg, {len(pictures.jpeg())} bytes"]
    assert lines[-1] == f"checkout: {current[:12]}..., noted as open; Stripe says open, unpaid"
    operator.shop.stand_in.fail_next("500", 10)
    refusal = operator.error("forget", replaced)
    assert f"{replaced[:12]}... is in no picture's record, and Stripe cannot be asked" in refusal
    operator.shop.stand_in.recover()
    assert operator.lines("forget", replaced) == [
        asked,
        f"checkout {current[:12]}... is ended",
        f"picture {image_id[:6]}... is removed, with everything that was noted about it",
    ]
    assert operator.names() == []
    assert "No picture is held" in operator.error("forget", replaced)


def test_a_name_that_is_invalid_or_matches_several_pictures_is_refused(operator: Operator) -> None:
    assert "Give at least four digits" in operator.error("show", "abc")
    for _ in range(2):
        operator.api.session_of(operator.api.keep(pictures.jpeg()))
    assert "2 pictures match cs_test_...: give more of the id" in operator.error("forget", "cs_test_")
    assert operator.api.server.flask("held").stdout.startswith("Pictures held: 2,")


def test_forget_ends_the_checkout_and_leaves_nothing_of_the_picture(operator: Operator) -> None:
    kept = operator.api.keep(pictures.jpeg())
    image_id, token = operator.api.keep(pictures.jpeg()), new_token()
    session_id = operator.api.session_of(image_id)
    operator.api.retrieve(image_id, token)
    assert operator.lines("forget", f"{image_id[:6]}...") == [
        f"checkout {session_id[:12]}... is ended",
        f"picture {image_id[:6]}... is removed, with everything that was noted about it",
    ]
    assert operator.shop.stand_in.sessions[session_id]["status"] == "expired"
    assert [name for name in operator.names() if kept not in name] == []
    assert operator.api.retrieve(image_id, token).status_code == 404
    assert "No picture is held" in operator.error("forget", image_id)
    assert operator.api.retrieve(kept).content == pictures.jpeg()


def test_forget_reports_a_payment(operator: Operator) -> None:
    session_id = operator.api.session_of(image_id := operator.api.keep(pictures.jpeg()))
    operator.shop.stand_in.pay(session_id)
    assert "is complete: refund it if the customer asks" in operator.lines("forget", image_id)[0]
    assert operator.names() == []


def test_forget_asks_for_no_refund_if_a_delayed_payment_has_failed(operator: Operator) -> None:
    image_id = operator.api.keep(pictures.jpeg())
    session_id = operator.api.session_of(image_id)
    operator.shop.stand_in.pay_later(session_id)
    operator.shop.stand_in.decline(session_id)
    assert operator.lines("forget", image_id)[0] == f"checkout {short(session_id)} is ended"


@pytest.mark.parametrize("change", ["another account", "no key"])
def test_forget_reports_a_checkout_that_it_could_not_end(operator: Operator, change: str) -> None:
    session_id = operator.api.session_of(image_id := operator.api.keep(pictures.jpeg()))
    if change == "another account":
        operator.shop.stand_in.clear()
    else:
        for name in stripe_settings(operator.shop.stand_in):
            del operator.api.server.environ[name]
    assert operator.lines("forget", image_id) == [
        f"checkout {session_id[:12]}... is not in this Stripe account, or STRIPE_SECRET_KEY is not set: it may still "
        "be payable, so expire it in its own account",
        f"picture {image_id[:6]}... is removed, with everything that was noted about it",
    ]
    assert operator.names() == []


def test_forget_leaves_the_picture_while_its_checkout_may_be_open(operator: Operator) -> None:
    operator.api.session_of(image_id := operator.api.keep(pictures.jpeg()))
    operator.shop.stand_in.fail_next("500", 10)
    refusal = operator.error("forget", image_id)
    assert "The picture stays, and its checkout may still be open (payment_failed)" in refusal
    operator.shop.stand_in.recover()
    assert operator.api.retrieve(image_id, new_token()).status_code == 200


def open_another_checkout_while_one_ends(
    operator: Operator, image_id: str, monkeypatch: pytest.MonkeyPatch, then: Callable[[str], object]
) -> list[str]:
    """Let the page open another checkout after Stripe has ended one, before the command has the answer.

    :param then: what happens to the other session at once.
    """
    answer, opened = operator.shop.stand_in.answer, list[str]()

    def open_once(request: ApiRequest, authorization: str | None) -> Answer | Silence:
        answered = answer(request, authorization)
        if request.path.endswith("/expire") and not opened:
            opened.append("being opened")
            opened[0] = operator.api.session_of(image_id)
            then(opened[0])
        return answered

    monkeypatch.setattr(operator.shop.stand_in, "answer", open_once)
    return opened


@pytest.mark.parametrize("digits", [6, 32])
def test_forget_ends_a_checkout_that_the_page_has_just_opened(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, digits: int
) -> None:
    first = operator.api.session_of(image_id := operator.api.keep(pictures.jpeg()))
    opened = open_another_checkout_while_one_ends(operator, image_id, monkeypatch, lambda _: None)
    lines = operator.lines("forget", image_id[:digits])
    assert lines == [
        *(f"checkout {session_id[:12]}... is ended" for session_id in (first, *opened)),
        f"picture {image_id[:6]}... is removed, with everything that was noted about it",
    ]
    assert {one["status"] for one in operator.shop.stand_in.sessions.values()} == {"expired"}
    assert operator.names() == []


def test_forget_reports_a_payment_that_comes_meanwhile(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.shop.stand_in.webhook_url = None
    operator.api.session_of(image_id := operator.api.keep(pictures.jpeg()))
    opened = open_another_checkout_while_one_ends(operator, image_id, monkeypatch, operator.shop.stand_in.pay)
    lines = operator.lines("forget", image_id)
    assert f"checkout {opened[0][:12]}... is complete: refund it if the customer asks for that" in lines


def test_forget_says_what_to_do_if_it_cannot_end_a_checkout_that_the_page_has_just_opened(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = operator.api.session_of(image_id := operator.api.keep(pictures.jpeg()))
    opened = open_another_checkout_while_one_ends(
        operator, image_id, monkeypatch, lambda _: operator.shop.stand_in.fail_next("500", 100)
    )
    lines = operator.lines("forget", image_id)
    assert lines == [
        *(
            f"checkout {session_id[:12]}... may still be open (payment_failed): expire it in Stripe's dashboard, or "
            "refund its payment"
            for session_id in (first, *opened)
        ),
        f"picture {image_id[:6]}... is removed, with everything that was noted about it",
    ]
    assert operator.names() == []
