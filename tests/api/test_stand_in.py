"""The stand-in for Stripe, called by Stripe's own SDK over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import requests
import stripe

from demo.stripe_stand_in import ApiRequest, Refusal, StandIn
from tests.helpers.serving import ROOT

NOW = 1_800_000_000
HALF_AN_HOUR = 30 * 60
A_DAY = 24 * 60 * 60

stripe.enable_telemetry = False


class Clock:
    now = float(NOW)

    def __call__(self) -> float:
        return self.now


class Receiver:
    """A webhook endpoint: keeps each event, calls `on_event`, and answers with `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.received: list[tuple[bytes, str]] = []
        self.on_event: Callable[[], object] = lambda: None

    def serve(self) -> HTTPServer:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append((body, self.headers["Stripe-Signature"]))
                receiver.on_event()
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return HTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stand_in(clock: Clock) -> Iterator[StandIn]:
    with StandIn(clock=clock) as stand_in:
        yield stand_in


@pytest.fixture
def client(stand_in: StandIn) -> stripe.StripeClient:
    return new_client(stand_in)


@pytest.fixture
def receiver(stand_in: StandIn) -> Iterator[Receiver]:
    receiver = Receiver()
    with receiver.serve() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        stand_in.webhook_url = f"http://127.0.0.1:{server.server_port}/webhook?from=stripe"
        yield receiver
        server.shutdown()
        thread.join()


def new_client(
    stand_in: StandIn, *, key: str = "sk_test_standin", retries: int = 0, timeout: float = 10
) -> stripe.StripeClient:
    return stripe.StripeClient(
        key,
        base_addresses={"api": stand_in.url},
        max_network_retries=retries,
        http_client=stripe.RequestsClient(timeout=(3.05, timeout)),
    )


def item(**changes: Any) -> dict[str, Any]:
    price = {"currency": "usd", "unit_amount": 200, "product_data": {"name": "Board", "description": "24 images"}}
    return {"price_data": price | changes, "quantity": 1}


def create(client: stripe.StripeClient, key: str | None = None, **changes: Any) -> stripe.checkout.Session:
    """Create a session as heroimg does; a change to None leaves a parameter out."""
    params: Any = {
        "mode": "payment",
        "ui_mode": "embedded_page",
        "line_items": [item()],
        "return_url": "https://shop.example/hero-me?session_id={CHECKOUT_SESSION_ID}",
        "expires_at": NOW + 2000,
        "metadata": {"imageId": "a" * 32},
    } | changes
    options: Any = {"idempotency_key": key} if key else {}
    return client.v1.checkout.sessions.create(params=params, options=options)


def command(stand_in: StandIn, path: str, form: dict[str, str] | None = None) -> tuple[int, Any]:
    """Send a command to the stand-in, by POST if there is a form."""
    url = f"{stand_in.url}/stand-in/{path}"
    answer = requests.get(url, timeout=10) if form is None else requests.post(url, form, timeout=10)
    return answer.status_code, answer.json()


# Sessions


def test_created_session_is_open_unpaid_and_has_a_secret(client: stripe.StripeClient) -> None:
    session = create(client)
    assert session.id.removeprefix("cs_test_").isalnum()
    assert session.client_secret is not None
    assert session.client_secret.startswith(f"{session.id}_secret_")
    assert (session.status, session.payment_status, session.created) == ("open", "unpaid", NOW)
    assert (session.amount_total, session.currency, session.expires_at) == (200, "usd", NOW + 2000)
    assert session.metadata is not None
    assert session.metadata.to_dict() == {"imageId": "a" * 32}
    assert client.v1.checkout.sessions.retrieve(session.id).to_dict() == session.to_dict()


def test_session_expires_by_the_clock(client: stripe.StripeClient, stand_in: StandIn, clock: Clock) -> None:
    paid, session = create(client), create(client)
    stand_in.pay(paid.id)
    clock.now = NOW + 1999
    assert client.v1.checkout.sessions.retrieve(session.id).status == "open"
    clock.now = NOW + 2000
    expired = client.v1.checkout.sessions.retrieve(session.id)
    assert (expired.status, expired.payment_status, expired.client_secret) == ("expired", "unpaid", None)
    assert client.v1.checkout.sessions.retrieve(paid.id).status == "complete"


def test_date_header_follows_the_clock(client: stripe.StripeClient, clock: Clock) -> None:
    clock.now = NOW + 60
    response = create(client).last_response
    assert response is not None
    assert parsedate_to_datetime(response.headers["Date"]).timestamp() == NOW + 60


def test_only_an_open_session_can_be_expired(client: stripe.StripeClient) -> None:
    session = create(client)
    assert client.v1.checkout.sessions.expire(session.id).status == "expired"
    with pytest.raises(stripe.InvalidRequestError, match="status of `expired`") as caught:
        client.v1.checkout.sessions.expire(session.id)
    assert caught.value.http_status == 400


def test_unknown_session_is_missing(client: stripe.StripeClient) -> None:
    sessions = client.v1.checkout.sessions
    for call in (sessions.retrieve, sessions.expire):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            call("cs_test_unknown")
        assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")


# Refusals


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"ui_mode": "embedded"}, "ui_mode"),
        ({"mode": "subscription"}, "mode"),
        ({"mode": None}, "mode"),
        ({"imageId": "a"}, "imageId"),
        ({"payment_method_types": ["card"]}, "payment_method_types[0]"),
        ({"return_url": "/hero-me?session_id={CHECKOUT_SESSION_ID}"}, "return_url"),
        ({"return_url": "https://shop.example/hero-me?session_id=%7BCHECKOUT_SESSION_ID%7D"}, "return_url"),
        ({"return_url": ""}, "return_url"),
        ({"return_url": None}, "return_url"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"expires_at": None}, "expires_at"),
        ({"expires_at": NOW + HALF_AN_HOUR - 1}, "expires_at"),
        ({"expires_at": NOW + A_DAY + 1}, "expires_at"),
        ({"line_items": [item(unit_amount=1.5)]}, "line_items[0][price_data][unit_amount]"),
        ({"line_items": [item(unit_amount=49)]}, "line_items[0][price_data][unit_amount]"),
        ({"line_items": [item(currency="xyz")]}, "line_items[0][price_data][currency]"),
        (
            {"line_items": [item(product_data={"name": "Board", "description": ""})]},
            "line_items[0][price_data][product_data][description]",
        ),
        ({"metadata": {"imageId": "a" * 501}}, "metadata[imageId]"),
    ],
)
def test_wrong_parameter_is_refused(client: stripe.StripeClient, changes: dict[str, Any], param: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        create(client, **changes)
    assert (caught.value.http_status, caught.value.param) == (400, param)
    assert str(caught.value.request_id).startswith("req_")


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_at": NOW + HALF_AN_HOUR},
        {"expires_at": NOW + A_DAY},
        {"line_items": [item(unit_amount=50)]},
        {"line_items": [item(unit_amount=30, currency="gbp")]},
        {"metadata": {"imageId": "a" * 500}},
        {"metadata": None},
    ],
)
def test_parameter_at_its_limit_is_accepted(client: stripe.StripeClient, changes: dict[str, Any]) -> None:
    assert create(client, **changes).status == "open"


def test_expiry_counts_fractions_of_a_second(client: stripe.StripeClient, clock: Clock) -> None:
    clock.now = NOW + 0.5
    with pytest.raises(stripe.InvalidRequestError):
        create(client, expires_at=NOW + HALF_AN_HOUR)


def test_wrong_key_is_refused(stand_in: StandIn) -> None:
    with pytest.raises(stripe.AuthenticationError) as caught:
        create(new_client(stand_in, key="sk_test_other"))
    assert caught.value.http_status == 401
    assert "sk_test_other" not in str(caught.value)
    assert stand_in.sessions == {}


def test_other_endpoints_are_unknown(client: stripe.StripeClient) -> None:
    for call in (client.v1.checkout.sessions.list, lambda: client.v1.customers.delete("cus_a")):
        with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
            call()


def test_requests_are_recorded(client: stripe.StripeClient, stand_in: StandIn) -> None:
    session = create(client, key="one")
    client.v1.checkout.sessions.retrieve(session.id)
    command(stand_in, "sessions")
    created, retrieved = stand_in.requests
    assert (created.method, created.path, created.idempotency_key) == ("POST", "/v1/checkout/sessions", "one")
    assert created.params["metadata[imageId]"] == "a" * 32
    assert created.params["return_url"].endswith("={CHECKOUT_SESSION_ID}")
    assert retrieved == ApiRequest("GET", f"/v1/checkout/sessions/{session.id}", None, {})


# Idempotency keys


def test_same_key_replays_the_session_as_it_was_created(client: stripe.StripeClient, stand_in: StandIn) -> None:
    session = create(client, key="one")
    stand_in.expire(session.id)
    assert create(client, key="one").to_dict() == session.to_dict()
    assert list(stand_in.sessions) == [session.id]


def test_other_keys_get_other_sessions(client: stripe.StripeClient) -> None:
    assert len({create(client, key="one").id, create(client, key="two").id, create(client).id}) == 3


def test_key_is_refused_for_other_parameters_or_another_endpoint(client: stripe.StripeClient) -> None:
    session = create(client, key="one")
    with pytest.raises(stripe.IdempotencyError) as caught:
        create(client, key="one", metadata={"imageId": "b"})
    assert caught.value.http_status == 400
    with pytest.raises(stripe.IdempotencyError):
        client.v1.checkout.sessions.expire(session.id, options={"idempotency_key": "one"})


def test_key_in_use_is_a_conflict(client: stripe.StripeClient, stand_in: StandIn) -> None:
    other = create(client)
    held = stand_in.hold()
    with ThreadPoolExecutor() as threads:
        first = threads.submit(create, client, key="one")
        assert held.wait(10)
        with pytest.raises(stripe.APIError) as caught:
            create(client, key="one")
        assert stand_in.pay(other.id)["status"] == "complete"
        assert not first.done()
        stand_in.release()
        assert first.result().status == "open"
    assert caught.value.http_status == 409
    assert caught.value.error is not None
    assert (caught.value.error.type, caught.value.error.code) == ("idempotency_error", "idempotency_key_in_use")
    assert create(client, key="one").id == first.result().id


def test_many_at_once_with_one_key_make_one_session(client: stripe.StripeClient, stand_in: StandIn) -> None:
    def create_or_conflict(_: int) -> str:
        try:
            return create(client, key="one").id
        except stripe.APIError as error:
            return f"{error.http_status}"

    with ThreadPoolExecutor(16) as threads:
        ids = set(threads.map(create_or_conflict, range(48)))
    assert ids - {"409"} == set(stand_in.sessions)
    assert len(stand_in.sessions) == 1


# Failures on command


@pytest.mark.parametrize(
    ("mode", "exception", "status"),
    [
        ("401", stripe.AuthenticationError, 401),
        ("403", stripe.PermissionError, 403),
        ("429", stripe.RateLimitError, 429),
        ("500", stripe.APIError, 500),
        ("not_json", stripe.APIError, 502),
        ("disconnect", stripe.APIConnectionError, None),
        ("lost_answer", stripe.APIConnectionError, None),
    ],
)
def test_failure_happens_as_often_as_requested(
    client: stripe.StripeClient, stand_in: StandIn, mode: str, exception: type[stripe.StripeError], status: int | None
) -> None:
    session = create(client)
    stand_in.fail_next(mode, times=2)
    for call in (create, lambda client: client.v1.checkout.sessions.retrieve(session.id)):
        with pytest.raises(exception) as caught:
            call(client)
        assert type(caught.value) is exception
        assert caught.value.http_status == status
    assert create(client).status == "open"


@pytest.mark.parametrize("mode", ["401", "429", "disconnect"])
def test_failure_before_the_endpoint_leaves_the_key_unused(
    client: stripe.StripeClient, stand_in: StandIn, mode: str
) -> None:
    stand_in.fail_next(mode)
    with pytest.raises(stripe.StripeError):
        create(client, key="one")
    assert create(client, key="one").status == "open"


def test_500_is_replayed_for_its_key(client: stripe.StripeClient, stand_in: StandIn) -> None:
    stand_in.fail_next("500")
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            create(client, key="one")
    assert create(client, key="two").status == "open"


def test_sdk_gets_a_lost_answer_by_its_own_retry(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    stand_in.fail_next("lost_answer")
    session = create(new_client(stand_in, retries=1))
    first, again = stand_in.requests
    assert first == again
    assert list(stand_in.sessions) == [session.id]


def test_timeout_lasts_until_the_client_gives_up(stand_in: StandIn) -> None:
    stand_in.fail_next("timeout")
    with pytest.raises(stripe.APIConnectionError, match="timed out"):
        create(new_client(stand_in, timeout=0.1))
    assert create(new_client(stand_in)).status == "open"


def test_stopped_stand_in_is_unreachable() -> None:
    with StandIn() as stand_in:
        pass
    with pytest.raises(stripe.APIConnectionError):
        create(new_client(stand_in))


# Payments and webhooks


@pytest.mark.parametrize(
    ("changes", "end", "events"),
    [
        (["pay"], ("complete", "paid"), ["completed"]),
        (["pay-later"], ("complete", "unpaid"), ["completed"]),
        (["pay-later", "settle"], ("complete", "paid"), ["completed", "async_payment_succeeded"]),
        (["pay-later", "decline"], ("complete", "unpaid"), ["completed", "async_payment_failed"]),
        (["decline"], ("open", "unpaid"), []),
        (["decline", "pay"], ("complete", "paid"), ["completed"]),
        (["expire"], ("expired", "unpaid"), ["expired"]),
    ],
)
def test_changes_lead_to_a_state_and_events(
    stand_in: StandIn, receiver: Receiver, changes: list[str], end: tuple[str, str], events: list[str]
) -> None:
    client, status = new_client(stand_in), end[0]
    session = create(client)
    for change in changes:
        code, outcome = command(stand_in, f"sessions/{session.id}/{change}", {})
        assert code == 200
    assert outcome == {
        "id": session.id,
        "status": status,
        "payment_status": end[1],
        "return_url": f"https://shop.example/hero-me?session_id={session.id}" if status == "complete" else None,
    }
    seen = client.v1.checkout.sessions.retrieve(session.id)
    assert (seen.status, seen.payment_status) == end
    assert (seen.client_secret is None) == (status != "open")
    received = [json.loads(payload) for payload, _ in receiver.received]
    assert [event["type"] for event in received] == [f"checkout.session.{name}" for name in events]
    assert {event["data"]["object"]["id"] for event in received} <= {session.id}


def test_change_in_the_wrong_state_is_refused(client: stripe.StripeClient, stand_in: StandIn, clock: Clock) -> None:
    paid, declined, late = create(client).id, create(client).id, create(client).id
    stand_in.pay(paid)
    stand_in.pay_later(declined)
    stand_in.decline(declined)
    clock.now = NOW + 2000
    for session_id, change, state in (
        (paid, "pay", "complete"),
        (paid, "settle", "complete, paid"),
        (declined, "settle", "complete, unpaid"),
        (late, "pay-later", "expired"),
    ):
        with pytest.raises(Refusal, match=f"The session is {state}") as caught:
            stand_in.change(session_id, change)
        assert caught.value.status == 409


def test_many_paying_at_once_pay_once(client: stripe.StripeClient, stand_in: StandIn, receiver: Receiver) -> None:
    session = create(client)

    def pay(_: int) -> int:
        return command(stand_in, f"sessions/{session.id}/pay", {})[0]

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(pay, range(16))) == [200] + [409] * 15
    assert len(receiver.received) == 1


def test_webhook_is_signed_as_the_sdk_expects(
    client: stripe.StripeClient, stand_in: StandIn, clock: Clock, receiver: Receiver
) -> None:
    now = clock.now = int(time.time())  # the SDK's clock
    session = create(client, expires_at=now + 2000)
    stand_in.pay(session.id)
    stand_in.send_webhook("checkout.session.completed", session.id, secret="whsec_forged")
    stand_in.send_webhook("checkout.session.completed", session.id, signed_at=now - 301)
    sent, forged, stale = receiver.received
    event = client.construct_event(*sent, "whsec_standin")
    assert (event.type, event.api_version, event.created) == ("checkout.session.completed", stripe.api_version, now)
    assert event.data.object["payment_status"] == "paid"
    with pytest.raises(stripe.SignatureVerificationError, match="No signatures found matching"):
        client.construct_event(*forged, "whsec_standin")
    with pytest.raises(stripe.SignatureVerificationError, match="tolerance"):
        client.construct_event(*stale, "whsec_standin")


def test_receiver_can_retrieve_the_session_meanwhile(
    client: stripe.StripeClient, stand_in: StandIn, receiver: Receiver
) -> None:
    session = create(client)
    seen: list[str | None] = []
    receiver.on_event = lambda: seen.append(client.v1.checkout.sessions.retrieve(session.id).status)
    stand_in.pay(session.id)
    assert seen == ["complete"]


def test_delivery_has_the_receivers_status(client: stripe.StripeClient, stand_in: StandIn, receiver: Receiver) -> None:
    receiver.status = 302
    stand_in.pay(create(client).id)
    with StandIn() as stopped:
        stand_in.webhook_url = stopped.url
    stand_in.pay(create(client).id)
    stand_in.webhook_url = None
    stand_in.pay(create(client).id)
    assert [delivery.status for delivery in stand_in.deliveries] == [302, None]


# Commands


def test_sessions_are_listed(client: stripe.StripeClient, stand_in: StandIn) -> None:
    session = create(client)
    shown = {"status": "open", "payment_status": "unpaid", "expires_at": NOW + 2000, "metadata": {"imageId": "a" * 32}}
    assert command(stand_in, "sessions") == (200, {"sessions": [{"id": session.id, **shown}]})


def test_failures_are_commanded_by_form_or_query(client: stripe.StripeClient, stand_in: StandIn) -> None:
    assert command(stand_in, "fail", {"mode": "429"}) == (200, {"mode": "429", "times": 1})
    assert command(stand_in, "fail?mode=500&times=2", {}) == (200, {"mode": "500", "times": 2})
    for exception in (stripe.RateLimitError, stripe.APIError, stripe.APIError):
        with pytest.raises(exception):
            create(client)
    assert create(client).status == "open"


@pytest.mark.parametrize(
    ("path", "form", "status"),
    [
        ("fail", {}, 400),
        ("fail", {"mode": "418"}, 400),
        ("fail", {"mode": "429", "times": "0"}, 400),
        ("sessions/cs_test_unknown/pay", {}, 404),
        ("sessions/cs_test_unknown/steal", {}, 404),
        ("favicon.ico", None, 404),
    ],
)
def test_wrong_command_is_refused(stand_in: StandIn, path: str, form: dict[str, str] | None, status: int) -> None:
    code, content = command(stand_in, path, form)
    assert (code, set(content)) == (status, {"error", "code"})


def test_program_prints_its_url_and_serves_until_stopped() -> None:
    program = [sys.executable, "-W", "error", "-m", "demo.stripe_stand_in", "--port", "0"]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert requests.get(f"{url}/stand-in/sessions", timeout=10).json() == {"sessions": []}
            process.terminate()
            assert process.wait(10) == 0
            assert process.stdout.read() == ""
        finally:
            process.kill()
