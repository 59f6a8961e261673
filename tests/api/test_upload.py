"""Uploads: which are accepted, which are refused and how. A refusal leaves no file."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.helpers import pictures
from tests.helpers.api import SESSION, UPLOAD, Api, multipart
from tests.helpers.pictures import FIVE_MB, padded_jpeg
from tests.helpers.serving import serving, wait_for


def test_the_limits_are_public_and_kept_by_browsers_for_five_minutes(shared: Api) -> None:
    answer = shared.request("GET", "/api/limits")
    assert answer.json() == {"bytes": pictures.FIVE_MB, "pixels": 65_000_000, "formats": ["image/png", "image/jpeg"]}
    assert answer.headers["Cache-Control"] == "public, max-age=300"


def test_the_answer_is_an_id_of_32_hexadecimal_digits_and_the_folder_holds_the_same_bytes(api: Api) -> None:
    image_id = api.keep(pictures.jpeg())
    assert re.fullmatch(r"[0-9a-f]{32}", image_id)
    assert api.server.names() == [image_id, f"{image_id}.json"]
    assert (api.server.uploads / image_id).read_bytes() == pictures.jpeg()


def test_the_type_comes_from_the_bytes_and_not_from_the_client(shared: Api) -> None:
    part = {"image": ("page.html", pictures.png(), "text/html")}
    image_id = shared.request("POST", UPLOAD, files=part).json()["imageId"]
    assert shared.retrieve(image_id).headers["Content-Type"] == "image/png"


def test_pictures_are_private_on_the_disk(api: Api) -> None:
    api.keep(pictures.jpeg())
    assert api.server.uploads.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in api.server.uploads.iterdir()} == {0o600}


@pytest.fixture
def untouched(shared: Api) -> Iterator[Api]:
    """Serve; after the test, check that the folder has not changed."""
    shared.server.clear()
    before = shared.server.names()
    yield shared
    wait_for(lambda: shared.server.names() == before, "the folder to be as before")


def test_ids_do_not_resemble_each_other(shared: Api) -> None:
    ids = [shared.keep(pictures.png()) for _ in range(20)]
    assert len({image_id[:4] for image_id in ids}) > 15


def test_the_limit_is_of_the_picture_and_not_of_the_request(api: Api) -> None:
    assert api.retrieve(api.keep(padded_jpeg(FIVE_MB))).content == padded_jpeg(FIVE_MB)
    answer = api.upload(padded_jpeg(FIVE_MB + 1))
    assert (answer.status_code, answer.json()["error"]) == (413, "The picture is 5.1 MB; the limit is 5 MB.")


@pytest.mark.parametrize("megabytes", [7, 31])
def test_a_picture_over_the_limit_is_read_to_its_end_and_refused_with_both_numbers(
    untouched: Api, megabytes: int
) -> None:
    body, content_type = multipart(padded_jpeg(megabytes * 1024 * 1024))
    with untouched.connection() as connection:
        head = f"POST {UPLOAD} HTTP/1.1\r\nHost: test\r\nOrigin: http://localhost:3000\r\nConnection: close\r\n"
        connection.sendall(f"{head}Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        connection.sendall(body)  # would fail if the server had hung up
        answer = connection.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 413 ")
    assert f"The picture is {megabytes}.0 MB; the limit is 5 MB." in answer
    assert "Access-Control-Allow-Origin: http://localhost:3000" in answer


def test_an_upload_of_more_than_33_mb_is_refused_unread_with_both_numbers(untouched: Api) -> None:
    with untouched.connection() as connection:
        connection.sendall(f"POST {UPLOAD} HTTP/1.1\r\nHost: test\r\nContent-Length: 50000000\r\n".encode())
        connection.sendall(b"Connection: close\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n")
        answer = connection.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 413 ")
    assert "The upload is 47.7 MB; the limit is 33 MB." in answer


def test_a_chunked_body_without_end_is_refused(untouched: Api) -> None:
    body, content_type = multipart(padded_jpeg(40 * 1024 * 1024))
    pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))
    with untouched.connection() as connection:
        connection.sendall(
            f"POST {UPLOAD} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n"
            f"Content-Type: {content_type}\r\n\r\n".encode()
        )
        try:
            for piece in pieces:
                connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        except ConnectionError:
            pass
        else:
            assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("path", [UPLOAD, SESSION])
@pytest.mark.parametrize("body", [b"nonsense", b"-5\r\nhello\r\n", b"5\r\nhello to all", b"0\r\nTrailer\r\n\r\n"])
def test_a_chunked_body_that_is_malformed_is_refused(untouched: Api, path: str, body: bytes) -> None:
    with untouched.connection() as connection:
        content_type = "application/json" if path == SESSION else "multipart/form-data; boundary=b"
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n"
            f"Content-Type: {content_type}\r\n\r\n".encode()
            + body
            + b"\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert "Traceback" not in untouched.server.log()


def test_a_chunked_upload_is_taken(shared: Api) -> None:
    body, content_type = multipart(pictures.jpeg())
    answer = shared.request("POST", UPLOAD, data=iter([body[:999], body[999:]]), headers={"Content-Type": content_type})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "no body"),
        ({"json": {"image": "x"}}, "JSON"),
        ({"data": {"image": "text"}}, "a urlencoded form"),
        ({"files": {"image": (None, "text")}}, "a text field"),
        ({"files": {"image": ("", b"")}}, "an empty file input"),
        ({"files": {"picture": ("a.jpg", pictures.jpeg())}}, "another field"),
        ({"data": b"--b\r\nnonsense", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, "no form"),
        ({"data": b"x", "headers": {"Content-Type": "multipart/form-data"}}, "no boundary"),
    ],
)
def test_a_form_without_a_picture_is_refused(untouched: Api, options: dict[str, object], why: str) -> None:
    answer = untouched.request("POST", UPLOAD, **options)
    assert (answer.status_code, answer.json()["error"]) == (400, "No image provided"), why


def test_a_large_urlencoded_form_is_not_read_as_one(untouched: Api) -> None:
    answer = untouched.request("POST", UPLOAD, data={"image": "x" * 1_000_000})
    assert (answer.status_code, answer.json()["error"]) == (400, "No image provided")


def test_a_text_field_is_no_picture_and_written_nowhere(untouched: Api) -> None:
    answer = untouched.request("POST", UPLOAD, files={"image": (None, pictures.jpeg(2))})
    assert (answer.status_code, answer.json()["error"]) == (400, "No image provided")
    assert untouched.server.names() == []


def test_a_file_whose_name_is_in_the_long_form_alone_is_a_file(api: Api) -> None:
    disposition = "form-data; name=\"image\"; filename*=utf-8''%e2%82%ac.jpg"
    body = f"--b\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + pictures.jpeg() + b"\r\n--b--\r\n"
    answer = api.request("POST", UPLOAD, data=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert api.retrieve(answer.json()["imageId"]).content == pictures.jpeg()


def test_a_files_name_is_not_logged_even_if_it_cannot_be_read(api: Api) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name=image; filename="M\xfcller.jpg"\r\n\r\nx\r\n--b--\r\n'
    answer = api.request("POST", UPLOAD, data=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.json()["code"] == "no_image"
    assert "no_image" in api.server.log()
    assert "ller" not in api.server.log()


def test_text_fields_next_to_the_picture_are_ignored(api: Api) -> None:
    fields = [("note", (None, "x" * 300_000)), ("image", ("a.jpg", pictures.jpeg())), ("more", (None, "y"))]
    answer = api.request("POST", UPLOAD, files=fields)
    assert api.retrieve(answer.json()["imageId"]).content == pictures.jpeg()


def test_a_refused_body_that_is_no_form_is_read_to_its_end_too(untouched: Api) -> None:
    body = b" " * 20_000_000
    with untouched.connection() as connection:
        head = f"POST {UPLOAD} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + body)
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 400 ")


def test_surplus_parts_leave_nothing(api: Api) -> None:
    other = pictures.png()
    parts = [("extra", ("a.png", other)), ("image", ("b.jpg", pictures.jpeg())), ("image", ("c.png", other))]
    answer = api.request("POST", UPLOAD, files=parts)
    image_id = answer.json()["imageId"]
    assert api.server.names() == [image_id, f"{image_id}.json"]
    assert api.retrieve(image_id).content == pictures.jpeg()


def test_a_form_of_too_many_parts_is_refused_and_leaves_nothing(untouched: Api) -> None:
    parts = [("image", (f"{number}.jpg", pictures.jpeg())) for number in range(21)]
    answer = untouched.request("POST", UPLOAD, files=parts)
    assert answer.status_code == 413
    assert "20 parts" in answer.json()["error"]


@pytest.mark.parametrize("part", [0.2, 0.5, 0.999])
def test_an_upload_that_breaks_off_leaves_nothing(untouched: Api, part: float) -> None:
    body, content_type = multipart(pictures.jpeg(3))
    with untouched.connection() as connection:
        head = f"POST {UPLOAD} HTTP/1.1\r\nHost: test\r\nContent-Type: {content_type}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        connection.sendall(body[: int(len(body) * part)])
        wait_for(lambda: any(name.endswith(".part") for name in untouched.server.names()), "the upload to arrive")
    assert "Traceback" not in untouched.server.log()


def test_an_upload_that_breaks_off_before_any_of_it_is_written_leaves_nothing(untouched: Api) -> None:
    body, content_type = multipart(pictures.jpeg(3))
    with untouched.connection() as connection:
        head = f"POST {UPLOAD} HTTP/1.1\r\nHost: test\r\nContent-Type: {content_type}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:150_000])
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"bad_request" in answer  # not no_image: the rest of the form is missing
    assert untouched.server.names() == []
    assert "Traceback" not in untouched.server.log()


def test_a_worker_killed_during_an_upload_leaves_nothing_after_a_sweep(own: Api) -> None:
    body, content_type = multipart(pictures.jpeg(3))
    with own.connection() as connection:
        head = f"POST {UPLOAD} HTTP/1.1\r\nHost: test\r\nContent-Type: {content_type}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:1_000_000])
        wait_for(own.server.names, "the upload to arrive")
        # The worker still runs. The server's own sweep may hold the lock for a moment.
        wait_for(lambda: "0 leftovers" in own.server.flask("sweep").stdout, "a sweep that leaves the upload alone")
        for worker in own.server.workers():
            os.kill(worker, signal.SIGKILL)
    assert [name[-5:] for name in own.server.names()] == [".part"]
    wait_for(lambda: "1 leftovers" in own.server.flask("sweep").stdout, "the lock to be gone with its holder")
    assert own.server.names() == []


def test_only_the_front_ends_origin_may_read_errors(shared: Api) -> None:
    for origin, admitted in (("http://localhost:3000", "http://localhost:3000"), ("http://evil.example", None)):
        for answer in (shared.upload(b"no picture", headers={"Origin": origin}), preflight(shared, origin)):
            assert answer.headers.get("Access-Control-Allow-Origin") == admitted
    answer = shared.upload(b"no picture", headers={"Origin": "http://localhost:3000"})
    assert answer.headers["Access-Control-Expose-Headers"] == "Image-Size, Retry-After, X-Request-ID"
    allowed = preflight(shared, "http://localhost:3000").headers
    assert set(allowed["Access-Control-Allow-Methods"].split(", ")) == {"GET", "HEAD", "POST", "DELETE"}
    assert allowed["Access-Control-Max-Age"] == "86400"


def test_the_front_end_may_send_any_header(shared: Api) -> None:
    names = "baggage, cache-control, content-type, sentry-trace, traceparent, x-requested-with"
    assert preflight(shared, "http://localhost:3000", names).headers["Access-Control-Allow-Headers"] == names
    answer = preflight(shared, "http://evil.example", names)
    assert [name for name in answer.headers if name.startswith("Access-Control-")] == []


def preflight(api: Api, origin: str, names: str = "content-type") -> requests.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": names,
    }
    return api.request("OPTIONS", "/api/temp-image-retrieve", headers=headers)


def test_front_ends_are_admitted_however_the_setting_writes_them_and_no_others(tmp_path: Path) -> None:
    written = "http://[0:0:0:0:0:0:0:1]:3000,HTTP://a.example:80/,https://müller.example:443,capacitor://localhost"
    sent = ("http://[::1]:3000", "http://a.example", "https://xn--mller-kva.example", "capacitor://localhost")
    with serving(tmp_path / "served", {"FRONTEND_URL": written}, workers=1) as server:
        for origin in sent:
            answer = Api(server).upload(b"", headers={"Origin": origin})
            assert answer.headers["Access-Control-Allow-Origin"] == origin
        for origin in ("http://1:3000.evil.example", "http://a.example.evil", "http://a-example", "ionic://localhost"):
            assert "Access-Control-Allow-Origin" not in Api(server).upload(b"", headers={"Origin": origin}).headers


def test_an_address_that_uploads_too_often_gets_the_seconds_to_wait(tmp_path: Path) -> None:
    with serving(tmp_path / "served", {"HEROIMG_UPLOAD_RATE": "2 per hour"}, workers=1) as server:
        api = Api(server)
        assert [api.upload(pictures.jpeg()).status_code for _ in range(2)] == [200, 200]
        answer = api.upload(padded_jpeg(7 * 1024 * 1024), headers={"Origin": "http://localhost:3000"})
        assert answer.status_code == 429
        assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
        assert answer.json()["code"] == "too_many_requests"
        assert 0 < int(answer.headers["Retry-After"]) <= 3601
        assert len(server.names()) == 4


def test_an_upload_refused_by_a_short_rate_does_not_count_for_a_long_one(tmp_path: Path) -> None:
    with serving(tmp_path / "served", {"HEROIMG_UPLOAD_RATE": "3 per 2 hour; 1 per hour"}, workers=1) as server:
        answers = [Api(server).upload(pictures.jpeg()) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] + [429] * 5
        assert all("the limit is 1 per 1 hour." in answer.json()["error"] for answer in answers[1:])


def test_addresses_are_distinguished_behind_as_many_proxies_as_are_trusted(tmp_path: Path) -> None:
    settings = {"HEROIMG_UPLOAD_RATE": "1 per hour", "HEROIMG_TRUSTED_PROXIES": "1"}
    with serving(tmp_path / "served", settings, workers=1) as server:
        api = Api(server)

        def upload_from(addresses: str) -> int:
            return api.upload(pictures.jpeg(), headers={"X-Forwarded-For": addresses}).status_code

        assert [upload_from("192.0.2.1"), upload_from("192.0.2.2")] == [200, 200]
        assert upload_from("192.0.2.3, 192.0.2.1") == 429  # an address that the client itself sent is ignored
        assert [upload_from("2001:db8::1"), upload_from("2001:db8::ffff")] == [200, 429]  # one household
        assert [upload_from("::ffff:192.0.2.8"), upload_from("::ffff:192.0.2.9")] == [200, 200]  # IPv4 in IPv6
        assert [upload_from("203.0.113.3:50003"), upload_from("203.0.113.4:50003")] == [200, 200]
        assert [upload_from("203.0.113.3:50004"), upload_from("203.0.113.3")] == [429, 429]
        assert [upload_from("[2001:db8:1::1]:443"), upload_from("[2001:db8:2::1]:443")] == [200, 200]
        assert [upload_from("[2001:db8:1::2]:444"), upload_from("[2001:db8:1::3]")] == [429, 429]
        assert "without an address" not in server.log()


def test_customers_whose_addresses_cannot_be_read_share_one_rate_and_the_log_says_so_once(tmp_path: Path) -> None:
    settings = {"HEROIMG_UPLOAD_RATE": "3 per hour", "HEROIMG_TRUSTED_PROXIES": "1"}
    with serving(tmp_path / "served", settings, workers=1) as server:
        texts = ["unknown", "_hidden", "[2001:db8::1", "203.0.113.3:x"]
        answers = [Api(server).upload(pictures.jpeg(), headers={"X-Forwarded-For": text}) for text in texts]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert server.log().count("requests come without an address (unknown)") == 1
        assert "HEROIMG_TRUSTED_PROXIES is 1, but the proxy sends no address in X-Forwarded-For" in server.log()
        assert "set HEROIMG_TRUSTED_PROXIES to 1" not in server.log()


def test_forged_addresses_are_ignored_without_trusted_proxies(tmp_path: Path) -> None:
    with serving(tmp_path / "served", {"HEROIMG_UPLOAD_RATE": "1 per hour"}, workers=1) as server:
        api = Api(server)
        statuses = [
            api.upload(pictures.jpeg(), headers={"X-Forwarded-For": f"192.0.2.{number}"}).status_code
            for number in range(2)
        ]
        assert statuses == [200, 429]
