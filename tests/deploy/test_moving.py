"""Moving from files to Redis as in docs/redis.md: nginx asks the new workers, and then the old ones."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from demo.stripe_stand_in import StandIn
from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.fenced_files import fenced_files
from tests.helpers.needed_programs import require
from tests.helpers.redis_servers import RedisServer
from tests.helpers.serving import LONG, ROOT, Server, free_port, serving, wait_for

pytestmark = pytest.mark.proof

TOKEN, OTHER_TOKEN = "the-token-of-one", "the-token-of-two"

NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 34m;
    upstream new {{ server {new}; }}
    upstream old {{ server {old}; }}
    server {{
        listen 127.0.0.1:{port};
        {lines}
    }}
}}
"""


class Move:
    """nginx, the old machine and the new one behind it, and the stand-in for Stripe that both use."""

    def __init__(self, front: Api, old: Api, new: Api, stand_in: StandIn) -> None:
        self.front, self.old, self.new, self.stand_in = front, old, new, stand_in


@pytest.fixture
def move(tmp_path: Path) -> Iterator[Move]:
    require("nginx")
    require("redis-server")
    with ExitStack() as stack:
        stand_in = stack.enter_context(StandIn())
        redis = stack.enter_context(RedisServer(tmp_path / "redis"))
        settings = {"STRIPE_SECRET_KEY": "sk_test_standin", "STRIPE_API_BASE": stand_in.url}
        old = stack.enter_context(serving(tmp_path / "old", settings))
        new = stack.enter_context(serving(tmp_path / "new", {"REDIS_URL": redis.url, **settings}))
        front = Server(tmp_path / "nginx", {})
        front.folder.mkdir()
        port = free_port()
        lines = fenced_files(ROOT / "docs" / "redis.md")["moving.conf"]
        addresses = {"old": old.url.removeprefix("http://"), "new": new.url.removeprefix("http://")}
        configuration = front.folder / "nginx.conf"
        configuration.write_text(NGINX.format(folder=front.folder, port=port, lines=lines, **addresses))
        nginx = subprocess.Popen([shutil.which("nginx") or "nginx", "-c", configuration], stderr=subprocess.DEVNULL)
        try:
            front.url = f"http://127.0.0.1:{port}"
            wait_for(lambda: _answers(front.url), "nginx to answer")
            yield Move(Api(front), Api(old), Api(new), stand_in)
        finally:
            nginx.terminate()
            nginx.wait(LONG)


def _answers(url: str) -> bool:
    return subprocess.run(["curl", "-so", "/dev/null", url], check=False).returncode == 0


def test_pictures_of_the_old_machine_are_paid_for_fetched_and_confirmed(move: Move) -> None:
    image_id = move.old.keep(pictures.portrait())
    session_id = move.front.session_of(image_id)
    move.stand_in.pay(session_id)
    assert move.front.status(session_id).json()["status"] == "complete"
    assert move.front.retrieve(image_id, TOKEN).content == pictures.portrait()
    assert move.front.retrieve(image_id, OTHER_TOKEN).status_code == 409
    assert move.front.confirm(image_id, TOKEN).status_code == 204
    wait_for(lambda: move.old.server.names() == [], "the old machine to have nothing left")
    assert move.front.retrieve(image_id, TOKEN).status_code == 404


def test_new_pictures_go_to_the_new_machine(move: Move) -> None:
    image_id = move.front.keep(pictures.jpeg())
    assert move.old.server.names() == []
    assert move.new.retrieve(image_id, method="HEAD").status_code == 200
    assert move.front.retrieve(image_id).content == pictures.jpeg()
    wait_for(lambda: move.new.retrieve(image_id, method="HEAD").status_code == 404, "the picture to be gone")
