"""No claim lapses while its reader is served, however slow the reader or Stripe is."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.stripe_stand_in import StandIn
from tests.helpers import pictures
from tests.helpers.api import RETRIEVE, Api, new_token
from tests.helpers.serving import DrivenClock, serving_at, wait_for
from tests.helpers.shop import Shop, stripe_settings

HOUR = 3600


@pytest.fixture(params=["60"])
def short_claims(request: pytest.FixtureRequest, tmp_path: Path, clock: DrivenClock) -> Iterator[Shop]:
    """A shop whose claims last ten seconds. The parameter is HEROIMG_SWEEP_SECONDS."""
    with StandIn(clock=clock) as stand_in:
        settings = stripe_settings(stand_in) | {"HEROIMG_CLAIM_SECONDS": "10", "HEROIMG_MAX_IMAGE_BYTES": "20000000"}
        settings["HEROIMG_SWEEP_SECONDS"] = request.param
        with serving_at(clock, tmp_path / "served", settings) as server:
            stand_in.webhook_url = f"{server.url}/api/checkout/webhook"
            yield Shop(Api(server), stand_in, clock)


@contextmanager
def slow_reader(shop: Shop, image_id: str, claim: str | None) -> Iterator[socket.socket]:
    """Read the first bytes of a picture, and leave the rest to the block."""
    query = f"imageId={image_id}" + (f"&claim={claim}" if claim else "")
    with shop.api.connection(window=32768) as connection:
        request = f"GET {RETRIEVE}?{query} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
        yield connection


def is_claimed(shop: Shop, image_id: str) -> bool:
    return shop.api.retrieve(image_id, new_token(), "HEAD").status_code == 409


def rest_of(connection: socket.socket) -> bytes:
    return connection.makefile("rb").read().partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("short_claims", ["60", "0"], indirect=True)
@pytest.mark.parametrize("claim", [None, "claim-of-the-reader"])
def test_a_blocked_reader_keeps_its_claim(short_claims: Shop, claim: str | None) -> None:
    image_id = short_claims.api.keep(pictures.long_jpeg())
    with slow_reader(short_claims, image_id, claim) as connection:
        for _ in range(2):
            short_claims.clock.forward(10)
            wait_for(lambda: is_claimed(short_claims, image_id), "the claim to be renewed")
        assert rest_of(connection) == pictures.long_jpeg()


@pytest.mark.parametrize("claim", [None, "claim-of-the-reader"])
def test_a_reader_that_began_before_the_payment_was_known_keeps_its_claim_after_the_old_hour(
    short_claims: Shop, claim: str | None
) -> None:
    image_id = short_claims.api.keep(pictures.long_jpeg())
    session_id = short_claims.api.session_of(image_id)
    webhook_url, short_claims.stand_in.webhook_url = short_claims.stand_in.webhook_url, None
    short_claims.stand_in.pay(session_id)
    with slow_reader(short_claims, image_id, claim) as connection:
        short_claims.stand_in.webhook_url = webhook_url
        short_claims.stand_in.send_webhook("checkout.session.completed", session_id)
        short_claims.clock.forward(HOUR + 60)
        wait_for(lambda: is_claimed(short_claims, image_id), "the claim to be renewed")
        assert rest_of(connection) == pictures.long_jpeg()


def test_a_plain_reader_keeps_its_claim_while_stripe_is_silent(short_claims: Shop) -> None:
    image_id = short_claims.api.keep(pictures.jpeg())
    session_id = short_claims.api.session_of(image_id)
    asked = len(short_claims.stand_in.requests)
    short_claims.stand_in.fail_next("timeout")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(short_claims.api.retrieve, image_id)
        wait_for(lambda: len(short_claims.stand_in.requests) > asked, "Stripe to be asked")
        short_claims.clock.forward(10)
        wait_for(lambda: is_claimed(short_claims, image_id), "the claim to be renewed")
        assert reading.result().content == pictures.jpeg()
    assert short_claims.stand_in.sessions[session_id]["status"] == "expired"
