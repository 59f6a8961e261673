"""Hostile input gets a documented answer, costs little CPU and memory, leaves no file, and ends no worker.

The kernel counts a worker's memory and the CPU time of each request (helpers/process_usage.py).
test_smuggling.py tests what happens below HTTP, test_fuzz.py tests random input.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from stripe import WebhookSignature

from tests.helpers import hostile_inputs as hostile
from tests.helpers import pictures
from tests.helpers.api import RETRIEVE, SESSION, STATUS, UPLOAD, WEBHOOK, Api, new_token
from tests.helpers.attacked_server import serving_attacked, unharmed
from tests.helpers.process_usage import MOST_BYTES, peak_bytes
from tests.helpers.serving import serving, wait_for
from tests.helpers.shop import Shop

pytestmark = pytest.mark.proof

FORM = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.fixture(scope="module")
def open_attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with serving_attacked(tmp_path_factory.mktemp("hostile") / "served") as api:
        yield api


@pytest.fixture
def attacked(open_attacked: Api) -> Iterator[Api]:
    """Serve from an empty folder; afterwards check the folder, the log and the worker."""
    open_attacked.server.clear()
    with unharmed(open_attacked):
        yield open_attacked


def code_of(answer: requests.Response) -> str:
    """Return the code of a refusal, or "" for a success."""
    return "" if answer.status_code == 200 else str(answer.json()["code"])


@pytest.mark.parametrize(("picture", "code"), hostile.PICTURES.values(), ids=hostile.PICTURES.keys())
def test_a_costly_picture_is_refused_or_cheap(attacked: Api, picture: bytes, code: str) -> None:
    assert len(picture) <= 5 * hostile.MEGABYTE
    assert code_of(attacked.upload(picture)) == code


@pytest.mark.parametrize(("body", "code"), hostile.FORMS.values(), ids=hostile.FORMS.keys())
def test_a_form_that_no_browser_sends_is_refused_and_leaves_nothing(attacked: Api, body: bytes, code: str) -> None:
    assert code_of(attacked.request("POST", UPLOAD, data=body, headers=FORM)) == code
    wait_for(lambda: attacked.server.names() == [], "the folder to be empty")


@pytest.mark.parametrize("boundary", ['""', "é", "b" * 8_000, "-" * 8_000, "b; boundary=c", "b\t", "*", "("])
def test_a_form_with_an_unusual_boundary_is_refused(attacked: Api, boundary: str) -> None:
    content_type = f"multipart/form-data; boundary={boundary}".encode("latin-1")
    answer = attacked.request("POST", UPLOAD, data=b"--b--\r\n" * 9, headers={"Content-Type": content_type})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "name",
    [
        b'filename="a\r\nX-Evil: yes\r\n\r\n"', b'filename="a\nSet-Cookie: a=b"', b'filename="a\rX-Evil: yes"',
        b"filename*=UTF-8''a%0d%0aX-Evil:%20yes", b'filename="../../../../etc/cron.d/evil"', b'filename="a\0.html"',
        b'filename="\xc3\xa9\xe2\x80\xae"', b'filename="' + b"a" * 100_000 + b'"', b"filename=C:\\\\boot.ini",
    ],
    ids=range(9),
)  # fmt: skip
def test_a_file_name_reaches_neither_a_header_nor_the_disk_nor_the_log(attacked: Api, name: bytes) -> None:
    body = hostile.part(pictures.jpeg(), disposition=b'form-data; name="image"; ' + name) + hostile.FORM_END
    answer = attacked.request("POST", UPLOAD, data=body, headers=FORM)
    assert "X-Evil" not in answer.headers
    if answer.status_code == 200:
        image_id = answer.json()["imageId"]
        assert attacked.server.names() == [image_id, f"{image_id}.json"]
        back = attacked.retrieve(image_id)
        assert back.headers["Content-Disposition"] == 'inline; filename="picture.jpg"'
        assert not {"X-Evil", "Set-Cookie"} & set(back.headers)
    for hidden in ("X-Evil", "Set-Cookie", "etc/cron.d", "boot.ini"):
        assert hidden not in attacked.server.log()


@pytest.mark.parametrize("image_id", hostile.NOT_IDS.values(), ids=hostile.NOT_IDS.keys())
def test_an_invalid_id_is_not_found_and_opens_no_file(attacked: Api, image_id: str) -> None:
    assert attacked.retrieve(image_id).json()["code"] == "image_not_found"
    assert attacked.retrieve(image_id, method="HEAD").status_code == 404
    assert attacked.confirm(image_id).status_code == 204
    assert attacked.open_checkout(image_id).json()["code"] == "image_not_found"
    assert attacked.status(image_id).json()["code"] == "session_id_malformed"
    assert attacked.retrieve("0" * 32, f"{image_id} ").json()["code"] == "claim_malformed"


def test_an_unknown_id_and_a_malformed_one_are_answered_alike(attacked: Api) -> None:
    answers = [attacked.retrieve(image_id) for image_id in ("0" * 32, "nonsense", "0" * 31)]
    for answer in answers:
        del answer.headers["Date"], answer.headers["X-Request-ID"]
    assert len({(answer.status_code, answer.content, tuple(answer.headers.items())) for answer in answers}) == 1


def test_the_first_of_two_ids_counts(attacked: Api) -> None:
    image_id = attacked.keep(pictures.jpeg())
    twice = f"{RETRIEVE}?imageId={image_id}&imageId={'0' * 32}"
    assert attacked.request("HEAD", twice).status_code == 200


def test_an_id_that_is_too_long_is_refused_in_a_body_and_in_an_address(attacked: Api) -> None:
    assert attacked.open_checkout("0" * 2**20).json()["code"] == "request_too_large"
    with attacked.connection() as connection:
        connection.sendall(f"GET {RETRIEVE}?imageId={'0' * 10_000}".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 414 ")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000, b'{"imageId":' * 5_000, b'{"imageId": ' + b"9" * 60_000 + b"}", b'{"imageId": 1e999999}',
        b'{"imageId": "\\ud800"}', b'{"imageId": NaN}', b'{"imageId": {"$ne": null}}', b'{"imageId": ["a"]}',
        b'{"imageId": "a", "imageId": "b"}', b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b"\0" * 60_000, b'"\\' * 30_000,
        b'{"__proto__": {}, "imageId": true}', b"{" + b" " * 60_000 + b"}",
    ],
    ids=range(15),
)  # fmt: skip
def test_hostile_json_is_refused(attacked: Api, body: bytes) -> None:
    answer = attacked.request("POST", SESSION, data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 404)


def test_a_client_cannot_choose_price_product_or_return_address(shop: Shop) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    wishes = {"unit_amount": 1, "price": 0, "currency": "idr", "quantity": 0, "return_url": "https://evil.example"}
    body = {**wishes, "line_items": [wishes], "metadata": {"imageId": "0" * 32}, "imageId": image_id}
    assert shop.api.request("POST", SESSION, json=body).status_code == 200
    asked = shop.stand_in.requests[0].params
    assert asked["line_items[0][price_data][unit_amount]"] == "200"
    assert asked["line_items[0][price_data][currency]"] == "usd"
    assert asked["metadata[imageId]"] == image_id
    assert asked["return_url"].startswith("http://localhost:3000/hero-me?")
    assert "evil" not in str(asked)


@pytest.mark.parametrize(
    "event",
    [
        "{}", "[]", "null", "1", '"x"', "NaN", "[" * 90_000, '{"type": {}}', '{"object": 5}',
        '{"type": "checkout.session.completed"}', '{"type": "checkout.session.completed", "data": {}}',
        '{"type": "checkout.session.completed", "data": {"object": {}}}',
        '{"type": "checkout.session.completed", "data": {"object": "x"}}',
        '{"type": "checkout.session.completed", "data": {"object": {"id": 5}}}',
        '{"type": "checkout.session.completed", "data": {"object": {"id": "../../v1/accounts"}}}',
        '{"type": "checkout.session.completed", "data": [1, [2]]}',
    ],
    ids=range(16),
)  # fmt: skip
def test_a_signed_body_that_is_no_event_is_refused(attacked: Api, event: str) -> None:
    header = WebhookSignature.generate_signature_header(event, "whsec_standin")
    answer = attacked.request("POST", WEBHOOK, data=event.encode(), headers={"Stripe-Signature": header})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "header", ["t=" + "9" * 5_000 + ",v1=a", "t=,v1=", "t,v1", "=" * 5_000, "t=1," * 1_500, "t=nan,v1=a"]
)
def test_an_invalid_signature_is_refused(attacked: Api, header: str) -> None:
    answer = attacked.request("POST", WEBHOOK, data=b"{}", headers={"Stripe-Signature": header})
    assert answer.json()["code"] == "signature_invalid"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("If-Modified-Since", "Mon, 01 Jan 99999999999 00:00:00 GMT"),
        ("If-Modified-Since", "Mon, 01 Jan 2020 00:00:00 +99999999999999"),
        ("If-Range", "Mon, 01 Jan 99999999999 00:00:00 GMT"),
        ("Range", "bytes=" + "9" * 5_000 + "-"),
        ("Range", "bytes=" + "0-1," * 1_500),
        ("If-None-Match", '"' * 7_000),
        ("Accept", "*/*;q=" + "9" * 5_000),
        ("Accept-Encoding", ", " * 3_500),
        ("Cookie", "a=b; " * 1_500),
        ("Authorization", "Basic =" + "é"),
        ("Origin", "http://localhost:3000\\.evil.example"),
        ("Content-Type", "multipart/form-data" + ";" * 7_000),
        ("X-Forwarded-For", ", " * 3_500),
    ],
)
@pytest.mark.parametrize("path", ["/static/heroimg.js", f"{RETRIEVE}?imageId=x", "/healthz"])
def test_no_header_breaks_anything(attacked: Api, path: str, name: str, value: str) -> None:
    both = {"Range": "bytes=0-1"} if name == "If-Range" else {}
    answer = attacked.request("GET", path, headers={name: value.encode(), **both})
    assert answer.status_code in (200, 400, 404)
    assert answer.headers["Cache-Control"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("host", ["a" * 300, "a..b", "[::", 'a"<b>', "é", "a:99999999"])
def test_no_host_is_repeated(attacked: Api, host: str) -> None:
    answer = attacked.request("GET", f"{RETRIEVE}?imageId=x", headers={"Host": host.encode()})
    assert answer.status_code in (400, 404)
    assert host not in answer.text + str(answer.headers)


@pytest.mark.parametrize(
    "path",
    ["/api//temp-image-retrieve", "//api/temp-image-retrieve", "/api/temp-image-retrieve/", "//evil.example/%2e%2e",
     "/static/../config.py", "/static/%2e%2e/config.py", "/static/%00", "/static//etc/passwd"],
)  # fmt: skip
def test_an_address_with_too_much_in_it_is_not_found_and_leads_nowhere(attacked: Api, path: str) -> None:
    with attacked.connection() as connection:
        connection.sendall(f"GET {path}?imageId=x HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".encode())
        head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"evil.example" not in head + body
    assert json.loads(body)["code"] == ("image_not_found" if path == "//api/temp-image-retrieve" else "not_found")


def test_every_answer_of_the_api_forbids_caching(attacked: Api) -> None:
    image_id = attacked.keep(pictures.jpeg())
    kept = attacked.retrieve(image_id, new_token())
    for answer in (
        kept,
        attacked.retrieve("x"),
        attacked.request("GET", "/nowhere"),
        attacked.status(""),
        attacked.confirm("x"),
    ):
        assert "no-store" in answer.headers["Cache-Control"]
    for origin in ("http://localhost:3000", "http://evil.example"):
        assert attacked.retrieve("x", headers={"Origin": origin}).headers["Vary"] == "Origin"


@pytest.mark.parametrize(("length", "sent"), [(1000, 999), (10**6, 10), (10, 0)])
@pytest.mark.parametrize("path", [UPLOAD, SESSION, WEBHOOK])
def test_a_length_that_promises_more_than_comes_is_a_broken_connection(
    attacked: Api, path: str, length: int, sent: int
) -> None:
    content_type = "application/json" if path == SESSION else FORM["Content-Type"]
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    with attacked.connection() as connection:
        connection.sendall(head.encode() + (hostile.part() * 30)[:sent])
        connection.shutdown(1)
        assert connection.makefile("rb").readline()[9:12] in (b"400", b"413")


def test_16_costly_requests_at_once_take_no_more_memory_than_a_worker_may_have(tmp_path: Path) -> None:
    """One request for each of the worker's threads, with the largest accepted pictures, forms and bodies."""
    taken = [pictures.progressive_jpeg(13_000, 5_000).ljust(5 * 2**20, b"\0"), pictures.jpeg().ljust(5 * 2**20, b"\0")]
    fields = [(f"field{number}", (None, b"x" * 250_000)) for number in range(19)]
    with serving(tmp_path / "served", {}, workers=1) as server, ThreadPoolExecutor(16) as pool:
        api = Api(server)
        assert {answer.status_code for answer in pool.map(api.upload, taken * 8)} == {200}
        list(pool.map(lambda _: api.request("POST", UPLOAD, files=fields), range(16)))
        list(pool.map(lambda _: api.open_checkout("0" * 60_000), range(16)))
        assert peak_bytes(server.workers()[0]) < MOST_BYTES


def test_status_of_a_session_that_is_not_ours_to_ask_for_never_reaches_stripe(attacked: Api) -> None:
    for session_id in (
        "cs_test_../../accounts",
        "cs_test_" + "a" * 201,
        "cs_test_a?expand[]=x",
        "pi_123",
        "cs_test_a\n",
    ):
        assert attacked.request("GET", STATUS, params={"session_id": session_id}).status_code == 400
