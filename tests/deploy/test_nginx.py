"""deploy/nginx.conf in a real nginx: its errors in the journal, its buffers, and the headers that it passes on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import requests

from tests.helpers import pictures
from tests.helpers.api import RETRIEVE, UPLOAD
from tests.helpers.needed_programs import needs, needs_root
from tests.helpers.production import Phone, Production, production
from tests.helpers.serving import LONG, wait_for

MEGABYTE = 2**20
IMAGE_ID, SESSION_ID = "8cf0c9" + "d" * 26, "cs_test_" + "e" * 40
REFERER = {"Referer": f"https://heroimg.example.com/hero-me?session_id={SESSION_ID}"}
# At this level nginx also logs that a body or a response goes to a temporary file.
WARN = {"heroimg-nginx.sock error;": "heroimg-nginx.sock warn;"}
# Otherwise Linux takes up to 4 MB of a response that the reader does not read (net.ipv4.tcp_wmem).
SMALL_SOCKETS = {" ssl http2;": " ssl http2 sndbuf=4k;"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """Serve as in production, with a shorter timeout for the application."""
    folder = tmp_path_factory.mktemp("nginx") / "whole"
    with production(folder, 2, {"proxy_read_timeout 90s;": "proxy_read_timeout 1s;"}) as whole:
        yield whole


def retrieve(house: Production) -> requests.Response:
    return house.ask(house.customer(), f"{RETRIEVE}?imageId={IMAGE_ID}&claim={'f' * 24}", headers=REFERER)


def upload(house: Production, size: int) -> requests.Response:
    form = {"image": ("photo.jpg", bytes(size))}
    address = f"{house.url}{UPLOAD}?imageId={IMAGE_ID}"
    return house.customer().send("POST", address, files=form, headers=REFERER, timeout=LONG)


def upload_with_curl(house: Production, version: str, picture: bytes) -> str:
    """Upload by this version of HTTP; return the picture's id."""
    curl = [
        "curl",
        "--fail",
        "--silent",
        "--cacert",
        str(house.certificate),
        version,
        "--form",
        "image=@-;filename=photo.jpg",
    ]
    ran = subprocess.run([*curl, f"{house.url}{UPLOAD}"], input=picture, capture_output=True, check=True)
    return str(json.loads(ran.stdout)["imageId"])


def is_read(house: Production, image_id: str) -> bool:
    """Check that no worker has the picture open any more, because nginx has taken all of it."""
    links = [link for pid in house.server.workers() for link in Path(f"/proc/{pid}/fd").iterdir()]
    opened = list[str]()
    for link in links:
        with suppress(FileNotFoundError):
            opened.append(os.readlink(link))
    return str(house.server.uploads / image_id) not in opened


@contextmanager
def an_error_is_logged_without_the_request(house: Production, *expected: str) -> Iterator[None]:
    before = len(house.nginx_errors())
    yield
    wait_for(lambda: "\n" in house.nginx_errors()[before:], "nginx's error")
    (line,) = house.nginx_errors()[before:].splitlines()
    for part in (*expected, "client: 127.0."):
        assert part in line
    assert "request: " not in line
    assert "referrer: " not in line
    logs = house.logs()
    assert [secret for secret in (IMAGE_ID, SESSION_ID, "f" * 24) if secret in logs] == []


@contextmanager
def another_socket(house: Production) -> Iterator[socket.socket]:
    """Move gunicorn's socket away; yield another one, which the caller may bind in its place."""
    path = house.folder / "heroimg.sock"
    path.rename(path.with_suffix(".gunicorn"))
    try:
        with socket.socket(socket.AF_UNIX) as other:
            yield other
    finally:
        path.with_suffix(".gunicorn").rename(path)


def is_refused(house: Production) -> bool:
    """Return whether nginx answers 502. It may still have a connection to gunicorn, and then it does not."""
    return retrieve(house).status_code == 502


def test_a_request_that_is_too_large_is_in_the_journal(house: Production) -> None:
    with an_error_is_logged_without_the_request(house, "[error]", "too large body: 36700"):
        assert upload(house, 35 * MEGABYTE).status_code == 413


def test_an_application_that_does_not_listen_is_in_the_journal(house: Production) -> None:
    refused = "/heroimg.sock failed (111: Connection refused) while connecting to upstream"
    with another_socket(house) as closed, an_error_is_logged_without_the_request(house, "[error]", refused):
        closed.bind(str(house.folder / "heroimg.sock"))
        wait_for(lambda: is_refused(house), "nginx to connect")


def test_a_socket_that_is_gone_is_in_the_journal(house: Production) -> None:
    gone = "/heroimg.sock failed (2: No such file or directory) while connecting to upstream"
    with another_socket(house), an_error_is_logged_without_the_request(house, "[crit]", gone):
        wait_for(lambda: is_refused(house), "nginx to connect")


def test_an_application_that_does_not_answer_is_in_the_journal(house: Production) -> None:
    processes = [house.server.pid, *house.server.workers()]
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        with an_error_is_logged_without_the_request(
            house, "upstream timed out (110: Connection timed out) while reading response header from upstream"
        ):
            assert retrieve(house).status_code == 504
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


@needs_root
def test_a_full_disk_below_nginx_is_in_the_journal(house: Production) -> None:
    folder = house.folder / "nginx" / "body"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    try:
        with an_error_is_logged_without_the_request(house, "[crit]", "pwrite", f"{folder}/"):
            assert upload(house, 3 * MEGABYTE).status_code == 500
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_connections_that_run_out_are_in_the_journal(tmp_path: Path) -> None:
    with production(tmp_path / "whole", 2, {"768": "20"}) as house, ExitStack() as stack:
        while "20 worker_connections are not enough" not in house.nginx_errors():
            with suppress(OSError):  # nginx closes connections that exceed its limit
                Phone(house, stack).asks("POST", f"{UPLOAD}?imageId={IMAGE_ID}", "Content-Length: 9\r\n", b"1")
        assert IMAGE_ID not in house.logs()


def test_nginx_serves_when_nothing_reads_its_errors(tmp_path: Path) -> None:
    with production(tmp_path / "whole") as house:
        (house.folder / "heroimg-nginx.sock").unlink()
        assert upload(house, 35 * MEGABYTE).status_code == 413
        assert house.customer().request("GET", "/healthz").status_code == 200
        main = (house.folder / "nginx" / "error.log").read_text()
        assert "connect() failed (2: No such file or directory)" in main
        assert IMAGE_ID not in main


@needs("curl")
def test_only_uploads_of_over_1_mb_touch_a_temporary_file(tmp_path: Path) -> None:
    with production(tmp_path / "whole", 2, WARN | SMALL_SOCKETS) as house, ExitStack() as stack:
        small, large = (pictures.jpeg().ljust(size * MEGABYTE, b"\0") for size in (1, 5))
        for version in ("--http1.1", "--http2"):
            transfer(house, stack, version, small)
        assert house.nginx_errors() == ""
        for version in ("--http1.1", "--http2"):
            transfer(house, stack, version, large)
        wait_for(lambda: house.nginx_errors().count("request body is buffered to a temporary file") == 2, "warnings")
        assert "upstream response is buffered" not in house.nginx_errors()


def test_a_large_event_waits_on_the_disk_because_1000_events_may_arrive_at_once(tmp_path: Path) -> None:
    with production(tmp_path / "whole", 1, WARN) as house:
        house.customer().request("POST", "/api/checkout/webhook", data=bytes(100_000))
        wait_for(lambda: "request body is buffered to a temporary file" in house.nginx_errors(), "the warning")


def transfer(house: Production, stack: ExitStack, version: str, picture: bytes) -> None:
    """Upload a picture, and retrieve it by a reader that does not read before nginx has all of it."""
    image_id = upload_with_curl(house, version, picture)
    reader = Phone(house, stack, window=4096)
    reader.asks("GET", f"{RETRIEVE}?imageId={image_id}&claim={'f' * 24}")
    wait_for(lambda: house.server.log().count(f"claimed {image_id[:6]}"), "the picture to be on its way")
    wait_for(lambda: is_read(house, image_id), "nginx to take the picture")
    assert reader.answer().endswith(picture)


def test_the_application_gets_the_headers_by_which_browsers_prefetch_and_no_unknown_one(house: Production) -> None:
    headers = {"Sec-Purpose": "prefetch", "Purpose": "preview", "X-Moz": "prefetch", "X-Purpose": "preview"}
    with another_socket(house) as listening, ThreadPoolExecutor(1) as pool:
        listening.settimeout(LONG)
        listening.bind(str(house.folder / "heroimg.sock"))
        listening.listen()
        received = pool.submit(receive_a_request, listening)
        while not received.done():  # nginx may still have a connection to gunicorn
            house.ask(house.customer(), "/healthz", headers={**headers, "X-Other": "1"})
    for name, value in headers.items():
        assert f"\r\n{name}: {value}\r\n" in received.result()
    assert "x-other" not in received.result().lower()


def receive_a_request(listening: socket.socket) -> str:
    """Accept a connection of nginx, answer 204, and return the head of the request."""
    with listening.accept()[0] as connection:
        head = ""
        while "\r\n\r\n" not in head:
            head += connection.recv(65536).decode()
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        return head
