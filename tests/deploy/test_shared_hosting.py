"""Debian's Apache with mod_wsgi and with Passenger, set up as in docs/shared-hosting.md with the files in deploy/."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from demo.stripe_stand_in import StandIn
from heroimg.config import MAX_REQUEST_BYTES
from tests.helpers import pictures
from tests.helpers.apache import MODULES, Apache, has_the_tests_python, make_environment
from tests.helpers.api import RETRIEVE, SESSION, UPLOAD, Api, multipart, new_token
from tests.helpers.fenced_files import fenced_files
from tests.helpers.needed_programs import needs_root, require, require_file
from tests.helpers.production import make_certificate
from tests.helpers.serving import LONG, ROOT, Server, wait_for
from tests.helpers.store_shelf import UNKNOWN

LIMIT = 5 * 1024 * 1024
_BEGINNING = 600_000  # bytes; more than is read at once (READ_BYTES in request_body.py)
SHARED_HOSTING = fenced_files(ROOT / "docs" / "shared-hosting.md")

pytestmark = pytest.mark.proof


class Hosted(NamedTuple):
    """heroimg in one Apache, at one of its addresses; the stand-in for Stripe that it uses."""

    apache: Apache
    api: Api
    stand_in: StandIn

    @property
    def project(self) -> Path:
        return self.api.server.folder


@pytest.fixture(scope="module")
def machine() -> Iterator[Path]:
    require("openssl")
    require_file(MODULES / "mod_wsgi.so")
    require_file(MODULES / "mod_passenger.so")
    if not has_the_tests_python() and "HEROIMG_REQUIRE_ALL" not in os.environ:
        pytest.skip("needs tests that run with the version of /usr/bin/python3, because mod_wsgi contains that Python")
    with _public_folder() as folder, pytest.MonkeyPatch.context() as patch:
        make_environment(folder)
        make_certificate(folder)
        patch.setenv("REQUESTS_CA_BUNDLE", str(folder / "fullchain.pem"))
        yield folder


@pytest.fixture(scope="module")
def mod_wsgi(machine: Path) -> Iterator[Hosted]:
    with _hosted("wsgi", machine) as (apache, stand_in):
        yield Hosted(apache, Api(apache.site), stand_in)


@pytest.fixture(scope="module")
def both_passengers(machine: Path) -> Iterator[tuple[Hosted, Hosted]]:
    with _hosted("passenger", machine) as (apache, stand_in):
        yield Hosted(apache, Api(apache.site), stand_in), Hosted(apache, Api(apache.panel), stand_in)


@pytest.fixture
def passenger(both_passengers: tuple[Hosted, Hosted]) -> Hosted:
    return both_passengers[0]


@pytest.fixture
def panel(both_passengers: tuple[Hosted, Hosted]) -> Hosted:
    """Serve by Passenger as a panel sets it up: by settings of its own, not by deploy/."""
    return both_passengers[1]


@pytest.fixture(params=["mod_wsgi", "passenger"])
def site(request: pytest.FixtureRequest) -> Hosted:
    """Serve from deploy/apache.conf."""
    hosted: Hosted = request.getfixturevalue(request.param)
    return hosted


@pytest.fixture(params=["mod_wsgi", "passenger", "panel"])
def hosted(request: pytest.FixtureRequest) -> Hosted:
    hosted: Hosted = request.getfixturevalue(request.param)
    return hosted


def test_the_whole_journey(hosted: Hosted) -> None:
    image_id, claim = hosted.api.keep(pictures.portrait()), new_token()
    session_id = hosted.api.session_of(image_id)
    hosted.stand_in.pay(session_id)
    status = hosted.api.status(session_id).json()
    assert (status["status"], status["metadata"]) == ("complete", {"imageId": image_id})
    assert hosted.api.retrieve(image_id, claim).content == pictures.portrait()
    assert hosted.api.retrieve(image_id, new_token()).status_code == 409
    assert hosted.api.confirm(image_id, claim).status_code == 204
    assert hosted.api.retrieve(image_id, claim).status_code == 404
    once = hosted.api.keep(pictures.jpeg())
    assert hosted.api.retrieve(once).content == pictures.jpeg()
    wait_for(lambda: hosted.api.is_gone(once), "the picture to be gone")


def test_a_picture_of_5_mb_passes_and_a_byte_more_is_refused_by_the_application(hosted: Hosted) -> None:
    image_id = hosted.api.keep(pictures.jpeg(3).ljust(LIMIT, b"\0"))
    assert len(hosted.api.retrieve(image_id).content) == LIMIT
    for size in (LIMIT + 1, 32 * 1024 * 1024):
        answer = hosted.api.upload(pictures.jpeg(3).ljust(size, b"\0"))
        assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")


def test_apaches_refusals_are_json_that_the_front_end_may_read(site: Hosted) -> None:
    origin = {"Origin": site.api.server.url}
    for path, size, limit in ((UPLOAD, 35 * 1024 * 1024, "34 MB"), (SESSION, 2 * 1024 * 1024, "1 MB")):
        answer = site.api.request("POST", path, data=b"\0" * size, headers=origin)
        assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")
        assert limit in answer.json()["error"]
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Access-Control-Allow-Origin"] == site.api.server.url
        assert answer.headers["Cache-Control"] == "no-store"
    answer = site.api.request("GET", "/" + "x" * 9000, headers={"Origin": "https://elsewhere.example.com"})
    assert (answer.status_code, answer.json()["code"]) == (414, "request_uri_too_long")
    assert "Access-Control-Allow-Origin" not in answer.headers
    answer = site.api.request("GET", SESSION, headers={"Expect": "a miracle"})
    assert (answer.status_code, answer.json()["code"]) == (417, "expectation_failed")
    assert answer.headers["Content-Type"] == "application/json"


def test_a_process_that_dies_is_replaced_and_its_customer_gets_json(mod_wsgi: Hosted) -> None:
    body, media_type = multipart(pictures.jpeg(1))
    with mod_wsgi.api.connection() as connection:
        _begin_upload(connection, body, media_type)
        wait_for(lambda: any(mod_wsgi.api.server.uploads.glob("*.part")), "the upload to begin")
        for pid in mod_wsgi.apache.site.workers():
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"(wsgi:"):
                os.kill(pid, signal.SIGKILL)
        connection.sendall(body[_BEGINNING:])
        received = b""
        while b"}" not in received:
            received += (data := connection.recv(4096))
            assert data, received
    head, _, text = received.decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 500 ")
    assert "\r\nRetry-After: 2\r\n" in head
    assert '"code":"server_unreachable"' in text
    assert mod_wsgi.api.request("GET", "/healthz").status_code == 200


def test_apaches_limit_is_just_above_the_applications() -> None:
    limits = re.findall(r"LimitRequestBody (\d+)", (ROOT / "deploy" / "apache.conf").read_text())
    assert MAX_REQUEST_BYTES < int(limits[1]) <= MAX_REQUEST_BYTES + 1024 * 1024


def test_plain_http_is_sent_to_https(mod_wsgi: Hosted) -> None:
    answer = requests.get(f"http://127.0.0.1:{mod_wsgi.apache.http_port}/hero-me", timeout=LONG, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (301, f"{mod_wsgi.api.server.url}/hero-me")


def test_nothing_of_heroimgs_can_be_fetched_though_it_is_below_the_document_root(site: Hosted) -> None:
    image_id = site.api.keep(pictures.jpeg())
    for name in (".env", "wsgi.py", "README.md", "heroimg/config.py", "uploads/", f"uploads/{image_id}", "instance/"):
        answer = site.api.request("GET", f"/heroimg/{name}")
        assert answer.status_code in (403, 404), name
        assert answer.json()["code"] in ("forbidden", "not_found")


def test_if_apache_reads_only_htaccess_pictures_and_settings_cannot_be_fetched(panel: Hosted) -> None:
    image_id = panel.api.keep(pictures.jpeg())
    assert panel.api.request("GET", "/heroimg/README.md").status_code == 200
    folders = ("uploads", "instance")
    for name in (".env", *(f"{folder}/{file}" for folder in folders for file in ("", ".htaccess", image_id, "x.lock"))):
        assert panel.api.request("GET", f"/heroimg/{name}").status_code == 403, name
    for folder in folders:  # .htaccess alone protects the folder if the host runs heroimg as Apache's own user
        (panel.project / folder).chmod(0o755)
        (panel.project / folder / "readable.txt").write_text("a picture")
        assert panel.api.request("GET", f"/heroimg/{folder}/readable.txt").status_code == 403
        (panel.project / folder / "readable.txt").unlink()
        (panel.project / folder).chmod(0o700)


@needs_root
def test_apaches_user_cannot_read_the_pictures_folder(site: Hosted) -> None:
    site.api.keep(pictures.jpeg())
    assert stat.S_IMODE(site.api.server.uploads.stat().st_mode) == 0o700
    for reader, status in (("www-data", 2), ("nobody", 0)):
        listed = subprocess.run(["ls", site.api.server.uploads], user=reader, capture_output=True, check=False)
        assert listed.returncode == status


def test_no_log_has_a_whole_id_and_the_applications_lines_are_there(site: Hosted) -> None:
    image_id, claim = site.api.keep(pictures.jpeg()), new_token()
    session_id = site.api.session_of(image_id)
    query, page = f"imageId={image_id}&claim={claim}", f"{site.api.server.url}/hero-me?session_id={session_id}"
    site.api.retrieve(image_id, claim, headers={"Referer": page})
    site.api.hang_up_after(1, image_id, claim)
    for path in ("/heroimg/.env", "/%zz"):  # Apache logs an error for both
        with site.api.connection() as connection:
            connection.sendall(f"GET {path}?{query} HTTP/1.1\r\nHost: t\r\nReferer: {page}\r\n\r\n".encode())
            connection.recv(4096)
    site.api.request("POST", f"{UPLOAD}?{query}", data=b"\0" * 35 * 1024 * 1024, headers={"Referer": page})
    site.api.confirm(image_id, claim)
    wait_for(lambda: f"confirmed {image_id[:6]}" in site.apache.logs(), "heroimg to log the confirmation")
    wait_for(lambda: f" DELETE {RETRIEVE} 204 " in site.apache.logs(), "Apache to log the request")
    log = site.apache.logs()
    assert f"kept {image_id[:6]}" in log
    assert "INFO heroimg.wsgi: ready: " in log
    for hidden in (image_id, claim, session_id, "sk_test_standin"):
        assert hidden not in log


def test_a_requests_id_is_in_its_answer_in_apaches_log_and_in_heroimgs(site: Hosted) -> None:
    for given in ("6d1b8c3e-0d3f-4a51-9d5a-0f2e4f6a7b8c", "0" * 32, None):
        answer = site.api.retrieve(UNKNOWN, headers={"X-Request-ID": given} if given else {})
        request = answer.headers["X-Request-ID"]
        assert (request == given) == (given is not None and "-" in given)
        lines = rf" \[{request}\]: answered 404 ", rf"GET {RETRIEVE} 404 .* request {request}$"
        for line in lines:
            wait_for(lambda line=line: re.search(line, site.apache.logs(), re.MULTILINE), line)  # type: ignore[misc]


def test_a_thread_sweeps(site: Hosted) -> None:
    leftover = _leave_leftovers(site)
    site.api.request("GET", "/healthz")
    wait_for(lambda: not leftover.exists(), "the leftover to be swept")


def test_without_threads_a_request_sweeps_when_that_is_overdue(panel: Hosted) -> None:
    panel.api.request("GET", "/healthz")  # Passenger starts a process when it is asked
    (lock,) = (panel.project / "instance").glob("sweep-*.lock")
    os.utime(lock)
    leftover = _leave_leftovers(panel)
    panel.api.request("GET", "/healthz")
    assert leftover.exists()
    os.utime(lock, (time.time() - 181, time.time() - 181))
    panel.api.request("GET", "/healthz")
    wait_for(lambda: not leftover.exists(), "the leftover to be swept")


@pytest.mark.parametrize("name", ["cpanel.cron", "apache.cron"])
def test_the_documented_cron_line_sweeps(panel: Hosted, machine: Path, name: str) -> None:
    leftover, venv = _leave_leftovers(panel), machine / "venv"
    command = SHARED_HOSTING[name].split(maxsplit=5)[5]
    for written, meant in {
        "/home/you/virtualenv/heroimg/3.11": str(venv),
        "/home/you/heroimg": str(panel.project),
        "/srv/heroimg": str(panel.project),
        ".venv/": f"{venv}/",
    }.items():
        command = command.replace(written, meant)
    assert f"{venv}/bin/flask" in command
    ran = subprocess.run(command, shell=True, env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True)
    assert not leftover.exists()
    assert ran.stdout + ran.stderr == b""  # otherwise cron would send a mail


def test_a_reader_with_a_claim_gets_the_picture_after_its_connection_broke(hosted: Hosted) -> None:
    image_id, claim = hosted.api.keep(pictures.jpeg(3)), new_token()
    hosted.api.hang_up_after(1024, image_id, claim)
    assert hosted.api.retrieve(image_id, claim).content == pictures.jpeg(3)


def test_under_mod_wsgi_a_broken_connection_gives_the_picture_back_without_a_claim(mod_wsgi: Hosted) -> None:
    image_id = mod_wsgi.api.keep(pictures.jpeg(3).ljust(LIMIT, b"\0"))
    mod_wsgi.api.hang_up_after(1024, image_id)
    wait_for(lambda: f"gave back {image_id[:6]}" in mod_wsgi.apache.logs(), "the picture to be given back")
    assert mod_wsgi.api.retrieve(image_id).status_code == 200


@pytest.mark.parametrize("reads_on", [True, False])
def test_an_error_after_the_headers_leaves_no_id_in_apaches_log(mod_wsgi: Hosted, reads_on: bool) -> None:
    image_id = mod_wsgi.api.keep(pictures.jpeg(3).ljust(LIMIT, b"\0"))
    sidecar = mod_wsgi.api.server.uploads / f"{image_id}.json"
    (unreadable := mod_wsgi.project / "unreadable").symlink_to(sidecar)
    with mod_wsgi.api.connection(window=32768) as connection:
        connection.sendall(f"GET {RETRIEVE}?imageId={image_id} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        assert connection.recv(1024)
        # A link to itself stands for a disk with an error. The sidecar must always exist, because a sweep would remove
        # the picture as a leftover.
        unreadable.rename(sidecar)
        while reads_on and connection.recv(1024 * 1024):
            pass
    cause = f"[Errno 40] Too many levels of symbolic links: '{sidecar.parent}/{image_id[:6]}....json'"
    line = f"failed after its headers were sent: {cause}"
    try:
        wait_for(lambda: line in mod_wsgi.apache.logs(), "the error to be logged")
    finally:
        sidecar.unlink()  # otherwise the folder is refused at the next start
    assert image_id not in mod_wsgi.apache.logs()


@needs_root
def test_mod_wsgi_without_home_says_that_there_is_no_env_file(machine: Path) -> None:
    with _public_folder() as folder:
        apache = Apache(folder, "wsgi", machine, {})
        site = apache.site.folder / "deploy" / "apache.conf"
        assert " home=" in site.read_text()
        # For another user than Apache's, mod_wsgi would use the home of that user, and "nobody" has none.
        options = site.read_text().replace(" home=", " python-path=")
        site.write_text(options.replace("user=nobody", "user=www-data"))
        apache.start()
        try:
            wait_for(
                lambda: "No .env was read: there is none in the working folder, /." in apache.logs(), "the message"
            )
            assert "HEROIMG_UPLOAD_DIR is /uploads, " in apache.logs()
        finally:
            apache.stop()


def test_many_slow_uploads_block_no_other_request(site: Hosted) -> None:
    body, media_type = multipart(pictures.jpeg(1))
    with ExitStack() as stack:
        for _ in range(40):
            _begin_upload(stack.enter_context(site.api.connection()), body, media_type)
        assert site.api.request("GET", "/healthz").status_code == 200


@pytest.mark.parametrize(("name", "file"), [("mod_wsgi", "wsgi.py"), ("passenger", "tmp/restart.txt")])
def test_a_restart_as_documented_finishes_what_has_begun(request: pytest.FixtureRequest, name: str, file: str) -> None:
    hosted: Hosted = request.getfixturevalue(name)
    assert file in (ROOT / "docs" / "shared-hosting.md").read_text()
    body, media_type = multipart(pictures.jpeg(1))
    with hosted.api.connection() as connection:
        _begin_upload(connection, body, media_type)
        started = hosted.apache.logs().count("ready: ")
        (hosted.project / file).parent.mkdir(exist_ok=True)
        (hosted.project / file).touch()

        def has_restarted() -> bool:
            assert hosted.api.request("GET", "/healthz").status_code == 200
            return hosted.apache.logs().count("ready: ") > started

        wait_for(has_restarted, "a new process")
        connection.sendall(body[_BEGINNING:])
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def _begin_upload(connection: socket.socket, body: bytes, media_type: str) -> None:
    head = f"POST {UPLOAD} HTTP/1.1\r\nHost: t\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body[:_BEGINNING])


@contextmanager
def _public_folder() -> Iterator[Path]:
    """Make a folder that every user may enter; pytest's own are private, and Apache drops root's rights."""
    with tempfile.TemporaryDirectory(prefix="heroimg-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def _hosted(module: str, machine: Path) -> Iterator[tuple[Apache, StandIn]]:
    with _public_folder() as folder, StandIn() as stand_in:
        settings = {
            "STRIPE_SECRET_KEY": "sk_test_standin",
            "STRIPE_API_BASE": stand_in.url,
            "HEROIMG_UPLOAD_RATE": "",
            "HEROIMG_CHECKOUT_RATE": "",
            "HEROIMG_MIN_FREE_BYTES": "0",
        }
        apache = Apache(folder, module, machine, settings)
        _set(apache.site, "HEROIMG_SWEEP_SECONDS", "1")
        _set(apache.panel, "HEROIMG_SWEEP_SECONDS", "0")
        (apache.panel.folder / "passenger_wsgi.py").write_text(SHARED_HOSTING["passenger_wsgi.py"])
        apache.start()
        try:
            yield apache, stand_in
        finally:
            apache.stop()


def _set(server: Server, name: str, value: str) -> None:
    with (server.folder / ".env").open("a") as file:
        file.write(f"{name}={value}\n")


def _leave_leftovers(hosted: Hosted) -> Path:
    """Leave the files that a crash would leave, for a sweep to remove."""
    hosted.api.request("GET", "/healthz")  # Passenger starts a process when it is asked
    leftover = hosted.api.server.uploads / f"{UNKNOWN}.json"
    leftover.touch()
    os.chown(leftover, hosted.project.stat().st_uid, hosted.project.stat().st_gid)
    return leftover
