"""Below HTTP: requests that two servers could interpret differently, or that never end.

gunicorn answers invalid HTTP with an HTML page, or not at all, so nginx must not pass any of it on.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.helpers import pictures
from tests.helpers.api import RETRIEVE, SESSION, UPLOAD, Api
from tests.helpers.production import Production, make_journey, production, shipped
from tests.helpers.raw_http import RawResponse, say, say_by_http2, to_nginx
from tests.helpers.serving import wait_for

pytestmark = pytest.mark.proof

HOST = b"Host: heroimg.example.com\r\n"
CLOSE = b"Connection: close\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\n"


@pytest.fixture(scope="module")
def open_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    with production(tmp_path_factory.mktemp("smuggling") / "whole") as whole:
        yield whole


@pytest.fixture
def house(open_house: Production) -> Iterator[Production]:
    """Serve as in production; afterwards check that gunicorn received only valid requests."""
    open_house.server.clear()
    workers = open_house.server.workers()
    yield open_house
    assert open_house.customer().request("GET", "/healthz").status_code == 200
    assert open_house.server.workers() == workers
    assert "Traceback" not in open_house.server.log()
    assert "Invalid request" not in open_house.server.log()


# Requests that are invalid, or that a server need not understand, and the status of gunicorn's answer without nginx.
NO_HTTP = {
    "nothing but line breaks": (b"\r\n\r\n\r\n", 400),
    "every byte there is": (bytes(range(256)) * 4 + b"\r\n\r\n", 400),
    "TLS's first bytes": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "HTTP/2 without TLS": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/3.0": (b"GET /healthz HTTP/3.0\r\n" + HOST + b"\r\n", 400),
    "line feeds alone": (b"GET /healthz HTTP/1.1\nHost: heroimg.example.com\nConnection: close\n\n", 400),
    "a method of two letters": (b"AB /healthz HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", 400),
    "a method of 30 letters": (b"A" * 30 + b" /healthz HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", 400),
    "a method in small letters": (b"get /healthz HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", 400),
    "an address with raw bytes": (b"GET /api/\xc3\xa9?imageId=\xff HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", 400),
    "an address with a null byte": (b"GET /api/\0 HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", 400),
    "an address of 10 KB": (b"GET /api/" + b"a" * 10_000 + b" HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", 414),
    "a header of 10 KB": (HEALTH + HOST + CLOSE + b"X: " + b"a" * 10_000 + b"\r\n\r\n", 431),
    "101 headers": (HEALTH + HOST + CLOSE + b"X: a\r\n" * 101 + b"\r\n", 431),
    "two Hosts": (HEALTH + HOST + HOST + CLOSE + b"\r\n", 400),
    "two Content-Types": (HEALTH + HOST + CLOSE + b"Content-Type: a/b\r\nContent-Type: c/d\r\n\r\n", 400),
    "a null byte in a header": (HEALTH + HOST + CLOSE + b"X: a\0b\r\n\r\n", 400),
    "a bare carriage return in a header": (HEALTH + HOST + CLOSE + b"X: a\rY: b\r\n\r\n", 400),
    "a folded header": (HEALTH + HOST + CLOSE + b"X: a\r\n b\r\n\r\n", 400),
    "a space before the colon": (HEALTH + HOST + CLOSE + b"X : a\r\n\r\n", 400),
    "a header without a name": (HEALTH + HOST + CLOSE + b": a\r\n\r\n", 400),
    "a header without a colon": (HEALTH + HOST + CLOSE + b"X\r\n\r\n", 400),
    "an underscore in a header": (HEALTH + HOST + CLOSE + b"SCRIPT_NAME: /x\r\n\r\n", 200),
    "another path in a header": (HEALTH + HOST + CLOSE + b"PATH_INFO: /metrics\r\n\r\n", 200),
    "schemes that contradict": (
        HEALTH + HOST + CLOSE + b"X-Forwarded-Ssl: off\r\nX-Forwarded-Proto: https\r\n\r\n", 200,
    ),
    "three long lists of addresses": (
        HEALTH + HOST + CLOSE + (b"X-Forwarded-For: " + b"10.0.0.1," * 600 + b"\r\n") * 3 + b"\r\n", 200,
    ),
    "an expectation": (HEALTH + HOST + CLOSE + b"Expect: a-miracle\r\n\r\n", 417),
}  # fmt: skip

# nginx accepts these, and sends gunicorn a valid request that it writes itself.
_NGINX_CORRECTS = {
    "line feeds alone", "101 headers", "two Content-Types", "an underscore in a header", "another path in a header",
    "schemes that contradict", "three long lists of addresses", "an expectation",
    "a header without a colon",
}  # fmt: skip


@pytest.mark.parametrize(("data", "status"), NO_HTTP.values(), ids=NO_HTTP.keys())
def test_gunicorn_alone_answers_invalid_http_in_html(shared: Api, data: bytes, status: int) -> None:
    with shared.connection() as connection:
        answers = say(connection, data, hang_up=True)
    assert [answer.status for answer in answers] == [status]
    assert ("text/html" in answers[0].headers["content-type"]) == (status != 200)
    assert "Traceback" not in shared.server.log()


@pytest.mark.parametrize("name", [name for name in NO_HTTP if name != "nothing but line breaks"])  # it waits for more
def test_nginx_refuses_invalid_http_in_json_or_corrects_it(house: Production, name: str) -> None:
    with to_nginx(house) as connection:
        answers = say(connection, NO_HTTP[name][0])
    if name in _NGINX_CORRECTS:
        assert [(answer.status, json.loads(answer.body)) for answer in answers] == [(200, {"status": "ok"})]
    else:
        assert all(answer.status in (400, 414, 431, 505) and answer.code for answer in answers)


def test_gunicorn_accepts_every_address_that_nginx_accepts(house: Production) -> None:
    """Try addresses about as long as nginx accepts, with short and long methods."""
    for method, length in itertools.product((b"GET", b"DELETE", b"A" * 20), range(7_900, 8_020, 7)):
        with to_nginx(house) as connection:
            address = RETRIEVE.encode().ljust(length, b"x")
            answers = say(connection, method + b" " + address + b" HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
        assert answers[0].status in (404, 405, 414)
        assert answers[0].code
    for length in (7_900, 7_999, 8_000):
        assert say_by_http2(house, by_http2(path=b"/api/".ljust(length, b"x"))) in (404, 414, 400, None)


def hidden(image_id: str) -> bytes:
    """Return a request that uses a picture up, to be hidden within another request."""
    return f"GET {RETRIEVE}?imageId={image_id} HTTP/1.1\r\nHost: heroimg.example.com\r\n\r\n".encode()


# The last headers of a POST, and its body. SMUGGLED stands for the hidden request, LENGTH for the body's length.
CHUNKED = b"Transfer-Encoding: chunked\r\n"
REST = b"Content-Length: LENGTH\r\n\r\n0\r\n\r\nSMUGGLED"
SMUGGLING = {
    "CL.TE": b"Content-Length: LENGTH\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSMUGGLED",
    "TE.CL": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nSMUGGLED\r\n0\r\n\r\n",
    "TE and CL 0": b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSMUGGLED",
    "TE.TE twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\nSMUGGLED",
    "TE.TE a list": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nSMUGGLED",
    "TE identity": b"Transfer-Encoding: identity\r\nContent-Length: LENGTH\r\n\r\nSMUGGLED",
    "TE xchunked": b"Transfer-Encoding: xchunked\r\nContent-Length: LENGTH\r\n\r\n0\r\n\r\nSMUGGLED",
    "TE with a space before the colon": b"Transfer-Encoding : chunked\r\n" + REST,
    "TE with a vertical tab": b"Transfer-Encoding:\x0bchunked\r\nContent-Length: LENGTH\r\n\r\n0\r\n\r\nSMUGGLED",
    "TE folded": b"Transfer-Encoding:\r\n chunked\r\nContent-Length: LENGTH\r\n\r\n0\r\n\r\nSMUGGLED",
    "TE quoted": b'Transfer-Encoding: "chunked"\r\nContent-Length: LENGTH\r\n\r\n0\r\n\r\nSMUGGLED',
    "TE behind a bare line feed": b"X: y\n" + CHUNKED + REST,
    "TE behind a bare carriage return": b"X: y\r" + CHUNKED + REST,
    "two lengths": b"Content-Length: 0\r\nContent-Length: LENGTH\r\n\r\nSMUGGLED",
    "two equal lengths": b"Content-Length: LENGTH\r\nContent-Length: LENGTH\r\n\r\nSMUGGLED",
    "a list of lengths": b"Content-Length: LENGTH, 0\r\n\r\nSMUGGLED",
    "a length with a sign": b"Content-Length: +LENGTH\r\n\r\nSMUGGLED",
    "a negative length": b"Content-Length: -1\r\n\r\nSMUGGLED",
    "a length in hexadecimal": b"Content-Length: 0x0\r\n\r\nSMUGGLED",
    "a length with an underscore": b"Content_Length: 0\r\nContent-Length: LENGTH\r\n\r\nSMUGGLED",
    "a length of 100 digits": b"Content-Length: " + b"9" * 100 + b"\r\n\r\nSMUGGLED",
    "a chunk in 0x": b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\nSMUGGLED",
    "a negative chunk": b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\nSMUGGLED",
    "a chunk of 17 digits": b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\nSMUGGLED",
    "a chunk's end without its line": b"Transfer-Encoding: chunked\r\n\r\n1\r\nZQ\r\n0\r\n\r\nSMUGGLED",
    "a chunk's extension with a line feed": b"Transfer-Encoding: chunked\r\n\r\n1;a\nSMUGGLED",
    "chunks by line feeds": b"Transfer-Encoding: chunked\r\n\r\n1\nZ\n0\n\nSMUGGLED",
    "a trailer": b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 100\r\n\r\nSMUGGLED",
}  # fmt: skip


@pytest.mark.parametrize("rest", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_nginx_refuses_possible_double_requests_or_lets_gunicorn_see_one(house: Production, rest: bytes) -> None:
    """The picture that the hidden request names is still there, and gunicorn got no request for it.

    If the input is two valid requests, one after the other, nginx answers both in order.
    """
    image_id = house.customer().keep(pictures.jpeg())
    with to_nginx(house) as connection:
        answers = say(connection, smuggling(rest, image_id))
    assert_is_untouched(house.customer(), image_id, answers)


@pytest.mark.parametrize("rest", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_gunicorn_alone_refuses_it_too_or_sees_one_request(shared: Api, rest: bytes) -> None:
    shared.server.clear()
    image_id = shared.keep(pictures.jpeg())
    with shared.connection() as connection:
        answers = say(connection, smuggling(rest, image_id), hang_up=True)
    assert_is_untouched(shared, image_id, answers)
    assert "Traceback" not in shared.server.log()


def smuggling(rest: bytes, image_id: str) -> bytes:
    body = rest.partition(b"\r\n\r\n")[2].replace(b"SMUGGLED", hidden(image_id))
    head = b"POST " + SESSION.encode() + b" HTTP/1.1\r\n" + HOST + CLOSE + b"Content-Type: application/json\r\n"
    return (head + rest).replace(b"LENGTH", str(len(body)).encode()).replace(b"SMUGGLED", hidden(image_id))


def assert_is_untouched(api: Api, image_id: str, answers: list[RawResponse]) -> None:
    assert not [answer for answer in answers if answer.status == 200]
    assert api.retrieve(image_id, method="HEAD").status_code == 200
    assert not re.search(f"(claimed|handing over) {image_id[:6]}", api.server.log())


def by_http2(*more: tuple[bytes, bytes], **pseudo: bytes) -> list[tuple[bytes, bytes]]:
    fields = {"method": b"GET", "scheme": b"https", "path": b"/healthz", "authority": b"heroimg.example.com"} | pseudo
    return [(f":{name}".encode(), value) for name, value in fields.items()] + list(more)


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nX-Forwarded-For: 10.0.0.1"), (b"x\r\nhost", b"evil.example"), (b"x", b"a\0"), (b"x y", b"a"),
        (b"X-Capital", b"a"), (b":path", b"/metrics"), (b"host", b"evil.example"), (b"content-length", b"5"),
    ],
    ids=range(8),
)  # fmt: skip
def test_a_header_that_http2_does_not_allow_is_refused(house: Production, header: tuple[bytes, bytes]) -> None:
    assert say_by_http2(house, by_http2(header)) in (None, 400)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", b"GET /metrics HTTP/1.1\r\nX: y"), ("method", b"AB"), ("path", b"/healthz HTTP/1.1\r\nX: y"),
        ("path", b"/api/\xff"), ("path", b"healthz"), ("authority", b"a b"), ("scheme", b"https\r\nX: y"),
    ],
    ids=range(7),
)  # fmt: skip
def test_a_first_line_that_http2_does_not_allow_is_refused(house: Production, name: str, value: bytes) -> None:
    assert say_by_http2(house, by_http2(**{name: value})) in (None, 400)


@pytest.mark.parametrize("header", [(b"transfer-encoding", b"chunked"), (b"connection", b"close"), (b"te", b"chunked")])
def test_a_header_of_http1_goes_no_further(house: Production, header: tuple[bytes, bytes]) -> None:
    assert say_by_http2(house, by_http2(header)) in (None, 200, 400)


@pytest.mark.parametrize("length", [b"0", b"1", b"1000", b"-1", b"2, 2"])
def test_a_length_that_is_not_that_of_http2s_frames_is_refused(house: Production, length: bytes) -> None:
    image_id = house.customer().keep(pictures.jpeg())
    headers = by_http2(
        (b"content-type", b"application/json"), (b"content-length", length), method=b"POST", path=SESSION.encode()
    )
    for more in ([], [(b"transfer-encoding", b"chunked")]):
        assert say_by_http2(house, headers + more, b"0\r\n\r\n" + hidden(image_id)) in (None, 400)
    assert house.customer().retrieve(image_id, method="HEAD").status_code == 200


@pytest.mark.parametrize(
    "target",
    [
        b"/%0d%0aX-Evil:%20yes",
        b"/%0aX-Evil:%20yes",
        b"/%0d%0a%0d%0a<script>",
        b"//evil.example/",
        b"http://evil.example/",
    ],
)
def test_plain_http_leads_nowhere_else_whatever_is_asked(house: Production, target: bytes) -> None:
    with to_nginx(house, plain=True) as connection:
        answers = say(connection, b"GET " + target + b" HTTP/1.1\r\nHost: evil.example\r\n" + CLOSE + b"\r\n")
    assert [answer.status for answer in answers] == [301]
    assert answers[0].headers["location"].startswith("https://heroimg.example.com/")
    assert "x-evil" not in answers[0].headers


def test_the_application_gets_the_address_that_nginx_saw_and_one_host(house: Production) -> None:
    """For any values of X-Forwarded-For and Host, any number of these headers, and names with - or _."""
    with to_nginx(house) as connection:
        data = [b"X-Forwarded-For: 10.0.0.%d\r\nX_Forwarded_For: 10.1.0.%d\r\n" % (n, n) for n in range(9)]
        answers = say(connection, HEALTH + b"Host: evil.example\r\n" + CLOSE + b"".join(data) + b"\r\n")
    assert [answer.status for answer in answers] == [200]
    assert b"evil" not in answers[0].body + str(answers[0].headers).encode()


def test_100_silent_connections_block_no_other_request_and_are_closed(house: Production) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(to_nginx(house)) for _ in range(100)]
        for connection in silent[:50]:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nX-A: b\r\n")
        for connection in silent[50:]:
            connection.sendall(b"G")
        for _ in range(3):
            make_journey(house, pictures.jpeg())
        for connection in silent:
            assert say_nothing(connection) == b""
    assert shipped("deploy/nginx.conf", r"client_header_timeout (\d+)s;") <= 15


def say_nothing(connection: object) -> bytes:
    """Wait until the server closes or breaks the connection."""
    try:
        return connection.recv(1)  # type: ignore[attr-defined, no-any-return]
    except ConnectionError:
        return b""


def test_a_picture_that_comes_byte_by_byte_reaches_the_application_when_it_is_whole(house: Production) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        + pictures.jpeg()
        + b"\r\n--b--\r\n"
    )
    head = f"POST {UPLOAD} HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n"
    with to_nginx(house) as connection:
        connection.sendall(head.encode() + HOST + CLOSE + b"\r\n")
        for byte in body[:300]:
            connection.sendall(bytes([byte]))
        make_journey(house, pictures.jpeg())
        assert house.server.names() == []
        answers = say(connection, body[300:])
    assert [answer.status for answer in answers] == [200]
    wait_for(lambda: len(house.server.names()) == 2, "the picture to be kept")
