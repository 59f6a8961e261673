"""`flask --app heroimg.wsgi check --url ...` through nginx: each test breaks one part, and reads the line about it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from heroimg.operations import public_check
from tests.helpers.api import UPLOAD
from tests.helpers.production import Production, production, shipped
from tests.helpers.serving import ROOT

ORIGIN, SECOND = "https://www.example.com", "https://second.example"
BROKEN = {
    "client_max_body_size 34m;": "client_max_body_size 6m;",
    "proxy_set_header Origin $http_origin;": "",
    "proxy_set_header Sec-Purpose $http_sec_purpose;": "",
}


def check(house: Production, *, url: str = "", trusts: bool = True) -> dict[tuple[str, str], str]:
    """Run the command as an operator whose machine trusts the certificate; return sentences by state and subject."""
    if trusts:
        house.server.environ["SSL_CERT_FILE"] = str(house.certificate)
    ran = house.server.flask("check", "--json", "--url", url or house.url)
    sentences = dict[tuple[str, str], str]()
    for line in json.loads(ran.stdout):
        key = line["state"], line["subject"]
        sentences[key] = f"{sentences.get(key, '')}{line['sentence']}\n"
    assert ran.returncode == any(state == "fault" for state, _ in sentences), ran.stdout
    return sentences


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """Serve as in production, with an origin that nginx-errors.conf does not list."""
    folder = tmp_path_factory.mktemp("public") / "whole"
    with production(folder, 1, FRONTEND_URL=f"{ORIGIN}, {SECOND}") as house:
        house.stand_in.webhook_url = f"{house.url}/api/checkout/webhook"
        yield house


@pytest.fixture(scope="module")
def broken_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    folder = tmp_path_factory.mktemp("broken") / "whole"
    with production(folder, 1, BROKEN, HEROIMG_TRUSTED_PROXIES="0") as house:
        yield house


def test_the_public_side_of_the_shipped_nginx_is_good(house: Production) -> None:
    sentences = check(house)
    assert {subject for state, subject in sentences if state == "fault"} == set()
    for subject in ("public", "address", "body limit", "cors", "prefetch", "stripe"):
        assert ("ok", subject) in sentences
    assert f"pages of {ORIGIN} can read all answers" in sentences["ok", "cors"]
    assert f"the webhook endpoint {house.url}/api/checkout/webhook gets the events" in sentences["ok", "stripe"]
    assert house.server.names() == []


def test_a_certificate_that_ends_soon_is_a_warning(house: Production) -> None:
    assert "the certificate ends in 1 days: renew it, for example by `certbot renew`" in check(house)["warning", "tls"]


def test_an_origin_that_nginxs_own_errors_do_not_admit_is_a_warning(house: Production) -> None:
    warning = check(house)["warning", "cors"]
    assert f"pages of {SECOND} cannot read the errors of the web server in front" in warning
    assert "/etc/nginx/heroimg-errors.conf" in warning


def test_an_untrusted_certificate_is_a_fault(broken_house: Production) -> None:
    fault = check(broken_house, trusts=False)["fault", "tls"]
    assert "the certificate is not valid (self-signed certificate): get one for this name" in fault


def test_plain_http_and_a_silent_address_are_faults(house: Production) -> None:
    assert (
        "so the network can read every picture"
        in check(house, url=f"http://127.0.0.1:{house.plain_port}")["fault", "tls"]
    )
    assert "does not answer" in check(house, url="https://127.0.0.1:1")["fault", "public"]


def test_requests_that_nginx_does_not_pass_on_are_faults(broken_house: Production) -> None:
    sentences = check(broken_house)
    assert "in nginx by client_max_body_size 34m" in sentences["fault", "body limit"]
    assert "cannot read the answer to OPTIONS and GET" in sentences["fault", "cors"]
    assert "pass on the headers Sec-Purpose, Purpose" in sentences["fault", "prefetch"]
    assert "set HEROIMG_TRUSTED_PROXIES to 1, not 0" in sentences["fault", "address"]
    assert f"an enabled endpoint {broken_house.url}/api/checkout/webhook must get" in sentences["fault", "stripe"]


def test_too_many_trusted_proxies_and_a_readyz_that_is_not_served_are_faults(tmp_path: Path) -> None:
    changes = {
        "proxy_set_header X-Forwarded-For $remote_addr;": "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
    }
    with production(tmp_path / "whole", 1, changes, HEROIMG_TRUSTED_PROXIES="2") as house:
        fault = check(house)["fault", "address"]
        assert "customers can claim any address: set HEROIMG_TRUSTED_PROXIES to 1, not 2" in fault
        house.server.stop()
        house.socket.close()
        sentences = check(house)
        assert "/readyz answers 502: heroimg does not run, or hangs" in sentences["fault", "public"]
        assert {"body limit", "cors", "prefetch"}.isdisjoint(subject for _, subject in sentences)


@pytest.mark.parametrize("status", [500, 503])
def test_apache_that_cannot_reach_heroimg_is_recognised_by_its_code(
    house: Production, httpserver: HTTPServer, status: int
) -> None:
    answer = re.search(f"ErrorDocument {status} '(.*)'", (ROOT / "deploy/apache.conf").read_text())
    assert answer
    httpserver.expect_request("/readyz").respond_with_data(answer[1], status, content_type="application/json")
    sentences = check(house, url=httpserver.url_for("").rstrip("/"))
    assert f"/readyz answers {status}: heroimg does not run, or hangs" in sentences["fault", "public"]
    assert {"body limit", "cors", "prefetch"}.isdisjoint(subject for _, subject in sentences)


def test_a_store_that_cannot_keep_pictures_is_not_taken_for_the_web_servers_limit(
    house: Production, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/readyz").respond_with_json({"code": "store_unavailable", "error": "no store"}, 503)
    httpserver.expect_request(UPLOAD).respond_with_json({"code": "store_unavailable", "error": "no store"}, 503)
    sentences = check(house, url=httpserver.url_for("").rstrip("/"))
    assert "because heroimg cannot keep pictures" in sentences["warning", "body limit"]


def test_the_check_waits_longer_than_nginx_waits_for_heroimg() -> None:
    assert shipped("deploy/nginx.conf", r"proxy_read_timeout (\d+)s") < public_check._SECONDS
