"""Each row of "When something fails" in docs/operations.md: cause the failure, and follow the advice."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from demo.stripe_stand_in import StandIn
from tests.helpers import pictures
from tests.helpers.api import Api, new_token
from tests.helpers.needed_programs import require
from tests.helpers.production import Production, make_certificate, production
from tests.helpers.redis_servers import RedisServer
from tests.helpers.serving import ROOT, Server, serving, wait_for
from tests.helpers.shop import stripe_settings

pytestmark = pytest.mark.proof


class Row(NamedTuple):
    """One row of the page."""

    command: str
    outputs: list[str]
    advice: str

    def is_in(self, text: str) -> bool:
        """Return whether a text has all outputs of the row, in which … stands for anything within a line."""
        return all(re.search(".*".join(map(re.escape, output.split("…"))), text) for output in self.outputs)


_, _, _SECTION = (ROOT / "docs" / "operations.md").read_text().partition("\n## When something fails\n")
_CELLS = [line.strip("| ").split(" | ") for line in _SECTION.partition("\n## ")[0].splitlines() if line[:2] == "| "]
ROWS = {
    symptom.strip('"'): Row(command, re.findall("`([^`]+)`", output), advice)
    for symptom, command, output, advice in _CELLS[1:]
}


def test_every_row_of_the_page_is_tried_here() -> None:
    assert set(re.findall(r'ROWS\["([^"]+)"\]', Path(__file__).read_text())) == set(ROWS)


def run(server: Server, command: str) -> str:
    """Run a command of the operator; return all that it prints."""
    ran = server.flask(*command.split())
    return ran.stdout + ran.stderr


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn() as stand_in:
        yield stand_in


@pytest.fixture
def served(tmp_path: Path, stand_in: StandIn) -> Iterator[Api]:
    with serving(tmp_path / "served", stripe_settings(stand_in), workers=1) as server:
        yield Api(server)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Production]:
    """Serve as in production; the operator's machine trusts the certificate."""
    with production(tmp_path / "whole", 1) as house:
        house.stand_in.webhook_url = f"{house.url}/api/checkout/webhook"
        house.server.environ["SSL_CERT_FILE"] = str(house.certificate)
        yield house


def test_a_customer_who_paid_gets_the_picture_at_the_address_of_the_checkout(served: Api, stand_in: StandIn) -> None:
    row = ROWS["I paid and see nothing"]
    session_id = served.session_of(image_id := served.keep(pictures.jpeg()))
    stand_in.pay(session_id)
    shown = run(served.server, row.command.replace("`", "").partition(" (")[0].replace("cs_live_…", session_id))
    assert row.is_in(shown)
    assert "\nexpires: " in shown
    assert served.status(session_id).json()["metadata"] == {"imageId": image_id}
    assert served.retrieve(image_id, new_token()).content == pictures.jpeg()


def test_the_log_says_whether_a_paid_picture_was_received(served: Api, stand_in: StandIn) -> None:
    session_id = served.session_of(image_id := served.keep(pictures.jpeg()))
    stand_in.pay(session_id)
    served.confirm(image_id)
    shown = run(served.server, f"show {session_id}")
    assert ROWS["the same"].is_in(shown)
    (line,) = re.findall(r"Look for `(confirmed .*?)`", shown)
    assert line in served.server.log()


def test_a_picture_is_deleted_at_its_owners_request(served: Api, stand_in: StandIn) -> None:
    row = ROWS["Delete my picture"]
    stand_in.pay(served.session_of(image_id := served.keep(pictures.jpeg())))
    shown = run(served.server, row.command.strip("`").replace("8cf0c9", image_id[:6]))
    assert row.is_in(shown)
    assert "refund it if the customer asks" in shown
    assert served.server.names() == []


def test_the_id_of_a_request_finds_its_lines(served: Api) -> None:
    answer = served.retrieve("0" * 32)
    row = ROWS["a customer reports an error"]
    (pattern,) = re.findall(r"--grep=(\S+)`", row.command.replace("ID", answer.headers["X-Request-ID"]))
    (line,) = [line for line in served.server.log().splitlines() if re.search(pattern, line)]
    assert "answered 404 image_not_found" in line


def test_a_checkout_works_again_with_another_key(tmp_path: Path, stand_in: StandIn) -> None:
    row = ROWS["checkouts fail"]
    with serving(tmp_path / "served", {**stripe_settings(stand_in), "STRIPE_SECRET_KEY": "sk_test_other"}) as server:
        api = Api(server)
        assert api.open_checkout(api.keep(pictures.jpeg())).status_code == 502
        shown = run(server, "check")
        assert Row("", row.outputs[:1], "").is_in(shown)
        assert "set STRIPE_SECRET_KEY to one under" in shown
        server.stop()
        server.environ["STRIPE_SECRET_KEY"] = "sk_test_standin"
        server.gunicorn()
        assert api.open_checkout(api.keep(pictures.jpeg())).status_code == 200


def test_a_checkout_works_again_at_the_right_time(served: Api, stand_in: StandIn) -> None:
    stand_in.clock = lambda: time.time() + 3600
    image_id = served.keep(pictures.jpeg())
    assert served.open_checkout(image_id).status_code == 503
    shown = run(served.server, "check")
    assert Row("", ROWS["checkouts fail"].outputs[1:], "").is_in(shown)
    assert "synchronise it, for example by `timedatectl set-ntp true`" in shown
    stand_in.clock = time.time
    assert served.open_checkout(image_id).status_code == 200


def test_uploads_work_again_when_room_is_freed(tmp_path: Path) -> None:
    row = ROWS["uploads get 507"]
    with serving(tmp_path / "served", {"HEROIMG_MIN_FREE_BYTES": str(2**50)}) as server:
        api = Api(server)
        assert api.upload(pictures.jpeg()).status_code == 507
        shown = run(server, "check")
        assert row.is_in(shown)
        assert "free some room, or set it lower" in shown
        server.stop()
        server.environ["HEROIMG_MIN_FREE_BYTES"] = "0"
        server.gunicorn()
        assert api.upload(pictures.jpeg()).status_code == 200


def test_uploads_work_again_when_redis_is_started(tmp_path: Path) -> None:
    require("redis-server")
    row = ROWS["uploads get 503"]
    with (
        RedisServer(tmp_path / "redis") as redis,
        serving(tmp_path / "served", {"REDIS_URL": redis.url}, workers=1) as server,
    ):
        api = Api(server)
        redis.end()
        assert api.upload(pictures.jpeg()).status_code == 503
        assert row.is_in(run(server, "check"))
        redis.start()
        assert api.upload(pictures.jpeg()).status_code == 200


def test_a_service_that_does_not_answer_is_restarted(tmp_path: Path) -> None:
    with production(tmp_path / "whole", 1, {"proxy_read_timeout 90s;": "proxy_read_timeout 1s;"}) as house:
        house.server.environ["SSL_CERT_FILE"] = str(house.certificate)
        os.kill(house.server.workers()[0], signal.SIGSTOP)
        shown = run(house.server, f"check --url {house.url}")
        assert ROWS["nothing answers"].is_in(shown)
        assert "answers 504: heroimg does not run, or hangs: `systemctl restart heroimg`, and read its log" in shown
        house.server.kill()
        house.start()
        assert "ok       public: /readyz answers" in run(house.server, f"check --url {house.url}")


def test_a_certificate_that_has_expired_is_renewed(house: Production) -> None:
    def serve_certificate() -> None:
        os.kill(int((house.folder / "nginx" / "pid").read_text()), signal.SIGHUP)
        written = house.certificate.read_text().strip()
        wait_for(lambda: ssl.get_server_certificate(("127.0.0.1", house.port)).strip() == written, "the certificate")

    key = str(house.folder / "privkey.pem")
    expire = ["openssl", "x509", "-in", str(house.certificate), "-signkey", key, "-days", "-1"]
    expired = subprocess.run(expire, check=True, capture_output=True, text=True).stdout
    house.certificate.write_text(expired)
    serve_certificate()
    shown = run(house.server, f"check --url {house.url}")
    assert ROWS["browsers warn"].is_in(shown)
    assert "(certificate has expired)" in shown
    make_certificate(house.folder)
    serve_certificate()
    assert "fault    tls" not in run(house.server, f"check --url {house.url}")


def test_customers_have_rates_of_their_own_again(house: Production) -> None:
    house.server.stop()
    house.server.environ |= {"HEROIMG_TRUSTED_PROXIES": "0", "HEROIMG_UPLOAD_RATE": "2 per hour"}
    house.start()
    answers = [house.customer().upload(pictures.jpeg()).status_code for _ in range(3)]
    assert answers == [200, 200, 429]
    assert ROWS["all customers get 429"].is_in(run(house.server, f"check --url {house.url}"))
    house.server.stop()
    house.server.environ["HEROIMG_TRUSTED_PROXIES"] = "1"
    house.start()
    assert house.customer().upload(pictures.jpeg()).status_code == 200
    assert "fault    address" not in run(house.server, f"check --url {house.url}")


def test_a_restart_ends_a_sweep_that_hangs(tmp_path: Path) -> None:
    settings = {"HEROIMG_SWEEP_SECONDS": "1"}
    with serving(tmp_path / "served", settings, "--graceful-timeout", "1", workers=1) as server:
        (worker,) = server.workers()
        (lock,) = (tmp_path / "served" / "instance").iterdir()
        entry = f":{lock.stat().st_ino} "
        for number in range(5000):
            (server.uploads / f"{number:032x}.json").touch(0o600)

        def hangs_amid_a_sweep() -> bool:
            if entry in Path("/proc/locks").read_text():
                os.kill(worker, signal.SIGSTOP)
                wait_for(lambda: ") T " in Path(f"/proc/{worker}/stat").read_text(), "the worker to stop")
                if entry in Path("/proc/locks").read_text():
                    return True
                os.kill(worker, signal.SIGCONT)
            return False

        wait_for(hangs_amid_a_sweep, "a sweep to hang")
        assert ROWS["expired pictures stay"].is_in(run(server, "sweep"))
        server.stop()
        server.gunicorn(workers=1)
        wait_for(lambda: server.names() == [], "the sweep")
