"""Checkout: no customer pays for a deleted picture or pays twice, and Stripe's failures get an answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from demo.stripe_stand_in import Answer, ApiRequest, Refusal, Silence, StandIn
from heroimg import gunicorn_conf
from heroimg.config import Config
from heroimg.payments.stripe_http import DEADLINE_SECONDS
from heroimg.payments.stripe_sessions import StripeSessions
from tests.helpers import pictures
from tests.helpers.api import RETRIEVE, SESSION, STATUS, WEBHOOK, Api
from tests.helpers.serving import LONG, serving, serving_at, wait_for
from tests.helpers.shop import Shop

MINUTE = 60
DESCRIPTION = "AI-powered personalized feelings board with 24+ custom images"


def sessions_asked_for(stand_in: StandIn) -> list[str | None]:
    """List the idempotency keys of the requests for sessions."""
    return [r.idempotency_key for r in stand_in.requests if (r.method, r.path) == ("POST", "/v1/checkout/sessions")]


def end_of(api: Api, image_id: str) -> int:
    """Return when a picture expires: this is its sidecar's modification time."""
    return int((api.server.uploads / f"{image_id}.json").stat().st_mtime)


def test_stripe_is_asked_for_what_the_front_end_expects(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    secret = shop.api.open_checkout(image_id).json()["client_secret"]
    ((session_id, session),) = shop.stand_in.sessions.items()
    assert secret == session["client_secret"]
    (asked,) = shop.stand_in.requests
    assert asked.params == {
        "mode": "payment",
        "ui_mode": "embedded_page",
        "line_items[0][quantity]": "1",
        "line_items[0][price_data][currency]": "usd",
        "line_items[0][price_data][unit_amount]": "200",
        "line_items[0][price_data][product_data][name]": "Hero Me Feelings - Personalized AAC Board",
        "line_items[0][price_data][product_data][description]": DESCRIPTION,
        "return_url": "http://localhost:3000/hero-me?session_id={CHECKOUT_SESSION_ID}",
        "expires_at": str(end_of(shop.api, image_id) - 20 * MINUTE),
        "metadata[imageId]": image_id,
    }
    assert shop.stand_in.pay(session_id)["return_url"] == f"http://localhost:3000/hero-me?session_id={session_id}"


@pytest.mark.parametrize("minutes", [0, 5, 7, 9, 30, 40, 59])
def test_no_session_can_be_paid_after_its_picture_and_each_leaves_20_minutes_to_come_back(
    shop: Shop, minutes: int
) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    shop.clock.forward(minutes * MINUTE)
    session_id = shop.api.session_of(image_id)
    session = shop.stand_in.sessions[session_id]
    assert session["expires_at"] + 20 * MINUTE == end_of(shop.api, image_id)
    assert session["expires_at"] >= shop.clock() + 32 * MINUTE - 2

    shop.clock.forward(session["expires_at"] - shop.clock() - 3)
    shop.stand_in.pay(session_id)  # at the last moment
    shop.clock.forward(20 * MINUTE)
    assert shop.api.retrieve(image_id).content == pictures.jpeg()


def test_a_session_ends_by_itself_20_minutes_before_its_picture(
    shop: Shop,
) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    session_id = shop.api.session_of(image_id)
    shop.clock.forward(40 * MINUTE + 1)
    with pytest.raises(Refusal, match="expired"):
        shop.stand_in.pay(session_id)
    assert shop.api.retrieve(image_id, method="HEAD").status_code == 200


def test_after_61_minutes_there_is_nothing_to_pay_for(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    shop.clock.forward(61 * MINUTE)
    answer = shop.api.open_checkout(image_id)
    assert (answer.status_code, answer.json()["error"]) == (404, "Image not found or expired")
    assert shop.stand_in.requests == []


def test_asking_again_gives_the_same_session(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    assert len({shop.api.session_of(image_id) for _ in range(3)}) == 1
    assert len(sessions_asked_for(shop.stand_in)) == 1


def double_click(shop: Shop, image_id: str, seconds_between: float = 0) -> list[str]:
    """Ask for a checkout, and again before Stripe has answered the first; return both client secrets."""
    before = len(sessions_asked_for(shop.stand_in))
    is_held = shop.stand_in.hold()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(shop.api.open_checkout, image_id)
        assert is_held.wait(20)
        shop.clock.forward(seconds_between)
        second = pool.submit(shop.api.open_checkout, image_id)
        wait_for(lambda: len(sessions_asked_for(shop.stand_in)) >= before + 2, "the second request to reach Stripe")
        shop.stand_in.release()
        return [click.result().json()["client_secret"] for click in (first, second)]


def test_a_double_click_gives_one_session(shop: Shop) -> None:
    assert len(set(double_click(shop, shop.api.keep(pictures.jpeg())))) == 1
    assert len(shop.stand_in.sessions) == 1


def test_a_double_click_that_stripe_keeps_waiting_gets_503_with_retry_after(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    is_held = shop.stand_in.hold()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(shop.api.open_checkout, image_id)
        assert is_held.wait(20)
        second = shop.api.open_checkout(image_id)
        assert (second.status_code, second.json()["code"]) == (503, "payment_unreachable")
        assert second.headers["Retry-After"] == "1"
        shop.stand_in.release()
        assert first.result().status_code == 200
    assert shop.api.session_of(image_id) in shop.stand_in.sessions


def test_many_at_once_that_renew_a_pictures_hour_get_one_session(
    shop: Shop,
) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    shop.clock.forward(50 * MINUTE)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: shop.api.open_checkout(image_id), range(4)))
    assert len(shop.stand_in.sessions) == 1


def test_a_picture_has_one_payable_session_at_most(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    first = shop.api.session_of(image_id)
    shop.clock.forward(24 * MINUTE)
    assert shop.api.session_of(image_id) == first
    shop.clock.forward(2 * MINUTE)
    second = shop.api.session_of(image_id)
    assert second != first
    assert shop.stand_in.sessions[first]["status"] == "expired"
    assert shop.stand_in.sessions[second]["expires_at"] >= shop.clock() + 32 * MINUTE


def test_a_session_that_was_expired_is_not_given_out_again(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    first = shop.api.session_of(image_id)
    shop.stand_in.expire(first)
    second = shop.api.session_of(image_id)
    assert second != first
    assert shop.stand_in.sessions[second]["status"] == "open"


def test_a_double_click_after_a_session_has_ended_gives_one_session(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    shop.stand_in.expire(shop.api.session_of(image_id))
    assert len(set(double_click(shop, image_id))) == 1
    assert [session["status"] for session in shop.stand_in.sessions.values()] == ["expired", "open"]


def test_a_session_of_another_account_is_replaced(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    shop.api.session_of(image_id)
    shop.stand_in.clear()  # as if STRIPE_SECRET_KEY had been changed
    assert shop.api.session_of(image_id) in shop.stand_in.sessions


@pytest.mark.parametrize("later", [0, 30 * MINUTE])
@pytest.mark.parametrize(("way", "has_webhook"), [("pay", True), ("pay", False), ("pay-later", False)])
def test_a_picture_whose_checkout_is_complete_gets_no_second_one(
    shop: Shop, later: float, way: str, has_webhook: bool
) -> None:
    if not has_webhook:
        shop.stand_in.webhook_url = None
    image_id = shop.api.keep(pictures.jpeg())
    shop.stand_in.change(shop.api.session_of(image_id), way)
    shop.clock.forward(later)
    answer = shop.api.open_checkout(image_id)
    assert (answer.status_code, answer.json()["code"]) == (409, "checkout_complete")
    assert len(shop.stand_in.sessions) == 1
    assert shop.api.retrieve(image_id).status_code == 200


@pytest.mark.parametrize("claim", [None, "claim-of-the-one-page"])
def test_a_picture_handed_over_before_payment_cannot_be_paid_for(shop: Shop, claim: str | None) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    session_id = shop.api.session_of(image_id)
    assert shop.api.retrieve(image_id, claim).status_code == 200
    if claim:
        assert shop.stand_in.sessions[session_id]["status"] == "open"
        shop.api.confirm(image_id, claim)
    wait_for(lambda: shop.stand_in.sessions[session_id]["status"] == "expired", "the session to be ended")
    assert f"{image_id[:6]}... is gone and its checkout" not in shop.api.server.log()


def test_a_picture_handed_over_while_its_checkout_opens_cannot_be_paid_for(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    is_held = shop.stand_in.hold()
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(shop.api.open_checkout, image_id)
        assert is_held.wait(20)
        assert shop.api.retrieve(image_id).status_code == 200
        wait_for(lambda: shop.api.server.names() == [], "the picture to be gone")
        shop.stand_in.release()
        assert opening.result().status_code == 404
    assert {session["status"] for session in shop.stand_in.sessions.values()} == {"expired"}


def test_handing_over_a_paid_picture_asks_nothing_of_stripe(shop: Shop) -> None:
    shop.stand_in.webhook_url = None
    image_id = shop.api.keep(pictures.jpeg())
    session_id = shop.api.session_of(image_id)
    shop.stand_in.pay(session_id)
    assert shop.api.status(session_id).json()["payment_status"] == "paid"
    asked = len(shop.stand_in.requests)
    assert shop.api.retrieve(image_id).status_code == 200
    wait_for(lambda: shop.api.server.names() == [], "the picture to be gone")
    assert len(shop.stand_in.requests) == asked


def test_confirming_an_unpaid_picture_while_stripe_is_out_of_reach_removes_nothing(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    session_id = shop.api.session_of(image_id)
    shop.stand_in.fail_next("disconnect", times=2)
    answer = shop.api.confirm(image_id)
    assert failure_of(answer) == (503, "payment_unreachable", "2")
    assert shop.api.retrieve(image_id, method="HEAD").status_code == 200
    assert shop.api.confirm(image_id).status_code == 204
    assert shop.stand_in.sessions[session_id]["status"] == "expired"


def test_a_reader_without_a_claim_gets_its_picture_while_stripe_is_unreachable_and_it_is_logged(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    session_id = shop.api.session_of(image_id)
    shop.stand_in.fail_next("disconnect", times=2)
    assert shop.api.retrieve(image_id).content == pictures.jpeg()
    assert "expire it in Stripe's dashboard, or refund it" in shop.api.server.log()
    assert session_id not in shop.api.server.log()


def test_a_double_click_around_the_instant_of_a_renewal_leaves_one_payable_session(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    shop.clock.forward(7 * MINUTE + 30)
    assert len(set(double_click(shop, image_id, seconds_between=60))) == 2
    assert sorted(session["status"] for session in shop.stand_in.sessions.values()) == ["expired", "open"]
    shop.api.retrieve(image_id)
    assert {session["status"] for session in shop.stand_in.sessions.values()} == {"expired"}


def test_a_strangers_confirmation_leaves_the_checkout_open(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    session_id = shop.api.session_of(image_id)
    shop.api.retrieve(image_id, "claim-of-the-one-page")
    assert shop.api.confirm(image_id, "claim-of-another-page").status_code == 409
    assert shop.stand_in.sessions[session_id]["status"] == "open"


def test_a_reader_that_is_slow_when_the_hour_ends_gets_the_rest(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.long_jpeg())
    with shop.api.connection(window=32768) as connection:
        request = f"GET {RETRIEVE}?imageId={image_id} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        start = connection.recv(1000)
        shop.clock.forward(61 * MINUTE)
        whole = start + connection.makefile("rb").read()
    assert whole.partition(b"\r\n\r\n")[2] == pictures.long_jpeg()


def test_a_picture_whose_session_is_of_another_account_is_handed_over(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    shop.api.session_of(image_id)
    shop.stand_in.clear()
    assert shop.api.retrieve(image_id).content == pictures.jpeg()
    assert "is not in this Stripe account" in shop.api.server.log()


def test_a_picture_known_to_be_paid_for_needs_nothing_more_of_stripe(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    shop.stand_in.pay(shop.api.session_of(image_id))
    asked = len(shop.stand_in.requests)
    assert shop.api.open_checkout(image_id).status_code == 409
    assert shop.api.retrieve(image_id).status_code == 200
    wait_for(lambda: shop.api.server.names() == [], "the picture to be gone")
    assert len(shop.stand_in.requests) == asked


@pytest.mark.parametrize(("change", "status"), [("pay", "complete"), ("expire", "expired")])
def test_a_session_that_was_paid_or_ended_meanwhile_needs_no_ending_and_stripes_refusal_is_not_logged(
    shop: Shop, caplog: pytest.LogCaptureFixture, change: str, status: str
) -> None:
    config = Config(stripe_secret_key="sk_test_standin", stripe_api_base=shop.stand_in.url)
    sessions = StripeSessions(config, shop.clock)
    seen = sessions.retrieve(shop.api.session_of(shop.api.keep(pictures.jpeg())))
    shop.stand_in.change(seen.id, change)
    ended = sessions.expire(seen)
    assert ended.status == status
    assert sessions.expire(ended) is ended
    assert "Stripe refused" not in caplog.text


def test_a_refusal_to_end_a_session_that_stays_open_is_logged(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    shop.api.session_of(image_id)

    def refuse(_session_id: str) -> None:
        raise Refusal(400, "Not now.")

    monkeypatch.setattr(shop.stand_in, "expire", refuse)
    assert shop.api.confirm(image_id).status_code == 502
    assert "Stripe refused the parameters. Check the HEROIMG_ settings of the product. Stripe's answer: Not now." in (
        shop.api.server.log()
    )


def test_stripes_library_writes_nothing_into_the_home_of_the_user(shop: Shop) -> None:
    for _ in range(2):
        shop.api.session_of(shop.api.keep(pictures.jpeg()))
    assert sorted(path.name for path in shop.api.server.folder.iterdir()) == ["instance", "log", "uploads"]


def test_an_address_that_asks_stripe_too_often_gets_the_seconds_to_wait(tmp_path: Path) -> None:
    with serving(tmp_path / "served", {"HEROIMG_CHECKOUT_RATE": "1 per hour"}, workers=1) as server:
        api = Api(server)
        assert [api.open_checkout("0" * 32).status_code for _ in range(2)] == [404, 429]
        assert [api.status("cs_test_x").status_code for _ in range(2)] == [503, 429]


FAILURES = {
    "401": (502, "payment_failed", None),
    "403": (502, "payment_failed", None),
    "429": (503, "payment_unreachable", "2"),
    "500": (502, "payment_failed", None),
    "not_json": (502, "payment_failed", None),
    "disconnect": (503, "payment_unreachable", "2"),
}


def failure_of(answer: requests.Response) -> tuple[int, str, str | None]:
    return answer.status_code, answer.json()["code"], answer.headers.get("Retry-After")


@pytest.mark.parametrize("mode", FAILURES)
def test_each_failure_of_stripe_has_an_answer_and_the_next_attempt_succeeds(shop: Shop, mode: str) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    # Stripe's library retries two of these by itself, so they fail twice. Stripe saves a 500, and replays it.
    shop.stand_in.fail_next(mode, 2 if mode in ("not_json", "disconnect") else 1)
    answer = shop.api.open_checkout(image_id)
    assert failure_of(answer) == FAILURES[mode]
    assert "Stripe" not in answer.text
    assert shop.api.session_of(image_id) in shop.stand_in.sessions


@pytest.mark.parametrize("mode", FAILURES)
def test_each_failure_of_stripe_has_an_answer_for_a_status_too(shop: Shop, mode: str) -> None:
    session_id = shop.api.session_of(shop.api.keep(pictures.jpeg()))
    shop.stand_in.fail_next(mode, 2 if mode in ("500", "not_json", "disconnect") else 1)
    assert failure_of(shop.api.status(session_id)) == FAILURES[mode]
    assert shop.api.status(session_id).status_code == 200


@pytest.mark.parametrize("mode", ["401", "403"])
def test_a_key_that_stripe_refuses_is_reported_to_the_operator(shop: Shop, mode: str) -> None:
    shop.stand_in.fail_next(mode)
    shop.api.open_checkout(shop.api.keep(pictures.jpeg()))
    assert "Stripe refused STRIPE_SECRET_KEY: set it to one that may write Checkout Sessions." in shop.api.server.log()


def test_a_failure_that_stripe_would_repeat_for_a_day_is_not_asked_for_again(
    shop: Shop,
) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    shop.stand_in.fail_next("500")
    assert shop.api.open_checkout(image_id).status_code == 502
    assert shop.api.session_of(image_id) in shop.stand_in.sessions
    keys = sessions_asked_for(shop.stand_in)
    assert len(set(keys)) == 2
    assert all(key and len(key) <= 255 for key in keys)


def test_a_session_whose_answer_was_lost_is_not_opened_twice(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    shop.stand_in.fail_next("lost_answer")
    assert [shop.api.session_of(image_id)] == list(shop.stand_in.sessions)


def test_a_session_that_was_ended_after_a_failure_of_the_disk_is_not_given_out_by_the_next_request(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    asked = shop.stand_in.hold()
    in_the_way = shop.api.server.uploads / f"{image_id}.new"
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(shop.api.open_checkout, image_id)
        assert asked.wait(LONG)
        in_the_way.mkdir()  # so the session cannot be noted
        shop.stand_in.release()
        assert answer.result().status_code == 503
    in_the_way.rmdir()
    session_id = shop.api.session_of(image_id)
    assert shop.stand_in.sessions[session_id]["status"] == "open"
    assert [session["status"] for session in shop.stand_in.sessions.values()] == ["expired", "open"]


def test_stripe_is_asked_again_if_it_does_not_answer_once(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    shop.stand_in.fail_next("timeout")
    assert shop.api.session_of(image_id) in shop.stand_in.sessions
    assert len(set(sessions_asked_for(shop.stand_in))) == 1


def test_a_call_to_stripe_ends_before_gunicorn_stops_its_worker() -> None:
    assert gunicorn_conf.graceful_timeout > DEADLINE_SECONDS


def test_parameters_that_stripe_refuses_are_logged_and_not_shown_to_the_customer(tmp_path: Path, shop: Shop) -> None:
    settings = {
        "STRIPE_SECRET_KEY": "sk_test_standin",
        "STRIPE_API_BASE": shop.stand_in.url,
        "HEROIMG_CURRENCY": "xyz",
    }
    with serving_at(shop.clock, tmp_path / "served", settings) as server:
        api = Api(server)
        answer = api.open_checkout(api.keep(pictures.jpeg()))
        assert (answer.status_code, answer.json()["code"]) == (502, "payment_failed")
        assert "xyz" not in answer.text
        assert "Check the HEROIMG_ settings of the product" in server.log()
        assert "xyz" in server.log()


def test_without_a_key_the_checkout_says_what_to_set_and_the_rest_works(shared: Api) -> None:
    image_id = shared.keep(pictures.jpeg())
    for answer in (shared.open_checkout(image_id), shared.status("cs_test_a1")):
        assert (answer.status_code, answer.json()["code"]) == (503, "checkout_not_configured")
        assert "STRIPE_SECRET_KEY" in answer.json()["error"]
    assert shared.request("POST", WEBHOOK, data=b"{}").status_code == 404
    assert shared.retrieve(image_id).content == pictures.jpeg()


@pytest.mark.parametrize("body", ["", "x", "[]", '"x"', "null", "1", '{"imageId": "x"', "[" * 60000, "9" * 9000])
def test_a_body_that_is_no_json_object_is_refused(shared: Api, body: str) -> None:
    answer = shared.request("POST", SESSION, data=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "json_object_required")


def test_a_json_body_of_another_type_or_beyond_64_kb_is_refused(shared: Api) -> None:
    assert shared.request("POST", SESSION, data='{"imageId": "x"}').status_code == 400
    answer = shared.request("POST", SESSION, json={"imageId": "x" * 70000})
    assert (answer.status_code, answer.json()["error"]) == (413, "The body is too large; the limit is 64 KB.")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_json_body_far_beyond_the_limit_is_read_to_its_end(shared: Api, is_chunked: bool) -> None:
    body = b" " * 20_000_000
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(body)}"
    head = (
        f"POST {SESSION} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json\r\n{length}\r\n"
    )
    with shared.connection() as connection:
        connection.sendall(f"{head}\r\n".encode())
        connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if is_chunked else body)
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("image_id", [None, "", 0, [], {}, True, 17, ["0" * 32]])
def test_a_body_without_an_id_is_refused(shared: Api, image_id: object) -> None:
    answer = shared.open_checkout(image_id)
    assert (answer.status_code, answer.json()["error"]) == (400, "imageId required")
    assert shared.request("POST", SESSION, json={}).json()["error"] == "imageId required"


@pytest.mark.parametrize("image_id", ["0" * 32, "..", "\ud800", "*"])
def test_an_unknown_picture_is_not_sold(shared: Api, image_id: str) -> None:
    answer = shared.open_checkout(image_id)
    assert (answer.status_code, answer.json()["error"]) == (404, "Image not found or expired")


@pytest.mark.parametrize(
    "session_id", ["..", ".", "cs_test_", "cs_test_a/../../customers", "pi_123", "cs_test_é", "cs_test_a\n", "x" * 999]
)
def test_a_session_id_of_the_wrong_form_never_reaches_stripe(shop: Shop, session_id: str) -> None:
    answer = shop.api.status(session_id)
    assert (answer.status_code, answer.json()["code"]) == (400, "session_id_malformed")
    assert shop.stand_in.requests == []


def test_a_status_without_a_session_id_is_refused(shop: Shop) -> None:
    for query in ("", "?session_id="):
        answer = shop.api.request("GET", STATUS + query)
        assert (answer.status_code, answer.json()["error"]) == (400, "session_id is required")


def test_a_session_that_stripe_does_not_know_is_not_found(shop: Shop) -> None:
    answer = shop.api.status("cs_test_unknown")
    assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")


def test_a_status_contains_no_more_than_the_front_end_needs(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    session_id = shop.api.session_of(image_id)
    for change, payment_status in ((None, "unpaid"), ("pay-later", "unpaid"), ("settle", "paid")):
        if change:
            shop.stand_in.change(session_id, change)
        assert shop.api.status(session_id).json() == {
            "status": "complete" if change else "open",
            "payment_status": payment_status,
            "metadata": {"imageId": image_id},
        }


def test_the_status_is_returned_even_if_it_cannot_be_recorded(shop: Shop) -> None:
    shop.stand_in.webhook_url = None
    image_id = shop.api.keep(pictures.jpeg())
    session_id = shop.api.session_of(image_id)
    shop.stand_in.pay(session_id)
    in_the_way = shop.api.server.uploads / f"{image_id}.new"
    in_the_way.mkdir()
    answer = shop.api.status(session_id)
    in_the_way.rmdir()
    assert (answer.status_code, answer.json()["payment_status"]) == (200, "paid")


def test_asking_for_the_status_does_not_lengthen_a_pictures_life(shop: Shop) -> None:
    shop.stand_in.webhook_url = None
    image_id = shop.api.keep(pictures.jpeg())
    session_id = shop.api.session_of(image_id)
    end = end_of(shop.api, image_id)
    shop.stand_in.pay(session_id)
    shop.api.status(session_id)
    assert end_of(shop.api, image_id) == end


@pytest.mark.parametrize("mode", ["401", "500"])
def test_nothing_is_removed_while_stripe_says_how_the_checkout_stands_and_cannot_end_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    session_id = shop.api.session_of(image_id)
    answer = shop.stand_in.answer

    def fail_to_expire(request: ApiRequest, authorization: str | None) -> Answer | Silence:
        if request.path.endswith("/expire"):
            shop.stand_in.fail_next(mode)
        return answer(request, authorization)

    monkeypatch.setattr(shop.stand_in, "answer", fail_to_expire)
    assert shop.api.confirm(image_id).status_code == 502
    monkeypatch.undo()
    assert shop.api.retrieve(image_id, method="HEAD").status_code == 200
    assert shop.api.confirm(image_id).status_code == 204
    with pytest.raises(Refusal):
        shop.stand_in.pay(session_id)
