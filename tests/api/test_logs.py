"""Logs tell the operator enough, and never contain a whole id, token, session id or secret."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import cast

import pytest
from werkzeug.test import create_environ, run_wsgi_app
from werkzeug.wsgi import ClosingIterator

from heroimg import create_app
from heroimg.config import Config
from heroimg.logs import Redact, redacted, short
from tests.helpers import pictures
from tests.helpers.api import RETRIEVE, UPLOAD, Api, new_token
from tests.helpers.redis_servers import RedisServer
from tests.helpers.serving import Server, serving, wait_for
from tests.helpers.shop import Shop

IMAGE_ID = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"kept {IMAGE_ID}", "kept 012345..."),
        (f"/uploads/{IMAGE_ID}.json", "/uploads/012345....json"),
        ("GET /x?imageId=whatever&claim=abc-DEF_0123456789 HTTP/1.1", "GET /x?imageId=...&claim=... HTTP/1.1"),
        ("GET /x?session_id=cs_live_a1b2c3d4e5", "GET /x?session_id=..."),
        ("no such session: 'cs_test_a1b2c3d4e5'", "no such session: 'cs_test_a1b2...'"),
        ("cs_live_a1b2c3d4e5_secret_f6g7", "cs_live_a1b2..."),
        ("key sk_live_a1b2c3d4e5, rk_test_a1b2c3d4e5", "key sk_live_a1b2..., rk_test_a1b2..."),
        ("whsec_a1b2c3d4e5", "whsec_..."),
        ("nothing to hide: 0123456789abcdef", "nothing to hide: 0123456789abcdef"),
    ],
)  # fmt: skip
def test_every_kind_of_secret_is_shortened(text: str, shown: str) -> None:
    assert redacted(text) == shown
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s", (text,), None)
    Redact().filter(record)
    assert record.getMessage() == shown


def test_a_traceback_is_shortened_too() -> None:
    try:
        raise OSError(30, "Read-only file system", f"/var/uploads/{IMAGE_ID}")
    except OSError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", None, sys.exc_info())
    Redact().filter(record)
    assert "'/var/uploads/012345...'" in logging.Formatter().format(record)


def test_ids_are_shortened_the_same_way_in_our_own_log_lines() -> None:
    assert short(IMAGE_ID) == redacted(IMAGE_ID)
    assert short("cs_test_a1b2c3d4e5") == redacted("cs_test_a1b2c3d4e5")


def test_a_whole_journey_and_its_failures_leave_no_secret_in_the_log(shop: Shop) -> None:
    api, claim = shop.api, new_token()
    image_id = api.keep(pictures.jpeg())
    secret = api.open_checkout(image_id).json()["client_secret"]
    session_id = secret.partition("_secret_")[0]
    shop.stand_in.pay(session_id)
    shop.stand_in.fail_next("401", 1)
    api.status(session_id)
    api.status(session_id)
    api.retrieve(image_id, claim)
    api.retrieve(image_id, new_token())
    api.hang_up_after(1, image_id, claim)
    api.confirm(image_id, claim)
    with api.connection() as connection:  # gunicorn logs the address of a request that fails
        connection.sendall(f"POST {RETRIEVE}?imageId={image_id}&claim={claim} HTTP/1.1\r\nHost: t\r\n".encode())
        connection.sendall(b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\n")
        connection.recv(4096)
    log = api.server.log()
    assert f"confirmed {image_id[:6]}..." in log
    assert f"opened checkout {session_id[:12]}... for {image_id[:6]}..." in log
    for hidden in (image_id, claim, session_id, secret, "sk_test_standin", "whsec_standin"):
        assert hidden not in log
    assert not re.search(r"[0-9a-f]{32}", log)


def test_the_error_of_a_picture_that_cannot_be_read_shows_no_id(own: Api) -> None:
    (own.server.uploads / f"{IMAGE_ID}.json").mkdir()
    (own.server.uploads / IMAGE_ID).touch()
    assert own.retrieve(IMAGE_ID).status_code == 503
    assert "012345..." in own.server.log()
    assert IMAGE_ID not in own.server.log()


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_every_line_of_the_log_is_ascii_in_every_locale(tmp_path: Path, locale: str) -> None:
    folder = tmp_path / "für später"
    settings = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "HEROIMG_UPLOAD_DIR": str(folder)}
    if locale == "C":
        settings["PYTHONIOENCODING"] = "ascii"
    with serving(tmp_path / "served", settings) as server:
        image_id = Api(server).keep(pictures.jpeg())
        (folder / f"{image_id}.new").mkdir()
        assert Api(server).retrieve(image_id).status_code == 503
    assert f"kept {image_id[:6]}..." in server.log()
    assert f"{image_id[:6]}....new" in server.log()
    assert "Logging error" not in server.log()
    assert server.log_path.read_bytes().isascii()


@pytest.mark.parametrize("ends", ["reads to the end", "hangs up"])
@pytest.mark.parametrize("kind", ["files", "redis"])
def test_no_error_after_the_headers_reaches_a_server_that_would_print_an_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, ends: str
) -> None:
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(tmp_path / "redis")) if kind == "redis" else None
        uploads = tmp_path / "uploads"
        app = create_app(
            Config(
                redis_url=redis.url if redis else None,
                upload_dir=uploads,
                instance_dir=tmp_path / "instance",
                min_free_bytes=0,
            )
        )
        answer = app.test_client().post(UPLOAD, data={"image": (BytesIO(pictures.jpeg()), "a.jpg")})
        image_id = answer.get_json()["imageId"]
        body, status, _ = run_wsgi_app(app, create_environ(f"{RETRIEVE}?imageId={image_id}"))
        assert status == "200 OK"
        if redis:
            redis.end()
        else:
            (uploads / f"{image_id}.json").unlink()
            (uploads / f"{image_id}.json").mkdir()
        if ends == "reads to the end":
            with pytest.raises(RuntimeError, match="failed after its headers") as caught:
                list(body)
            assert image_id not in "".join(traceback.format_exception(caught.value))
        cast(ClosingIterator, body).close()
    assert "an answer failed after its headers were sent: " in caplog.text


def test_an_unexpected_error_is_json_too_and_reveals_nothing(tmp_path: Path) -> None:
    app = create_app(Config(upload_dir=tmp_path / "uploads", instance_dir=tmp_path / "instance"))
    app.view_functions["health.healthz"] = lambda: str(1 / 0)
    answer = app.test_client().get("/healthz")
    assert (answer.status_code, answer.json) == (
        500,
        {"error": "Something went wrong here. Please try again.", "code": "internal_server_error"},
    )


def test_gunicorns_access_log_shows_no_id(tmp_path: Path) -> None:
    server = Server(tmp_path, {})
    server.gunicorn("--access-logfile", "-")
    try:
        image_id, claim = Api(server).keep(pictures.jpeg()), new_token()
        Api(server).retrieve(image_id, claim)
        wait_for(lambda: f"GET {RETRIEVE}?imageId=...&claim=... HTTP/1.1" in server.log(), "the request to be logged")
        assert image_id not in server.log()
    finally:
        server.stop()


def test_flask_run_serves_on_port_3000_and_its_request_lines_show_no_id(tmp_path: Path) -> None:
    server = Server(tmp_path, {})
    flask = (sys.executable, "-m", "flask", "--app", "heroimg.wsgi", "run", "--port", "0")
    server.start(*flask, listening=r"Running on (http://\S+)")
    try:
        api = Api(server)
        image_id = api.keep(pictures.jpeg(3))
        too_large = api.upload(pictures.jpeg(3).ljust(7 * 1024 * 1024, b"\0"))
        assert (too_large.status_code, too_large.json()["code"]) == (413, "image_too_large")
        assert api.retrieve(image_id).content == pictures.jpeg(3)
        wait_for(lambda: api.is_gone(image_id), "the picture to be gone")
        wait_for(lambda: f"GET {RETRIEVE}?imageId=... HTTP/1.1" in server.log(), "the request to be logged")
        assert image_id not in server.log()
        assert server.names() == []
    finally:
        server.stop()
    assert "FLASK_RUN_PORT=3000" in (Path(__file__).parents[2] / ".flaskenv").read_text()
