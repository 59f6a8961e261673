"""nginx and gunicorn with the shipped files: each customer gets an answer, even while others flood the server."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from heroimg import gunicorn_conf
from heroimg.config import MAX_REQUEST_BYTES
from heroimg.payments.stripe_http import DEADLINE_SECONDS
from tests.helpers import pictures
from tests.helpers.api import RETRIEVE, UPLOAD, multipart, new_token
from tests.helpers.pictures import FIVE_MB, padded_jpeg
from tests.helpers.production import Phone, Production, make_journey, production, shipped
from tests.helpers.serving import LONG, wait_for

# A line of the log once a picture is on its way to a reader, with a claim or without.
HANDING_OVER = "claimed |handing over "


@pytest.fixture(scope="module")
def open_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    # Some readers here pause, and on a busy machine for longer than nginx waits by default.
    patient = {"reset_timedout_connection on;": "reset_timedout_connection on; send_timeout 300s;"}
    with production(tmp_path_factory.mktemp("production") / "whole", 2, patient) as whole:
        yield whole


@pytest.fixture
def house(open_house: Production) -> Production:
    """Serve as in production, from an empty folder."""
    open_house.server.clear()
    return open_house


@pytest.fixture
def own_house(tmp_path: Path) -> Iterator[Production]:
    """Serve as in production, for one test, which may stop it."""
    with production(tmp_path / "whole") as whole:
        yield whole


def test_the_whole_journey(house: Production) -> None:
    make_journey(house, pictures.portrait())
    assert house.server.names() == []


def test_5_mb_pass_and_a_byte_more_is_refused_by_the_application(house: Production) -> None:
    assert house.customer().upload(padded_jpeg(FIVE_MB)).status_code == 200
    answer = house.customer().upload(padded_jpeg(FIVE_MB + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
    assert answer.json()["error"] == "The picture is 5.1 MB; the limit is 5 MB."


@pytest.mark.parametrize(
    ("method", "path", "size", "limit"), [("POST", UPLOAD, 35, "34 MB"), ("POST", "/api/checkout/webhook", 2, "1 MB")]
)
def test_a_request_over_nginxs_limit_is_refused_in_json(
    house: Production, method: str, path: str, size: int, limit: str
) -> None:
    answer = house.customer().request(method, path, data=bytes(size * 2**20), headers={"Origin": "https://x.example"})
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")
    assert f"The request is {size * 2**20} bytes; the limit is {limit}" in answer.json()["error"]
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_nginxs_own_answers_are_json_that_the_front_end_may_read(own_house: Production) -> None:
    own_house.server.stop()
    own_house.socket.close()
    origin = {"Origin": "https://www.example.com"}
    answer = own_house.ask(own_house.customer(), f"{RETRIEVE}?imageId={'0' * 32}", headers=origin)
    assert (answer.status_code, answer.json()["code"]) == (502, "server_unreachable")
    assert answer.headers["Access-Control-Allow-Origin"] == "https://www.example.com"
    assert answer.headers["Retry-After"] == "2"
    assert answer.headers["Vary"] == "Origin"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "application/json"
    for path in ("/", "/nowhere", "/.env"):
        assert own_house.ask(own_house.customer(), path).json()["code"] == "not_found"
    upload = own_house.customer().send(
        "POST", own_house.url + UPLOAD, files={"image": ("photo.jpg", padded_jpeg(FIVE_MB))}, timeout=LONG
    )
    assert (upload.status_code, upload.json()["code"]) == (502, "server_unreachable")
    malformed = own_house.ask(own_house.customer(), "/?" + "x" * 9_000)
    assert (malformed.status_code, malformed.json()["code"]) == (414, "request_uri_too_long")


def test_only_an_address_that_floods_is_refused_in_json(house: Production) -> None:
    flooder = house.customer("127.9.9.9")
    with ThreadPoolExecutor(16) as pool:
        refused = list[requests.Response]()

        def flood() -> bool:
            answers = pool.map(lambda _: house.ask(flooder, "/healthz"), range(150))
            refused.extend(answer for answer in answers if answer.status_code != 200)
            return bool(refused)

        wait_for(flood, "nginx to refuse some of the requests")
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(429, "too_many_requests")}
    assert {answer.headers["Retry-After"] for answer in refused} == {"2"}
    assert house.customer().request("GET", "/healthz").status_code == 200


def test_security_headers_are_there_and_plain_http_leads_to_tls_without_the_query(house: Production) -> None:
    image_id = house.customer().keep(pictures.jpeg())
    for answer in (house.customer().retrieve(image_id), house.customer().request("GET", "/nowhere")):
        assert answer.headers["Strict-Transport-Security"] == "max-age=63072000"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Server"] == "nginx"
    plain = f"http://127.0.0.1:{house.plain_port}{RETRIEVE}?imageId={image_id}"
    moved = requests.get(plain, allow_redirects=False, timeout=LONG)
    assert (moved.status_code, moved.headers["Location"]) == (301, f"https://heroimg.example.com{RETRIEVE}")


def test_metrics_are_for_this_machine_alone(house: Production) -> None:
    """nginx refuses other clients with 403. The 404 comes from the application: metrics are off in this test."""
    assert house.customer().request("GET", "/metrics").status_code == 404
    site = house.site()
    block = site[site.index("location = /metrics") :]
    assert block.index("deny all") < block.index("proxy_pass")


def test_50_phones_that_are_still_uploading_block_no_other_request(house: Production) -> None:
    body, content_type = multipart(pictures.portrait())
    headers = f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    with ExitStack() as stack:
        phones = list[Phone]()
        for _ in range(50):
            phones.append(Phone(house, stack))
            phones[-1].asks("POST", UPLOAD, headers, body[: len(body) // 2])
        for _ in range(5):
            make_journey(house, pictures.portrait())
        assert house.server.names() == []  # not one of the phones has got through to the application
        for phone in phones:
            phone.connection.sendall(body[len(body) // 2 :])
        assert [phone.answer()[:15] for phone in phones] == [b"HTTP/1.1 200 OK"] * 50


@pytest.mark.proof
@pytest.mark.parametrize("claim", ["", "&claim=a-token-for-many-readers"], ids=["plain", "with claims"])
def test_50_readers_that_stop_reading_block_no_other_request(house: Production, claim: str) -> None:
    picture = padded_jpeg(2**20)
    with ExitStack() as stack:
        ids = [house.customer().keep(picture) for _ in range(50)]
        readers = list[Phone]()
        for image_id in ids:
            readers.append(Phone(house, stack, window=4096))  # nginx closes a connection that asks for nothing
            readers[-1].asks("GET", f"{RETRIEVE}?imageId={image_id}{claim}")
        wait_for(lambda: len(re.findall(HANDING_OVER, house.server.log())) == 50, "all of them to be served")
        for _ in range(5):
            make_journey(house, pictures.portrait())
        answers = [reader.answer() for reader in readers]
        assert {answer[:15] for answer in answers} == {b"HTTP/1.1 200 OK"}
        assert all(answer.endswith(picture) for answer in answers)


def test_a_reader_without_a_claim_that_hangs_up_early_has_not_used_the_picture_up(house: Production) -> None:
    picture = padded_jpeg(FIVE_MB)
    image_id = house.customer().keep(picture)
    with ExitStack() as stack:
        reader = Phone(house, stack, window=4096)
        reader.asks("GET", f"{RETRIEVE}?imageId={image_id}")
        wait_for(lambda: re.search(HANDING_OVER, house.server.log()), "the picture to be on its way")
        for _ in range(3):  # long enough for nginx to fill its buffers
            make_journey(house, picture)
    wait_for(lambda: "gave back" in house.server.log(), "the claim to be given back")
    answer = house.customer().retrieve(image_id)
    assert answer.content == picture
    assert "X-Accel-Buffering" not in answer.headers


def under_load(house: Production, change: Callable[[], None]) -> int:
    """Run customers' journeys before, during and after a change; return their number."""
    is_over = threading.Event()
    done = list[int]()

    def customers() -> None:
        while not is_over.is_set():
            make_journey(house, pictures.portrait())
            done.append(1)

    with ThreadPoolExecutor(6) as pool:
        crowds = [pool.submit(customers) for _ in range(6)]
        try:
            wait_for(lambda: len(done) >= 6, "the first journeys")
            change()
            before = len(done)
            wait_for(lambda: len(done) >= before + 12 or any(crowd.done() for crowd in crowds), "journeys after it")
        finally:
            is_over.set()
        for crowd in crowds:
            crowd.result()
    return len(done)


@pytest.mark.proof
def test_a_reload_under_load_drops_nothing(own_house: Production) -> None:
    server = own_house.server

    def reload_twice() -> None:
        for _ in range(2):
            old = set(server.workers())
            server.signal(signal.SIGHUP)
            wait_for(lambda old=old: len(set(server.workers()) - old) == 2, "new workers")  # type: ignore[misc]
            wait_for(lambda old=old: not old & set(server.workers()), "the old ones to end")  # type: ignore[misc]

    assert under_load(own_house, reload_twice) >= 18
    assert server.names() == []


@pytest.mark.proof
def test_a_restart_under_load_drops_nothing(own_house: Production) -> None:
    def restart() -> None:
        own_house.server.stop()
        own_house.start()

    assert under_load(own_house, restart) >= 18
    assert own_house.server.names() == []


def test_a_reload_reads_the_settings_again(own_house: Production) -> None:
    server = own_house.server
    assert own_house.customer().upload(padded_jpeg(2**20)).status_code == 200
    (server.folder / ".env").write_text("HEROIMG_MAX_IMAGE_BYTES=4096\n")
    ready = server.log().count("ready: ")
    old = set(server.workers())
    server.signal(signal.SIGHUP)
    wait_for(lambda: server.log().count("ready: ") == ready + 2, "new workers")
    wait_for(lambda: not old & set(server.workers()), "the old ones to end")
    assert own_house.customer().upload(padded_jpeg(2**20)).status_code == 413


def test_no_log_has_an_id_a_token_or_a_session(house: Production) -> None:
    api, token = house.customer(), new_token()
    image_id = api.keep(pictures.jpeg())
    session_id = api.session_of(image_id)
    referer = {"Referer": f"https://heroimg.example.com/hero-me?session_id={session_id}"}
    address = f"{RETRIEVE}?imageId={image_id}&claim={token}"
    assert house.ask(api, address, headers=referer).status_code == 200
    assert house.ask(api, f"{address}x", headers=referer).status_code == 409
    house.server.signal(signal.SIGSTOP)
    for worker in house.server.workers():
        os.kill(worker, signal.SIGKILL)
    house.server.signal(signal.SIGCONT)
    wait_for(lambda: house.server.log().count("ready: ") >= 2, "new workers")
    api.status(session_id)
    flooder = house.customer("127.9.9.8")
    with ThreadPoolExecutor(8) as pool:

        def flood() -> bool:
            list(pool.map(lambda _: house.ask(flooder, address, headers=referer), range(80)))
            return " 429 in " in house.logs()

        wait_for(flood, "nginx to refuse some of the requests")
    assert f"GET {RETRIEVE} 200 in " in house.logs()
    for hidden in (image_id, token, session_id):
        assert hidden not in house.logs()


def test_a_forged_x_forwarded_for_does_not_help_past_the_trusted_count(tmp_path: Path) -> None:
    with production(tmp_path / "whole", HEROIMG_UPLOAD_RATE="2 per minute") as house:
        forger = house.customer("127.7.7.7")
        answers = [
            forger.upload(pictures.jpeg(), headers={"X-Forwarded-For": f"10.0.0.{number}, 10.1.0.{number}"})
            for number in range(5)
        ]
        assert answers[-1].status_code == 429
        assert "the limit is 2 per 1 minute" in answers[-1].json()["error"]
        assert house.customer("127.7.7.8").upload(pictures.jpeg()).status_code == 200


def test_behind_a_unix_socket_without_trusted_proxies_the_log_says_what_to_set(tmp_path: Path) -> None:
    with production(tmp_path / "whole", HEROIMG_TRUSTED_PROXIES="0", HEROIMG_UPLOAD_RATE="60 per minute") as house:
        house.customer().keep(pictures.jpeg())
        assert "set HEROIMG_TRUSTED_PROXIES to 1" in house.server.log()


def test_no_file_is_left_in_the_working_folder(own_house: Production) -> None:
    make_journey(own_house, pictures.jpeg())
    own_house.server.stop()
    assert sorted(path.name for path in own_house.server.folder.iterdir()) == ["instance", "log", "uploads"]


def test_timeouts_and_limits_that_exist_twice_are_in_the_right_order() -> None:
    stripe = DEADLINE_SECONDS
    stops = shipped("deploy/heroimg.service", r"^TimeoutStopSec=(\d+)$")
    nginx = shipped("deploy/nginx.conf", r"proxy_read_timeout (\d+)s;")
    assert stripe < gunicorn_conf.graceful_timeout < stops < nginx
    assert stripe < gunicorn_conf.timeout < nginx
    limit = shipped("deploy/nginx.conf", r"client_max_body_size (3\d)m;") * 2**20
    assert MAX_REQUEST_BYTES < limit <= MAX_REQUEST_BYTES + 2**20
