"""X-Request-ID: one id in a request's answer, in its lines of the log, and in nginx's log."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers import pictures
from tests.helpers.api import RETRIEVE, Api, new_token
from tests.helpers.production import production
from tests.helpers.serving import ROOT, wait_for

PLAIN_ID = "6d1b8c3e-0d3f-4a51-9d5a-0f2e4f6a7b8c"
MADE = re.compile("[0-9a-f]{16}")


def lines_of(log: str, request: str) -> list[str]:
    return [line for line in log.splitlines() if f" [{request}]: " in line]


def test_a_plain_id_is_in_the_answer_and_in_every_line_of_the_request(api: Api) -> None:
    image_id = api.keep(pictures.jpeg())
    answer = api.retrieve(image_id, headers={"X-Request-ID": PLAIN_ID})
    assert answer.headers["X-Request-ID"] == PLAIN_ID
    wait_for(lambda: len(lines_of(api.server.log(), PLAIN_ID)) == 2, "both lines of the request")
    first, second = lines_of(api.server.log(), PLAIN_ID)
    assert "handing over" in first
    assert f"handed over {image_id[:6]}" in second


def test_without_an_id_each_request_gets_its_own(api: Api) -> None:
    made = [api.request("GET", "/nowhere").headers["X-Request-ID"] for _ in range(3)]
    assert len(set(made)) == 3
    assert all(MADE.fullmatch(one) for one in made)
    image_id = "0" * 32
    refused = api.retrieve(image_id)
    (line,) = lines_of(api.server.log(), refused.headers["X-Request-ID"])
    assert "answered 404 image_not_found" in line


@pytest.mark.parametrize(
    "given", ["8cf0c9" + "d" * 26, "x8cf0c9" + "d" * 26, "cs_test_a1b2c3d4e5f6", "a b", "x" * 65, "a]: forged", ""]
)
def test_an_id_that_is_not_plain_or_may_be_a_secret_is_replaced(api: Api, given: str) -> None:
    answer = api.retrieve("0" * 32, headers={"X-Request-ID": given})
    assert MADE.fullmatch(answer.headers["X-Request-ID"])
    assert not given or given not in api.server.log()


def test_a_line_outside_a_request_has_no_id(api: Api) -> None:
    assert re.search(r" heroimg\.wsgi: ready: ", api.server.log(0))


def test_a_page_of_the_front_end_can_read_the_id(api: Api) -> None:
    answer = api.retrieve("0" * 32, headers={"Origin": "http://localhost:3000"})
    assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]


def test_nginx_passes_the_id_on_logs_it_and_answers_with_it(tmp_path: Path) -> None:
    with production(tmp_path / "whole", 1) as house:
        customer, token = house.customer(), new_token()
        image_id = customer.keep(pictures.jpeg())
        for given in (PLAIN_ID, image_id, None):
            headers = {"X-Request-ID": given} if given else {}
            answer = customer.retrieve(image_id, token, headers=headers)
            request = answer.headers["X-Request-ID"]
            assert request == PLAIN_ID if given == PLAIN_ID else MADE.fullmatch(request)
            assert lines_of(house.server.log(), request)
            pattern = rf"GET {RETRIEVE} 200 .* request {request}$"
            wait_for(lambda pattern=pattern: re.search(pattern, house.logs(), re.MULTILINE), "nginx's line")  # type: ignore[misc]
        assert image_id not in house.logs()
        own = house.ask(customer, "/only-nginx-answers", headers={"X-Request-ID": PLAIN_ID})
        assert (own.status_code, own.headers["X-Request-ID"]) == (404, PLAIN_ID)


def test_nginx_and_heroimg_have_one_expression_for_plain_ids() -> None:
    expression = re.search(r'_PLAIN = re\.compile\(r"(.*)"\)', (ROOT / "heroimg/api/request_id.py").read_text())
    assert expression
    assert f'"~^{expression[1]}$" $http_x_request_id;' in (ROOT / "deploy/nginx-errors.conf").read_text()
