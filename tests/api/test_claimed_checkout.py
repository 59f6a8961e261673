"""While a reader has claimed a picture, no other customer can open a checkout for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.helpers import pictures
from tests.helpers.api import RETRIEVE, SESSION, new_token
from tests.helpers.serving import wait_for
from tests.helpers.shop import Shop


def assert_is_claimed(answer: requests.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (409, "image_claimed")
    assert int(answer.headers["Retry-After"]) > 0


def test_a_claimed_picture_is_sold_to_its_holder_alone(shop: Shop) -> None:
    image_id, claim = shop.api.keep(pictures.jpeg()), new_token()
    assert shop.api.retrieve(image_id, claim).status_code == 200
    assert_is_claimed(shop.api.open_checkout(image_id))
    assert_is_claimed(shop.api.request("POST", SESSION, json={"imageId": image_id, "claim": new_token()}))
    assert shop.api.request("POST", SESSION, json={"imageId": image_id, "claim": claim}).status_code == 200


@pytest.mark.parametrize("claim", ["short", 7, [], "x" * 65])
def test_a_claim_of_the_wrong_form_is_refused(shop: Shop, claim: object) -> None:
    answer = shop.api.request("POST", SESSION, json={"imageId": shop.api.keep(pictures.jpeg()), "claim": claim})
    assert (answer.status_code, answer.json()["code"]) == (400, "claim_malformed")


def test_a_picture_that_a_plain_reader_reads_is_not_sold(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.long_jpeg())
    with shop.api.connection(window=32768) as connection:
        request = f"GET {RETRIEVE}?imageId={image_id} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        connection.recv(1000)
        assert_is_claimed(shop.api.open_checkout(image_id))
        connection.makefile("rb").read()
    wait_for(lambda: shop.api.server.names() == [], "the picture to be gone")
    assert shop.stand_in.sessions == {}


def test_a_session_opened_while_its_picture_was_claimed_is_ended(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    is_held = shop.stand_in.hold()
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(shop.api.open_checkout, image_id)
        assert is_held.wait(20)
        assert shop.api.retrieve(image_id, new_token()).status_code == 200
        shop.stand_in.release()
        assert_is_claimed(opening.result())
    assert [session["status"] for session in shop.stand_in.sessions.values()] == ["expired"]
