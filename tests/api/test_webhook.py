"""The webhook: a customer who closes the browser after paying can still get the picture."""

from __future__ import annotations

import json
import time

import pytest
import requests
from stripe import WebhookSignature

from tests.helpers import pictures
from tests.helpers.api import WEBHOOK, Api
from tests.helpers.serving import wait_for
from tests.helpers.shop import Shop

HOUR = 3600


@pytest.mark.parametrize("way", ["pay", "pay-later", "pay-later and settle"])
def test_a_picture_that_was_paid_for_is_kept_for_a_day(shop: Shop, way: str) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    session_id = shop.api.session_of(image_id)
    for change in way.split(" and "):
        shop.stand_in.change(session_id, change)
    assert {delivery.status for delivery in shop.stand_in.deliveries} == {200}
    shop.clock.forward(24 * HOUR - 60)
    assert shop.api.retrieve(image_id, method="HEAD").status_code == 200
    shop.clock.forward(61)
    assert shop.api.retrieve(image_id, method="HEAD").status_code == 404


def test_a_picture_that_was_not_paid_for_is_not_kept_longer(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    shop.stand_in.expire(shop.api.session_of(image_id))
    shop.clock.forward(HOUR + 1)
    assert shop.api.retrieve(image_id).status_code == 404


def test_events_may_come_twice_late_and_after_the_picture_was_fetched(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    session_id = shop.api.session_of(image_id)
    shop.stand_in.pay(session_id)
    shop.stand_in.send_webhook("checkout.session.completed", session_id)
    assert shop.api.retrieve(image_id).status_code == 200
    shop.stand_in.send_webhook("checkout.session.completed", session_id)
    assert [delivery.status for delivery in shop.stand_in.deliveries] == [200, 200, 200]
    wait_for(lambda: shop.api.server.names() == [], "the picture to be gone")


def test_an_event_that_says_paid_has_no_effect_until_stripe_says_so_too(
    shop: Shop,
) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    shop.stand_in.send_webhook("checkout.session.completed", shop.api.session_of(image_id))
    shop.clock.forward(HOUR + 1)
    assert shop.api.retrieve(image_id).status_code == 404


def test_a_forged_or_old_event_is_refused(shop: Shop) -> None:
    session_id = shop.api.session_of(shop.api.keep(pictures.jpeg()))
    event = "checkout.session.completed"
    for delivery in (
        shop.stand_in.send_webhook(event, session_id, secret="whsec_another"),
        shop.stand_in.send_webhook(event, session_id, signed_at=time.time() - 301),
    ):
        assert delivery
        assert delivery.status == 400


@pytest.mark.parametrize("header", [None, "", "nonsense", "t=1,v1=00", "t={now},v1=é"])
def test_an_event_without_a_valid_signature_is_refused(shop: Shop, header: str | None) -> None:
    headers = {} if header is None else {"Stripe-Signature": header.format(now=int(time.time())).encode()}
    answer = shop.api.request("POST", WEBHOOK, data=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "signature_invalid")


def signed(api: Api, payload: bytes) -> int:
    header = WebhookSignature.generate_signature_header(payload.decode(), "whsec_standin")
    return api.request("POST", WEBHOOK, data=payload, headers={"Stripe-Signature": header}).status_code


def test_other_events_and_other_products_of_the_same_account_are_no_error(shop: Shop) -> None:
    event = {"id": "evt_1", "object": "event", "data": {"object": {"id": "cus_1"}}, "type": "customer.created"}
    assert signed(shop.api, json.dumps(event).encode()) == 200
    assert shop.stand_in.requests == []


def test_an_event_about_a_session_of_another_account_is_ignored(shop: Shop) -> None:
    event = {
        "id": "evt_1",
        "object": "event",
        "account": "acct_another",
        "data": {"object": {"id": "cs_test_another"}},
        "type": "checkout.session.completed",
    }
    assert signed(shop.api, json.dumps(event).encode()) == 200
    assert "ignored an event about checkout cs_test_anot..." in shop.api.server.log()


def test_a_thin_event_is_called_that(shop: Shop) -> None:
    event = {"id": "evt_1", "object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered"}
    payload = json.dumps(event)
    header = WebhookSignature.generate_signature_header(payload, "whsec_standin")
    answer = shop.api.request("POST", WEBHOOK, data=payload, headers={"Stripe-Signature": header})
    assert (answer.status_code, answer.json()["code"]) == (400, "thin_event")


def test_a_webhook_that_finds_stripe_out_of_reach_is_asked_again_later(shop: Shop) -> None:
    session_id = shop.api.session_of(shop.api.keep(pictures.jpeg()))
    shop.stand_in.fail_next("429")
    delivery = shop.stand_in.send_webhook("checkout.session.completed", session_id)
    assert delivery
    assert delivery.status == 503


@pytest.mark.parametrize("metadata", [{}, {"metadata[imageId]": "order-17"}])
def test_a_paid_session_of_another_product_is_no_error_and_shows_no_metadata(
    shop: Shop, metadata: dict[str, str]
) -> None:
    shop.api.session_of(shop.api.keep(pictures.jpeg()))
    asked = {name: value for name, value in shop.stand_in.requests[0].params.items() if "metadata" not in name}
    headers = {"Authorization": "Bearer sk_test_standin"}
    url = f"{shop.stand_in.url}/v1/checkout/sessions"
    session_id = requests.post(url, asked | metadata, headers=headers, timeout=20).json()["id"]
    shop.stand_in.pay(session_id)
    assert [delivery.status for delivery in shop.stand_in.deliveries] == [200]
    assert shop.api.status(session_id).json()["metadata"] == {}


def test_a_delayed_payment_that_arrives_keeps_the_picture_for_another_day(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    session_id = shop.api.session_of(image_id)
    shop.stand_in.change(session_id, "pay-later")
    shop.clock.forward(23 * HOUR)
    shop.stand_in.change(session_id, "settle")
    shop.clock.forward(23 * HOUR)
    assert shop.api.retrieve(image_id).content == pictures.jpeg()


@pytest.mark.parametrize("order", [["completed", "async_payment_failed"], ["async_payment_failed", "completed"]])
def test_a_picture_whose_bank_debit_failed_can_be_paid_for_again(shop: Shop, order: list[str]) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    session_id = shop.api.session_of(image_id)
    shop.stand_in.webhook_url = None
    shop.stand_in.change(session_id, "pay-later")
    shop.stand_in.change(session_id, "decline")
    shop.stand_in.webhook_url = f"{shop.api.server.url}{WEBHOOK}"
    for kind in order:
        delivery = shop.stand_in.send_webhook(f"checkout.session.{kind}", session_id)
        assert delivery
        assert delivery.status == 200
    assert shop.api.status(session_id).json()["payment_status"] == "unpaid"
    second = shop.api.session_of(image_id)
    assert second != session_id
    ends = [int(asked.params["expires_at"]) for asked in shop.stand_in.requests if "expires_at" in asked.params]
    assert ends[-1] < shop.clock() + 41 * 60  # though the picture is kept for a day
    shop.stand_in.pay(second)
    assert shop.api.open_checkout(image_id).json()["code"] == "checkout_complete"


@pytest.mark.parametrize("way", ["the event again", "the old page again"])
def test_late_news_of_a_failed_bank_debit_does_not_end_the_next_checkout(shop: Shop, way: str) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    first = shop.api.session_of(image_id)
    shop.stand_in.change(first, "pay-later")
    shop.stand_in.change(first, "decline")
    second = shop.api.session_of(image_id)
    if way == "the event again":
        shop.stand_in.send_webhook("checkout.session.completed", first)
    else:
        shop.api.status(first)
    assert shop.api.session_of(image_id) == second
    assert shop.stand_in.sessions[second]["status"] == "open"


def test_a_picture_whose_bank_debit_is_pending_does_not_count_as_paid_and_never_fetched(shop: Shop) -> None:
    session_id = shop.api.session_of(shop.api.keep(pictures.jpeg()))
    shop.stand_in.change(session_id, "pay-later")
    shop.clock.forward(25 * HOUR)
    swept = shop.api.server.flask("sweep")
    wait_for(lambda: shop.api.server.names() == [], "the picture to be swept")
    shop.stand_in.change(session_id, "decline")
    log = swept.stderr + shop.api.server.log()
    assert "was paid for" not in log
    assert f"the delayed payment of its checkout {session_id[:12]}... arrived: refund the payment when it" in log
    assert "is complete (payment failed)" in log


def test_a_picture_whose_bank_debit_failed_does_not_count_as_paid_and_never_fetched(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    session_id = shop.api.session_of(image_id)
    shop.stand_in.change(session_id, "pay-later")
    shop.stand_in.change(session_id, "decline")
    shop.clock.forward(25 * HOUR)
    swept = shop.api.server.flask("sweep")
    wait_for(lambda: shop.api.server.names() == [], "the picture to be swept")
    assert "was paid for" not in swept.stderr + shop.api.server.log()


def test_an_event_over_1_mb_and_a_signed_one_that_is_no_json_are_refused(shop: Shop) -> None:
    assert shop.api.request("POST", WEBHOOK, data=bytes(1_100_000)).status_code == 413
    assert signed(shop.api, b"nonsense") == 400
