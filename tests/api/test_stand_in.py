"""The stand-in for Stripe, asked by Stripe's own SDK over HTTP."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import pytest
import stripe

from demo.stripe_answers import ApiRequest, Refusal
from demo.stripe_stand_in import StandIn

NOW = 1_800_000_000
HALF_AN_HOUR = 30 * 60
A_DAY = 24 * 60 * 60

stripe.enable_telemetry = False


class Clock:
    now = float(NOW)

    def __call__(self) -> float:
        return self.now


class Requests(list[ApiRequest]):
    """What a stand-in was asked, with a sign that there is something."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = threading.Event()

    def append(self, request: ApiRequest) -> None:
        super().append(request)
        self.arrived.set()


class Receiver:
    """An endpoint for webhooks: keeps what came, calls ``on_event``, and answers with ``status``."""

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


def parameters(**changes: Any) -> Any:
    """What a sensible integration sends; a change to None leaves a parameter out."""
    return {
        "mode": "payment",
        "ui_mode": "embedded_page",
        "line_items": [item()],
        "return_url": "https://shop.example/hero-me?session_id={CHECKOUT_SESSION_ID}",
        "expires_at": NOW + 2000,
        "metadata": {"imageId": "a" * 32},
    } | changes


def create(client: stripe.StripeClient, key: str | None = None, **changes: Any) -> stripe.checkout.Session:
    options: Any = {"idempotency_key": key} if key else {}
    return client.v1.checkout.sessions.create(params=parameters(**changes), options=options)


def refusal_of(client: stripe.StripeClient, **changes: Any) -> stripe.InvalidRequestError:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        create(client, **changes)
    assert caught.value.http_status == 400
    assert caught.value.error is not None
    assert caught.value.error.type == "invalid_request_error"
    return caught.value


def ask(url: str, form: dict[str, str] | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Ask without the SDK, by POST if there is a form."""
    request = Request(url, None if form is None else urlencode(form).encode(), headers or {})
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=10) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def headers(session: stripe.checkout.Session) -> Any:
    assert session.last_response is not None
    return session.last_response.headers


# Sessions


def test_created_session_is_open_unpaid_and_has_a_secret(client: stripe.StripeClient) -> None:
    session = create(client)
    assert session.id.startswith("cs_test_")
    assert session.id.removeprefix("cs_test_").isalnum()
    assert session.client_secret is not None
    assert session.client_secret.startswith(f"{session.id}_secret_")
    assert (session.object, session.status, session.payment_status) == ("checkout.session", "open", "unpaid")
    assert (session.amount_total, session.currency, session.created) == (200, "usd", NOW)
    assert session.metadata is not None
    assert session.metadata.to_dict() == {"imageId": "a" * 32}
    assert session.customer_details is None
    assert session.payment_intent is None
    assert session.url is None
    assert session.livemode is False


def test_retrieved_session_is_the_created_one(client: stripe.StripeClient) -> None:
    session = create(client)
    assert client.v1.checkout.sessions.retrieve(session.id).to_dict() == session.to_dict()


def test_total_adds_up_the_line_items(client: stripe.StripeClient) -> None:
    several = [item(), item(unit_amount=150) | {"quantity": 3}]
    assert create(client, line_items=several).amount_total == 650


def test_session_lives_a_day_unless_told_otherwise(client: stripe.StripeClient) -> None:
    assert create(client, expires_at=None).expires_at == NOW + A_DAY


def test_session_expires_by_the_clock(client: stripe.StripeClient, stand_in: StandIn, clock: Clock) -> None:
    session = create(client)
    clock.now = session.expires_at - 1
    assert client.v1.checkout.sessions.retrieve(session.id).status == "open"
    clock.now = session.expires_at
    expired = client.v1.checkout.sessions.retrieve(session.id)
    assert (expired.status, expired.payment_status, expired.client_secret) == ("expired", "unpaid", None)
    assert stand_in.sessions[session.id]["status"] == "expired"


def test_paid_session_does_not_expire(client: stripe.StripeClient, stand_in: StandIn, clock: Clock) -> None:
    session = create(client)
    stand_in.pay(session.id)
    clock.now = session.expires_at + 1
    assert client.v1.checkout.sessions.retrieve(session.id).status == "complete"


def test_open_session_can_be_expired(client: stripe.StripeClient) -> None:
    expired = client.v1.checkout.sessions.expire(create(client).id)
    assert (expired.status, expired.client_secret) == ("expired", None)


def test_ended_session_cannot_be_expired(client: stripe.StripeClient, stand_in: StandIn) -> None:
    session = create(client)
    stand_in.pay(session.id)
    with pytest.raises(stripe.InvalidRequestError, match="status of `complete`") as caught:
        client.v1.checkout.sessions.expire(session.id)
    assert caught.value.http_status == 400


def test_unknown_session_is_missing(client: stripe.StripeClient) -> None:
    sessions = client.v1.checkout.sessions
    for call in (sessions.retrieve, sessions.expire):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            call("cs_test_unknown")
        assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")
        assert caught.value.param == "session"


# Refusals


def test_everything_a_sensible_integration_sends_is_taken(client: stripe.StripeClient) -> None:
    session = create(
        client,
        line_items=[item(product_data={"name": "Board", "images": ["https://shop.example/board.png"]})],
        redirect_on_completion="always",
        customer_email="ann@shop.example",
        client_reference_id="order-1",
        locale="en-GB",
        submit_type="pay",
        payment_intent_data={"description": "A board", "metadata": {"imageId": "b"}},
        allowed_payment_method_types=["card"],
        metadata={},
    )
    assert (session.customer_email, session.client_reference_id) == ("ann@shop.example", "order-1")
    assert session.metadata is not None
    assert session.metadata.to_dict() == {}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"imageId": "a"}, "imageId"),
        ({"line_items": [item(unit_price=200)]}, "line_items[0][price_data][unit_price]"),
        ({"line_items": [item(), item() | {"amount": 1}]}, "line_items[1][amount]"),
        ({"metadata": {"a": {"b": "c"}}}, "metadata[a][b]"),
        ({"metadata": "a"}, "metadata"),
        ({"payment_intent_data": {"notes": "a"}}, "payment_intent_data[notes]"),
    ],
)
def test_unknown_parameter_is_refused_at_any_depth(
    client: stripe.StripeClient, changes: dict[str, Any], name: str
) -> None:
    error = refusal_of(client, **changes)
    assert (error.code, error.param) == ("parameter_unknown", name)


def test_retrieve_and_expire_take_no_parameters(client: stripe.StripeClient) -> None:
    session = create(client)
    unknown: Any = {"metadata": {"a": "b"}}
    for call in (client.v1.checkout.sessions.retrieve, client.v1.checkout.sessions.expire):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            call(session.id, params=unknown)
        assert caught.value.code == "parameter_unknown"


@pytest.mark.parametrize("name", ["mode", "line_items", "return_url"])
def test_missing_parameter_is_refused(client: stripe.StripeClient, name: str) -> None:
    error = refusal_of(client, **{name: None})
    assert (error.code, error.param) == ("parameter_missing", name)


@pytest.mark.parametrize("name", ["currency", "unit_amount"])
def test_price_without_currency_or_amount_is_refused(client: stripe.StripeClient, name: str) -> None:
    error = refusal_of(client, line_items=[item(**{name: None})])
    assert (error.code, error.param) == ("parameter_missing", f"line_items[0][price_data][{name}]")


def test_item_without_quantity_or_name_is_refused(client: stripe.StripeClient) -> None:
    assert refusal_of(client, line_items=[item() | {"quantity": None}]).param == "line_items[0][quantity]"
    nameless = [item(product_data={"description": "24 images"})]
    assert refusal_of(client, line_items=nameless).param == "line_items[0][price_data][product_data][name]"


def test_empty_string_is_refused_but_unsets_metadata(client: stripe.StripeClient) -> None:
    assert refusal_of(client, return_url="").code == "parameter_invalid_empty"
    session = create(client, metadata={"a": "", "b": "c"})
    assert session.metadata is not None
    assert session.metadata.to_dict() == {"b": "c"}


def test_embedded_is_refused_by_its_old_name(client: stripe.StripeClient) -> None:
    error = refusal_of(client, ui_mode="embedded")
    assert error.param == "ui_mode"
    assert "renamed `embedded_page`" in str(error)


@pytest.mark.parametrize("ui_mode", ["hosted_page", "elements", "form", None])
def test_other_ui_modes_are_not_covered(client: stripe.StripeClient, ui_mode: str | None) -> None:
    error = refusal_of(client, ui_mode=ui_mode)
    assert error.param == "ui_mode"
    assert "stand-in covers" in str(error)


@pytest.mark.parametrize("mode", ["subscription", "setup"])
def test_other_modes_are_not_covered(client: stripe.StripeClient, mode: str) -> None:
    error = refusal_of(client, mode=mode)
    assert error.param == "mode"
    assert "stand-in covers" in str(error)


def test_payment_method_types_is_refused_as_removed(client: stripe.StripeClient) -> None:
    error = refusal_of(client, payment_method_types=["card"])
    assert (error.code, error.param) == ("parameter_unknown", "payment_method_types[0]")
    assert "allowed_payment_method_types" in str(error)


@pytest.mark.parametrize("name", ["success_url", "cancel_url"])
def test_hosted_pages_urls_are_refused(client: stripe.StripeClient, name: str) -> None:
    error = refusal_of(client, **{name: "https://shop.example/"})
    assert error.param == name


@pytest.mark.parametrize("url", ["/hero-me", "shop.example/hero-me", "ftp://shop.example/", "https://", "https:///a"])
def test_return_url_must_be_absolute(client: stripe.StripeClient, url: str) -> None:
    error = refusal_of(client, return_url=url)
    assert (error.code, error.param) == ("url_invalid", "return_url")


def test_return_url_needs_no_session_id(client: stripe.StripeClient) -> None:
    assert create(client, return_url="http://localhost:3000/").return_url == "http://localhost:3000/"


def test_return_url_and_never_redirecting_exclude_each_other(client: stripe.StripeClient) -> None:
    assert refusal_of(client, redirect_on_completion="never").param == "return_url"
    assert create(client, redirect_on_completion="never", return_url=None).return_url is None


@pytest.mark.parametrize("seconds", [-1, HALF_AN_HOUR - 1, A_DAY + 1])
def test_expiry_outside_half_an_hour_to_a_day_is_refused(client: stripe.StripeClient, seconds: int) -> None:
    assert refusal_of(client, expires_at=NOW + seconds).param == "expires_at"


@pytest.mark.parametrize("seconds", [HALF_AN_HOUR, A_DAY])
def test_expiry_of_half_an_hour_or_a_day_is_taken(client: stripe.StripeClient, seconds: int) -> None:
    assert create(client, expires_at=NOW + seconds).expires_at == NOW + seconds


def test_expiry_counts_parts_of_a_second(client: stripe.StripeClient, clock: Clock) -> None:
    clock.now = NOW + 0.5
    assert refusal_of(client, expires_at=NOW + HALF_AN_HOUR).param == "expires_at"


@pytest.mark.parametrize("expires_at", ["tomorrow", 1.5, "-5"])
def test_expiry_must_be_an_integer(client: stripe.StripeClient, expires_at: object) -> None:
    assert refusal_of(client, expires_at=expires_at).code == "parameter_invalid_integer"


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({f"key{n}": "a" for n in range(51)}, "metadata"),
        ({"k" * 41: "a"}, f"metadata[{'k' * 41}]"),
        ({"key": "a" * 501}, "metadata[key]"),
    ],
)
def test_metadata_over_its_limits_is_refused(client: stripe.StripeClient, metadata: dict[str, str], name: str) -> None:
    assert refusal_of(client, metadata=metadata).param == name
    inner = name.replace("metadata", "payment_intent_data[metadata]")
    assert refusal_of(client, payment_intent_data={"metadata": metadata}).param == inner


def test_metadata_at_its_limits_is_taken(client: stripe.StripeClient) -> None:
    metadata = {f"{n:040}": "a" * 500 for n in range(50)}
    session = create(client, metadata=metadata)
    assert session.metadata is not None
    assert session.metadata.to_dict() == metadata


@pytest.mark.parametrize("amount", [1.5, "two", -200])
def test_amount_must_be_an_integer(client: stripe.StripeClient, amount: object) -> None:
    error = refusal_of(client, line_items=[item(unit_amount=amount)])
    assert (error.code, error.param) == ("parameter_invalid_integer", "line_items[0][price_data][unit_amount]")


def test_total_under_the_minimum_is_refused(client: stripe.StripeClient) -> None:
    assert refusal_of(client, line_items=[item(unit_amount=49)]).code == "amount_too_small"
    assert refusal_of(client, line_items=[item(unit_amount=29, currency="gbp")]).code == "amount_too_small"
    assert create(client, line_items=[item(unit_amount=50)]).amount_total == 50
    assert create(client, line_items=[item(unit_amount=25) | {"quantity": 2}]).amount_total == 50


@pytest.mark.parametrize("currency", ["us", "xyz", "dollars", "$"])
def test_unknown_currency_is_refused(client: stripe.StripeClient, currency: str) -> None:
    error = refusal_of(client, line_items=[item(currency=currency)])
    assert error.param == "line_items[0][price_data][currency]"


def test_currency_is_written_small_and_the_same_everywhere(client: stripe.StripeClient) -> None:
    assert create(client, line_items=[item(currency="USD")]).currency == "usd"
    assert refusal_of(client, line_items=[item(), item(currency="eur")]).param == "line_items"


@pytest.mark.parametrize("quantity", [0, -1, "one"])
def test_quantity_must_be_positive(client: stripe.StripeClient, quantity: object) -> None:
    assert refusal_of(client, line_items=[item() | {"quantity": quantity}]).param == "line_items[0][quantity]"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("customer_email", "ann"),
        ("client_reference_id", "a" * 201),
        ("locale", "klingon"),
        ("submit_type", "give"),
        ("redirect_on_completion", "sometimes"),
    ],
)
def test_malformed_value_is_refused(client: stripe.StripeClient, name: str, value: str) -> None:
    assert refusal_of(client, **{name: value}).param == name


# Keys, URLs and what was asked


@pytest.mark.parametrize("key", ["sk_test_other", "sk_test_standin2"])
def test_wrong_key_is_refused(stand_in: StandIn, key: str) -> None:
    with pytest.raises(stripe.AuthenticationError) as caught:
        create(new_client(stand_in, key=key))
    assert caught.value.http_status == 401
    assert key not in str(caught.value)
    assert not stand_in.sessions


def test_missing_key_is_refused(stand_in: StandIn) -> None:
    status, content = ask(f"{stand_in.url}/v1/checkout/sessions/cs_test_a")
    assert (status, content["error"]["type"]) == (401, "invalid_request_error")


def test_everything_else_is_unrecognised(client: stripe.StripeClient) -> None:
    calls: list[Callable[[], object]] = [
        client.v1.checkout.sessions.list,
        client.v1.customers.create,
        lambda: client.v1.customers.delete("cus_a"),
    ]
    for call in calls:
        with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL") as caught:
            call()
        assert caught.value.http_status == 404


def test_every_answer_has_its_own_request_id(client: stripe.StripeClient) -> None:
    first, again = create(client, key="one"), create(client, key="one")
    assert headers(first)["Request-Id"].startswith("req_")
    assert headers(first)["Request-Id"] != headers(again)["Request-Id"]
    request_id = refusal_of(client, mode=None).request_id
    assert request_id is not None
    assert request_id.startswith("req_")


def test_requests_are_kept_for_inspection(client: stripe.StripeClient, stand_in: StandIn) -> None:
    session = create(client, key="one")
    client.v1.checkout.sessions.retrieve(session.id)
    created, retrieved = stand_in.requests
    assert (created.method, created.path, created.idempotency_key) == ("POST", "/v1/checkout/sessions", "one")
    assert created.params["metadata[imageId]"] == "a" * 32
    assert created.params["return_url"].endswith("={CHECKOUT_SESSION_ID}")
    assert retrieved == ApiRequest("GET", f"/v1/checkout/sessions/{session.id}", None, {})


# Idempotency keys


def test_same_key_gets_the_same_session(client: stripe.StripeClient, stand_in: StandIn) -> None:
    first, again = create(client, key="one"), create(client, key="one")
    assert first.to_dict() == again.to_dict()
    assert len(stand_in.sessions) == 1
    assert "Idempotent-Replayed" not in headers(first)
    assert headers(again)["Idempotent-Replayed"] == "true"


def test_other_keys_get_other_sessions(client: stripe.StripeClient) -> None:
    assert len({create(client, key="one").id, create(client, key="two").id, create(client).id}) == 3


def test_every_request_without_a_key_is_new(stand_in: StandIn) -> None:
    form = {
        "mode": "payment",
        "ui_mode": "embedded_page",
        "line_items[][price_data][currency]": "usd",
        "line_items[][price_data][unit_amount]": "200",
        "line_items[][price_data][product_data][name]": "Board",
        "line_items[][quantity]": "1",
        "return_url": "https://shop.example/",
    }
    for _ in range(2):
        assert ask(f"{stand_in.url}/v1/checkout/sessions", form, {"Authorization": "Bearer sk_test_standin"})[0] == 200
    form.pop("mode")
    assert ask(f"{stand_in.url}/v1/checkout/sessions", form, {"Authorization": "Bearer sk_test_standin"})[0] == 400
    assert len(stand_in.sessions) == 2


def test_replay_shows_an_ended_session_as_it_began(client: stripe.StripeClient, stand_in: StandIn) -> None:
    session = create(client, key="one")
    stand_in.expire(session.id)
    assert create(client, key="one").status == "open"
    assert client.v1.checkout.sessions.retrieve(session.id).status == "expired"


def test_key_is_refused_for_other_parameters(client: stripe.StripeClient, stand_in: StandIn) -> None:
    create(client, key="one")
    with pytest.raises(stripe.IdempotencyError) as caught:
        create(client, key="one", metadata={"imageId": "b"})
    assert caught.value.http_status == 400
    assert len(stand_in.sessions) == 1


def test_key_is_refused_for_another_endpoint(client: stripe.StripeClient) -> None:
    session = create(client, key="one")
    with pytest.raises(stripe.IdempotencyError):
        client.v1.checkout.sessions.expire(session.id, options={"idempotency_key": "one"})


def test_key_is_at_most_255_characters_long(client: stripe.StripeClient) -> None:
    create(client, key="k" * 255)
    with pytest.raises(stripe.InvalidRequestError, match="255"):
        create(client, key="k" * 256)


def test_refused_parameters_leave_the_key_free(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        create(client, key="one", mode=None)
    assert create(client, key="one").status == "open"


def test_refusal_by_the_endpoint_itself_is_saved(client: stripe.StripeClient, stand_in: StandIn) -> None:
    session = create(client)
    stand_in.pay(session.id)
    for replayed in (None, "true"):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            client.v1.checkout.sessions.expire(session.id, options={"idempotency_key": "one"})
        assert caught.value.headers is not None
        assert caught.value.headers.get("Idempotent-Replayed") == replayed


def test_key_in_use_is_a_conflict(client: stripe.StripeClient, stand_in: StandIn) -> None:
    held = stand_in.hold()
    with ThreadPoolExecutor() as threads:
        first = threads.submit(create, client, key="one")
        assert held.wait(10)
        for _ in range(3):
            with pytest.raises(stripe.APIError) as caught:
                create(client, key="one")
        assert not first.done()
        stand_in.release()
        assert first.result().status == "open"
    assert caught.value.http_status == 409
    assert caught.value.error is not None
    assert (caught.value.error.type, caught.value.error.code) == ("idempotency_error", "idempotency_key_in_use")
    assert create(client, key="one").id == first.result().id


def test_held_creates_do_not_block_anything_else(client: stripe.StripeClient, stand_in: StandIn) -> None:
    session = create(client)
    held = stand_in.hold()
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(create, client)
        assert held.wait(10)
        assert client.v1.checkout.sessions.retrieve(session.id).status == "open"
        assert stand_in.pay(session.id)["status"] == "complete"
        assert not waiting.done()
        stand_in.release()


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
def test_failure_happens_as_often_as_asked(
    client: stripe.StripeClient,
    stand_in: StandIn,
    mode: str,
    exception: type[stripe.StripeError],
    status: int | None,
) -> None:
    stand_in.fail_next(mode, times=2)
    for _ in range(2):
        with pytest.raises(exception) as caught:
            create(client)
        assert caught.type is exception
        assert caught.value.http_status == status
    assert create(client).status == "open"


def test_failures_reach_retrieve_too(client: stripe.StripeClient, stand_in: StandIn) -> None:
    session = create(client)
    for mode in ("500", "429"):
        stand_in.fail_next(mode)
        with pytest.raises(stripe.StripeError):
            client.v1.checkout.sessions.retrieve(session.id)
    assert client.v1.checkout.sessions.retrieve(session.id).status == "open"


def test_500_is_replayed_for_its_key(client: stripe.StripeClient, stand_in: StandIn) -> None:
    stand_in.fail_next("500")
    for replayed in (None, "true"):
        with pytest.raises(stripe.APIError) as caught:
            create(client, key="one")
        assert caught.value.http_status == 500
        assert caught.value.headers is not None
        assert caught.value.headers.get("Idempotent-Replayed") == replayed
    assert create(client, key="two").status == "open"


@pytest.mark.parametrize("mode", ["401", "403", "429", "not_json", "disconnect"])
def test_failure_before_the_endpoint_leaves_the_key_free(
    client: stripe.StripeClient, stand_in: StandIn, mode: str
) -> None:
    stand_in.fail_next(mode)
    with pytest.raises(stripe.StripeError):
        create(client, key="one")
    assert "Idempotent-Replayed" not in headers(create(client, key="one"))


def test_lost_answer_is_found_again_by_its_key(client: stripe.StripeClient, stand_in: StandIn) -> None:
    stand_in.fail_next("lost_answer")
    with pytest.raises(stripe.APIConnectionError):
        create(client, key="one")
    assert [create(client, key="one").id] == list(stand_in.sessions)


def test_sdk_retries_by_itself_under_one_key(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    stand_in.fail_next("lost_answer")
    session = create(new_client(stand_in, retries=1))
    first, again = stand_in.requests
    assert first == again
    assert headers(session)["Idempotent-Replayed"] == "true"


def test_timeout_lasts_until_the_client_gives_up(stand_in: StandIn) -> None:
    stand_in.fail_next("timeout")
    with pytest.raises(stripe.APIConnectionError, match="timed out"):
        create(new_client(stand_in, timeout=0.1))
    assert create(new_client(stand_in)).status == "open"


@pytest.mark.parametrize("waits_by", ["timeout", "hold"])
def test_stopping_ends_whatever_waits(waits_by: str) -> None:
    requests = Requests()
    with ThreadPoolExecutor() as threads:
        with StandIn() as stand_in:
            stand_in.requests = requests
            if waits_by == "hold":
                stand_in.hold()
            else:
                stand_in.fail_next("timeout")
            waiting = threads.submit(create, new_client(stand_in, timeout=600), expires_at=None)
            assert requests.arrived.wait(10)
        assert not [thread for thread in threading.enumerate() if "process_request" in thread.name]
        assert waiting.exception(10) is None or isinstance(waiting.exception(), stripe.APIConnectionError)


def test_client_that_breaks_off_makes_no_noise(capfd: pytest.CaptureFixture[str]) -> None:
    with StandIn() as stand_in:
        stand_in.requests = requests = Requests()
        stand_in.fail_next("timeout")
        with socket.create_connection(("127.0.0.1", urlsplit(stand_in.url).port or 0)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes with a reset
            connection.sendall(b"GET /v1/checkout/sessions/cs_test_a HTTP/1.0\r\n\r\n")
            assert requests.arrived.wait(10)
    assert capfd.readouterr() == ("", "")


def test_stopped_stand_in_is_out_of_reach() -> None:
    with StandIn() as stand_in:
        pass
    with pytest.raises(stripe.APIConnectionError):
        create(new_client(stand_in))


def test_unknown_failure_is_refused(stand_in: StandIn) -> None:
    with pytest.raises(Refusal, match="timeout"):
        stand_in.fail_next("418")


# Paying


def test_paid_session_is_complete(client: stripe.StripeClient, stand_in: StandIn) -> None:
    session = create(client)
    assert stand_in.pay(session.id) == {
        "id": session.id,
        "status": "complete",
        "payment_status": "paid",
        "return_url": f"https://shop.example/hero-me?session_id={session.id}",
    }
    paid = client.v1.checkout.sessions.retrieve(session.id)
    assert (paid.status, paid.payment_status, paid.client_secret) == ("complete", "paid", None)
    assert paid.customer_details is not None
    assert str(paid.payment_intent).startswith("pi_")


def test_delayed_payment_is_complete_and_unpaid_until_settled(client: stripe.StripeClient, stand_in: StandIn) -> None:
    session = create(client)
    assert stand_in.pay_later(session.id)["payment_status"] == "unpaid"
    assert client.v1.checkout.sessions.retrieve(session.id).status == "complete"
    stand_in.settle(session.id)
    assert client.v1.checkout.sessions.retrieve(session.id).payment_status == "paid"


def test_declined_delayed_payment_stays_unpaid(client: stripe.StripeClient, stand_in: StandIn) -> None:
    session = create(client)
    stand_in.pay_later(session.id)
    assert stand_in.decline(session.id)["payment_status"] == "unpaid"
    with pytest.raises(Refusal, match="complete, unpaid"):
        stand_in.settle(session.id)


def test_declined_card_leaves_the_session_open(client: stripe.StripeClient, stand_in: StandIn) -> None:
    session = create(client)
    assert stand_in.decline(session.id)["status"] == "open"
    assert stand_in.pay(session.id)["payment_status"] == "paid"


def test_ended_session_cannot_be_paid(client: stripe.StripeClient, stand_in: StandIn, clock: Clock) -> None:
    paid, expired, late = create(client), create(client), create(client)
    stand_in.pay(paid.id)
    stand_in.expire(expired.id)
    clock.now = late.expires_at
    for session, state in ((paid, "complete"), (expired, "expired"), (late, "expired")):
        for pay in (stand_in.pay, stand_in.pay_later):
            with pytest.raises(Refusal, match=state) as caught:
                pay(session.id)
            assert caught.value.status == 409


def test_many_paying_at_once_pay_once(client: stripe.StripeClient, stand_in: StandIn, receiver: Receiver) -> None:
    session = create(client)

    def pay_or_refusal(_: int) -> str:
        try:
            return str(stand_in.pay(session.id)["status"])
        except Refusal as refusal:
            return f"{refusal.status}"

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(pay_or_refusal, range(16))) == ["409"] * 15 + ["complete"]
    assert len(receiver.received) == 1


# Webhooks


def test_webhook_is_signed_as_the_sdk_expects(
    client: stripe.StripeClient, stand_in: StandIn, receiver: Receiver
) -> None:
    session = create(client)
    stand_in.pay(session.id)
    [(payload, signature)] = receiver.received
    event = client.construct_event(payload, signature, "whsec_standin")
    assert (event.type, event.api_version) == ("checkout.session.completed", stripe.api_version)
    assert event.data.object["id"] == session.id
    assert event.data.object["payment_status"] == "paid"
    with pytest.raises(stripe.SignatureVerificationError):
        client.construct_event(payload, signature, "whsec_other")
    with pytest.raises(stripe.SignatureVerificationError):
        client.construct_event(payload.replace(b"paid", b"free"), signature, "whsec_standin")


def test_webhooks_tell_the_story(client: stripe.StripeClient, stand_in: StandIn, receiver: Receiver) -> None:
    settled, declined, expired, ended = (create(client).id for _ in range(4))
    stand_in.decline(settled)
    stand_in.pay_later(settled)
    stand_in.settle(settled)
    stand_in.pay_later(declined)
    stand_in.decline(declined)
    stand_in.expire(expired)
    client.v1.checkout.sessions.expire(ended)
    events = [json.loads(payload) for payload, _ in receiver.received]
    objects = [event["data"]["object"] for event in events]
    assert [
        (event["type"], shown["id"], shown["payment_status"]) for event, shown in zip(events, objects, strict=True)
    ] == [
        ("checkout.session.completed", settled, "unpaid"),
        ("checkout.session.async_payment_succeeded", settled, "paid"),
        ("checkout.session.completed", declined, "unpaid"),
        ("checkout.session.async_payment_failed", declined, "unpaid"),
        ("checkout.session.expired", expired, "unpaid"),
        ("checkout.session.expired", ended, "unpaid"),
    ]


def test_receiver_can_ask_for_the_session_meanwhile(
    client: stripe.StripeClient, stand_in: StandIn, receiver: Receiver
) -> None:
    session = create(client)
    seen: list[str | None] = []
    receiver.on_event = lambda: seen.append(client.v1.checkout.sessions.retrieve(session.id).status)
    stand_in.pay(session.id)
    assert seen == ["complete"]


@pytest.mark.parametrize("status", [200, 302, 400, 500])
def test_delivery_keeps_the_receivers_status(
    client: stripe.StripeClient, stand_in: StandIn, receiver: Receiver, status: int
) -> None:
    receiver.status = status
    stand_in.pay(create(client).id)
    [delivery] = stand_in.deliveries
    assert (delivery.event_type, delivery.status, delivery.error) == ("checkout.session.completed", status, None)
    assert (delivery.payload, delivery.signature) == receiver.received[0]


def test_delivery_keeps_why_it_failed(client: stripe.StripeClient, stand_in: StandIn) -> None:
    with StandIn() as gone:
        stand_in.webhook_url = gone.url
    assert stand_in.pay(create(client).id)["payment_status"] == "paid"
    [delivery] = stand_in.deliveries
    assert delivery.status is None
    assert "ConnectionRefusedError" in str(delivery.error)


def test_nothing_is_delivered_without_a_webhook_url(client: stripe.StripeClient, stand_in: StandIn) -> None:
    session = create(client)
    stand_in.pay(session.id)
    assert stand_in.send_webhook("checkout.session.completed", session.id) is None
    assert stand_in.deliveries == []


def test_webhook_can_be_sent_again_forged_and_stale(
    client: stripe.StripeClient, stand_in: StandIn, receiver: Receiver
) -> None:
    session = create(client)
    stand_in.send_webhook("checkout.session.completed", session.id)
    stand_in.send_webhook("checkout.session.completed", session.id, secret="whsec_forged")
    stand_in.send_webhook("checkout.session.completed", session.id, signed_at=time.time() - 301)
    sent, forged, stale = receiver.received
    assert client.construct_event(*sent, "whsec_standin").data.object["id"] == session.id
    with pytest.raises(stripe.SignatureVerificationError, match="No signatures found matching"):
        client.construct_event(*forged, "whsec_standin")
    with pytest.raises(stripe.SignatureVerificationError, match="tolerance"):
        client.construct_event(*stale, "whsec_standin")


# The control part over HTTP


def test_sessions_are_listed_over_http(client: stripe.StripeClient, stand_in: StandIn) -> None:
    session = create(client)
    assert ask(f"{stand_in.url}/stand-in/sessions") == (
        200,
        {
            "sessions": [
                {
                    "id": session.id,
                    "status": "open",
                    "payment_status": "unpaid",
                    "expires_at": NOW + 2000,
                    "metadata": {"imageId": "a" * 32},
                }
            ]
        },
    )


@pytest.mark.parametrize(
    ("changes", "status", "payment_status"),
    [
        (["pay"], "complete", "paid"),
        (["pay-later"], "complete", "unpaid"),
        (["pay-later", "settle"], "complete", "paid"),
        (["pay-later", "decline"], "complete", "unpaid"),
        (["decline"], "open", "unpaid"),
        (["expire"], "expired", "unpaid"),
    ],
)
def test_session_changes_over_http(
    client: stripe.StripeClient, stand_in: StandIn, changes: list[str], status: str, payment_status: str
) -> None:
    session = create(client)
    for change in changes:
        code, outcome = ask(f"{stand_in.url}/stand-in/sessions/{session.id}/{change}", {})
        assert code == 200
    assert (outcome["status"], outcome["payment_status"]) == (status, payment_status)
    filled = f"https://shop.example/hero-me?session_id={session.id}"
    assert outcome["return_url"] == (filled if status == "complete" else None)


def test_wrong_changes_are_errors_over_http(client: stripe.StripeClient, stand_in: StandIn) -> None:
    session = create(client)
    ask(f"{stand_in.url}/stand-in/sessions/{session.id}/pay", {})
    code, content = ask(f"{stand_in.url}/stand-in/sessions/{session.id}/pay", {})
    assert (code, content["code"]) == (409, "session_not_open")
    assert "complete" in content["error"]
    assert ask(f"{stand_in.url}/stand-in/sessions/{session.id}/settle", {})[0] == 409
    assert ask(f"{stand_in.url}/stand-in/sessions/cs_test_unknown/pay", {})[0] == 404
    assert ask(f"{stand_in.url}/stand-in/sessions/{session.id}/frame", {})[0] == 404
    assert ask(f"{stand_in.url}/favicon.ico")[0] == 404


def test_failures_are_commanded_by_form_or_query(client: stripe.StripeClient, stand_in: StandIn) -> None:
    assert ask(f"{stand_in.url}/stand-in/fail", {"mode": "429"}) == (200, {"mode": "429", "times": 1})
    assert ask(f"{stand_in.url}/stand-in/fail?mode=500&times=2", {})[1] == {"mode": "500", "times": 2}
    for exception in (stripe.RateLimitError, stripe.APIError, stripe.APIError):
        with pytest.raises(exception):
            create(client)
    assert create(client).status == "open"


@pytest.mark.parametrize("form", [{}, {"mode": "418"}, {"mode": "429", "times": "0"}, {"mode": "429", "times": "a"}])
def test_malformed_failure_commands_are_refused(stand_in: StandIn, form: dict[str, str]) -> None:
    assert ask(f"{stand_in.url}/stand-in/fail", form)[0] == 400


def test_control_requests_are_not_stripes(stand_in: StandIn) -> None:
    ask(f"{stand_in.url}/stand-in/sessions")
    assert stand_in.requests == []


def test_program_prints_its_url_and_serves_until_stopped() -> None:
    command = [sys.executable, "-W", "error", "-m", "demo.stripe_stand_in", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        assert program.stdout is not None
        try:
            url = program.stdout.readline().strip()
            assert ask(f"{url}/stand-in/sessions") == (200, {"sessions": []})
            program.terminate()
            assert program.wait(10) == 0
            assert program.stdout.read() == ""
        finally:
            program.kill()
