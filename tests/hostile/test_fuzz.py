"""Fuzzing: every kind of input, made by random changes of the files in tests/hostile/corpus/.

The suite tries a few dozen inputs of each kind, the same ones every time. To try many, and different ones each time:

    HEROIMG_FUZZ=20000 .venv/bin/pytest tests/hostile/test_fuzz.py --timeout 0 --hypothesis-seed=1

Put each input that fails into a file in tests/hostile/corpus/. Each run sends these files before random ones.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as some
from stripe import WebhookSignature

from tests.helpers.api import RETRIEVE, SESSION, STATUS, UPLOAD, WEBHOOK, Api
from tests.helpers.attacked_server import serving_attacked, unharmed
from tests.helpers.serving import ROOT

pytestmark = pytest.mark.proof

_CORPUS = ROOT / "tests" / "hostile" / "corpus"
_EXAMPLES = int(os.environ.get("HEROIMG_FUZZ", "20"))

fuzz = hypothesis.settings(
    max_examples=_EXAMPLES,
    derandomize="HEROIMG_FUZZ" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with serving_attacked(tmp_path_factory.mktemp("fuzz") / "served") as api:
        yield api


def corpus(kind: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((_CORPUS / kind).iterdir())}


@some.composite
def changed(draw: some.DrawFn, kind: str) -> bytes:
    """Take an input of the corpus and change it a few times: cut, repeat, reverse, invert or fill a piece."""
    data = draw(some.sampled_from(list(corpus(kind).values())))
    for _ in range(draw(some.integers(0, 4))):
        start = draw(some.integers(0, len(data)))
        end = draw(some.integers(start, min(len(data), start + 64)))
        piece = draw(
            some.sampled_from([
                b"", data[start:end] * 2, data[start:end][::-1], b"\xff" * (end - start), bytes(end - start),
                bytes(byte ^ 1 for byte in data[start:end]), data[start:end] * 300,
            ]) | some.binary(max_size=16) | some.sampled_from(_WORDS)
        )  # fmt: skip
        data = data[:start] + piece + data[end:]
    return data[: draw(some.integers(0, len(data)))] if draw(some.booleans()) else data


# Sequences that parsers look for.
_WORDS = [
    b"--b", b"--b--", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"\xff\xc0",
    b"\xff\xc2", b"IEND", b"IDAT", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b'"', b"\\", b"{", b"[", b"null", b"1e999",
    b"\\ud800", b";", b"=", b"Content-Length: 5\r\n", b"charset=utf-7",
    b'Content-Disposition: form-data; name="image"; filename="a"\r\n',
]  # fmt: skip


def upload(api: Api, body: bytes, content_type: bytes) -> None:
    api.request("POST", UPLOAD, data=body, headers={"Content-Type": content_type})


def send_signed(api: Api, body: bytes) -> None:
    """Sign a body as Stripe does. The body becomes text first, because Stripe's payloads are text."""
    text = body.decode("utf-8", "replace")
    header = WebhookSignature.generate_signature_header(text, "whsec_standin")
    api.request("POST", WEBHOOK, data=text.encode(), headers={"Stripe-Signature": header})


def send_json(api: Api, body: bytes) -> None:
    api.request("POST", SESSION, data=body, headers={"Content-Type": "application/json"})


_SENDERS = {
    "forms": lambda api, body: upload(api, body, b"multipart/form-data; boundary=b"),
    "pictures": lambda api, body: api.upload(body),
    "json": send_json,
    "events": send_signed,
}


@pytest.mark.parametrize("kind", _SENDERS)
def test_no_input_of_the_corpus_does_harm(attacked: Api, kind: str) -> None:
    for body in corpus(kind).values():
        with unharmed(attacked):
            _SENDERS[kind](attacked, body)


@pytest.mark.parametrize("kind", _SENDERS)
@fuzz
@given(data=some.data())
def test_every_body_gets_a_documented_answer(attacked: Api, kind: str, data: some.DataObject) -> None:
    with unharmed(attacked):
        _SENDERS[kind](attacked, data.draw(changed(kind)))


_boundaries = some.sampled_from([b"b", b'"b"', b"", b'"', b"b;", b"b; boundary=c", b"\xe9", b"-" * 70]) | some.binary(
    max_size=80
)
_header_value = some.binary(max_size=200).map(
    lambda text: bytes(byte for byte in text if byte >= 32 and byte != 127).strip()
)


@fuzz
@given(
    body=changed("forms"),
    boundary=_boundaries,
    kind=some.sampled_from([b"form-data", b"mixed", b"form-data, a/b", b""]),
)
def test_no_content_type_breaks_anything(attacked: Api, body: bytes, boundary: bytes, kind: bytes) -> None:
    content_type = bytes(
        byte for byte in b"multipart/" + kind + b"; boundary=" + boundary if byte >= 32 and byte != 127
    )
    with unharmed(attacked):
        upload(attacked, body, content_type.strip())


@fuzz
@given(
    image_id=some.text(max_size=64),
    claim=some.none() | some.text(max_size=80),
    method=some.sampled_from(["GET", "HEAD", "DELETE"]),
)
def test_no_id_and_no_claim_breaks_anything(attacked: Api, image_id: str, claim: str | None, method: str) -> None:
    known = image_id.encode("utf-8", "surrogateescape") if image_id.isascii() else image_id.encode("utf-8", "replace")
    params: dict[str, Any] = {"imageId": known, "session_id": known} | (
        {} if claim is None else {"claim": claim.encode("utf-8", "replace")}
    )
    with unharmed(attacked):
        attacked.request(method, RETRIEVE, params=params)
        attacked.request("GET", STATUS, params=params)


@fuzz
@given(
    headers=some.dictionaries(
        some.sampled_from([
            "Accept", "Accept-Encoding", "Authorization", "Cookie", "If-Match", "If-Modified-Since", "If-None-Match",
            "If-Range", "Origin", "Purpose", "Range", "Referer", "Sec-Purpose", "X-Forwarded-For",
            "Access-Control-Request-Method", "Access-Control-Request-Headers", "Content-Type", "Date", "Pragma",
            "Cache-Control", "X-HTTP-Method-Override",
        ]),
        _header_value | some.dates().map(lambda day: day.strftime("%a, %d %b %Y 00:00:00 GMT").encode()), max_size=6,
    ),
    path=some.sampled_from([f"{RETRIEVE}?imageId={'0' * 32}", "/static/heroimg.js", "/healthz", "/readyz", "/nowhere"]),
    method=some.sampled_from(["GET", "HEAD", "OPTIONS", "DELETE"]),
)  # fmt: skip
def test_every_header_gets_a_documented_answer(
    attacked: Api, headers: dict[str, bytes], path: str, method: str
) -> None:
    with unharmed(attacked):
        answer = attacked.request(method, path, headers=headers)
        assert answer.status_code in (200, 204, 304, 400, 404, 405, 412, 503)


@fuzz
@given(body=changed("events"), signature=_header_value, at=some.integers(-(2**70), 2**70) | some.just(int(time.time())))
def test_only_stripes_signature_is_accepted(attacked: Api, body: bytes, signature: bytes, at: int) -> None:
    for header in (signature, b"t=%d,v1=" % at + signature, b"t=%d,v1=%s,v0=x" % (at, b"0" * 64)):
        with unharmed(attacked):
            answer = attacked.request("POST", WEBHOOK, data=body, headers={"Stripe-Signature": header})
            assert answer.json()["code"] == "signature_invalid"
