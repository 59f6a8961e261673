"""If Stripe does not answer, other requests do not wait."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import stripe

from demo.stripe_stand_in import StandIn
from heroimg import gunicorn_conf
from heroimg.payments import stripe_http
from heroimg.payments.stripe_http import MAX_CALLS_AT_ONCE, StripeHttp
from heroimg.pictures.hand_over import MAX_UNBUFFERED
from tests.helpers import pictures
from tests.helpers.api import Api, new_token
from tests.helpers.serving import LONG, serving, wait_for
from tests.helpers.shop import stripe_settings


def test_customers_waiting_for_stripe_leave_threads_to_others_and_the_rest_is_refused_at_once(tmp_path: Path) -> None:
    with (
        StandIn() as stand_in,
        serving(tmp_path / "served", stripe_settings(stand_in), workers=1) as server,
        ThreadPoolExecutor(MAX_CALLS_AT_ONCE) as pool,
    ):
        api = Api(server)
        image_ids = [api.keep(pictures.jpeg()) for _ in range(MAX_CALLS_AT_ONCE)]
        stand_in.hold()
        waiting = [pool.submit(api.open_checkout, image_id) for image_id in image_ids]
        wait_for(lambda: len(stand_in.requests) == MAX_CALLS_AT_ONCE, "all calls to reach Stripe")
        mine = api.keep(pictures.jpeg())
        answer = api.open_checkout(mine)
        assert (answer.status_code, answer.json()["code"]) == (503, "payment_unreachable")
        assert answer.headers["Retry-After"] == "2"
        assert api.request("GET", "/healthz").status_code == 200
        assert api.retrieve(mine, new_token()).content == pictures.jpeg()
        stand_in.release()
        assert {call.result().status_code for call in waiting} == {200}
        assert api.open_checkout(image_ids[0]).status_code == 200


def test_stripe_and_slow_readers_together_leave_threads_to_others() -> None:
    assert gunicorn_conf.threads // 2 >= MAX_CALLS_AT_ONCE
    assert gunicorn_conf.threads > MAX_CALLS_AT_ONCE + MAX_UNBUFFERED


HEADERS = b"HTTP/1.1 200 OK\r\nX: "
BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
FAILURE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(params=[[HEADERS], [BODY], [FAILURE, HEADERS]], ids=["headers", "body", "headers of the retry"])
def dripping_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve answers, and let the last never end: a byte at a time, more often than any timeout between two bytes."""
    is_over = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            for start in request.param:
                connection.recv(10_000)
                connection.sendall(start)
            while not is_over.wait(0.02):
                connection.sendall(b"a")

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        is_over.set()
        listener.shutdown(socket.SHUT_RDWR)


def test_an_answer_that_drips_is_given_up(dripping_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe_http, "DEADLINE_SECONDS", 0.2)
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0)  # retry at once
    with pytest.raises(stripe.APIConnectionError, match="no answer within"):
        StripeHttp(time.time).request_with_retries("get", dripping_url, {}, max_network_retries=1)


@pytest.mark.parametrize("dripping_url", [[BODY]], ids=["body"], indirect=True)
def test_a_body_that_drips_does_not_keep_later_calls_from_stripe(
    dripping_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_http, "DEADLINE_SECONDS", 0.2)
    client = StripeHttp(time.time)
    for _ in range(MAX_CALLS_AT_ONCE + 1):
        with pytest.raises(stripe.APIConnectionError, match="no answer within"):
            client.request_with_retries("get", dripping_url, {})
        wait_for(lambda: "stripe" not in {thread.name for thread in threading.enumerate()}, "the call's thread to end")


def test_a_name_that_does_not_resolve_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    is_over = threading.Event()

    def resolve(*_: object) -> None:
        is_over.wait(LONG)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(stripe_http, "DEADLINE_SECONDS", 0.2)
    try:
        with pytest.raises(stripe.APIConnectionError, match="no answer within"):
            StripeHttp(time.time).request_with_retries("get", "https://api.stripe.com", {})
    finally:
        is_over.set()
