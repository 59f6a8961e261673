"""Settings: read once, checked together, every fault in one message."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from heroimg.config import Config, ConfigError
from tests.helpers.serving import ROOT, Server

BAD = {
    "FRONTEND_URL": "*",
    "STRIPE_SECRET_KEY": "pk_test_thatisnotsecret",
    "STRIPE_PUBLISHABLE_KEY": "sk_test_thatissecret",
    "STRIPE_WEBHOOK_SECRET": "secret",
    "STRIPE_API_BASE": "localhost",
    "REDIS_URL": "localhost:6379",
    "HEROIMG_REDIS_REPLICAS": "many",
    "HEROIMG_IMAGE_SECONDS": "an hour",
    "HEROIMG_MAX_IMAGE_BYTES": "5MB",
    "HEROIMG_CLAIM_SECONDS": "0",
    "HEROIMG_RETURN_SECONDS": "-1",
    "HEROIMG_PAID_SECONDS": "1e5",
    "HEROIMG_SWEEP_SECONDS": "٣",
    "HEROIMG_MIN_FREE_BYTES": "lots",
    "HEROIMG_IMAGE_CHECK": "none",
    "HEROIMG_TRUSTED_PROXIES": "11",
    "HEROIMG_METRICS": "yes",
    "HEROIMG_UPLOAD_RATE": "often",
    "HEROIMG_CHECKOUT_RATE": "60 per fortnight",
    "HEROIMG_PRODUCT_NAME": "x" * 251,
    "HEROIMG_PRODUCT_DESCRIPTION": "x" * 1001,
    "HEROIMG_UNIT_AMOUNT": "2.00",
    "HEROIMG_CURRENCY": "dollars",
    "HEROIMG_RETURN_PATH": "hero-me",
}


class Recorder(dict[str, str]):
    """An empty environment that notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def get(self, name: str, *_default: object) -> None:  # type: ignore[override]
        self.asked.add(name)


def settings() -> set[str]:
    recorder = Recorder()
    Config.from_env(recorder)
    return recorder.asked


def faults(environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Config.from_env(environ)
    return caught.value.faults


def test_every_fault_is_told_at_once_with_what_would_be_right() -> None:
    told = faults(BAD)
    assert [fault.partition(" ")[0] for fault in told] == list(BAD)
    assert all("must" in fault or "limit" in fault for fault in told)


def test_secrets_are_not_repeated_in_the_message() -> None:
    assert "thatisnotsecret" not in str(faults(BAD))


def test_the_defaults_are_what_an_empty_environment_and_empty_values_give() -> None:
    defaults = Config.from_env({})
    assert Config.from_env(dict.fromkeys(BAD, "  ")) == Config.from_env(
        {"HEROIMG_UPLOAD_RATE": "", "HEROIMG_CHECKOUT_RATE": ""}
    )
    assert defaults.image_seconds == 3600
    assert defaults.max_image_bytes == 5 * 1024 * 1024
    assert defaults.return_url == "http://localhost:3000/hero-me?session_id={CHECKOUT_SESSION_ID}"


def test_the_first_front_end_is_where_customers_return() -> None:
    config = Config.from_env({"FRONTEND_URL": "https://Hero.example/, http://localhost:5173"})
    assert config.frontend_origins == ("https://hero.example", "http://localhost:5173")
    assert config.return_url.startswith("https://hero.example/hero-me?")


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        ({"STRIPE_SECRET_KEY": "sk_test_x", "HEROIMG_IMAGE_SECONDS": "3000"}, "1920"),
        ({"STRIPE_SECRET_KEY": "sk_test_x", "HEROIMG_IMAGE_SECONDS": "100000"}, "86280"),
        ({"STRIPE_WEBHOOK_SECRET": "whsec_x"}, "STRIPE_SECRET_KEY"),
        ({"HEROIMG_UPLOAD_RATE": "0 per minute"}, "60 per minute"),
        ({"HEROIMG_UPLOAD_DIRR": "/srv"}, "HEROIMG_UPLOAD_DIR"),
        ({"HEROIMG_UNIT_AMOUNT": "49"}, "50"),
        ({"STRIPE_SECRET_KEY": "sk_test_x", "STRIPE_PUBLISHABLE_KEY": "pk_live_x"}, "different modes"),
        ({"STRIPE_SECRET_KEY": "sk_live_x", "STRIPE_API_BASE": "http://localhost:1"}, "live"),
    ],
)
def test_settings_that_do_not_go_together_are_told_with_both_numbers(environ: dict[str, str], word: str) -> None:
    (fault,) = faults(environ)
    assert word in fault


def test_env_example_lists_every_setting_with_its_default() -> None:
    listed = dict(re.findall(r"^#?\s?([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert set(listed) == settings()
    examples = {name: value.strip('"') for name, value in listed.items()}
    assert Config.from_env(examples) == Config.from_env({})


def test_the_readme_lists_every_setting() -> None:
    readme = (ROOT / "README.md").read_text()
    assert not [name for name in settings() if f"`{name}`" not in readme]


def test_the_environment_is_read_in_one_place() -> None:
    modules = {path.name for path in (ROOT / "heroimg").rglob("*.py") if "os.environ" in path.read_text()}
    assert modules == {"gunicorn_conf.py", "wsgi.py", "counters.py"}  # the last sets a variable of its library


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path, {})


def test_bad_settings_stop_gunicorn_with_one_message(server: Server) -> None:
    server.environ.update(BAD)
    with pytest.raises(AssertionError):
        server.gunicorn()
    for name in BAD:
        assert server.log().count(f"  - {name} ") == 1
    assert "Traceback" not in server.log()


def test_bad_settings_stop_flask_with_the_same_message(server: Server) -> None:
    server.environ.update(BAD)
    ended = server.flask("run", "--port", "0")
    assert ended.returncode != 0
    for name in BAD:
        assert ended.stderr.count(f"  - {name} ") == 1
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", ["HEROIMG_UPLOAD_DIR", "HEROIMG_INSTANCE_DIR"])
@pytest.mark.parametrize("kind", ["a file", "a folder that cannot be made", "a folder that cannot be written"])
def test_a_folder_that_cannot_be_written_stops_the_start_with_what_to_do(
    server: Server, tmp_path: Path, name: str, kind: str
) -> None:
    (tmp_path / "file").touch()
    folders = {"a file": tmp_path / "file", "a folder that cannot be made": "/proc/x"}
    server.environ[name] = str(folders.get(kind, "/proc/self"))
    with pytest.raises(AssertionError):
        server.gunicorn()
    ended = server.flask("held")
    for told in (server.log(), ended.stderr):
        assert f"{name} is {server.environ[name]}" in told
        assert f"uid {os.geteuid()}" in told
        assert "/var/lib/heroimg/" in told
    assert ended.returncode != 0


def test_a_folder_that_everybody_shares_is_refused_and_left_as_it_is(server: Server, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    server.environ["HEROIMG_UPLOAD_DIR"] = str(shared)
    assert "it is shared, as /tmp is" in server.flask("held").stderr
    assert shared.stat().st_mode & 0o7777 == 0o1777


def test_importing_heroimg_starts_nothing_and_reads_no_environment(server: Server) -> None:
    server.environ.update(BAD)
    code = "import os; os.environ.clear(); import threading, heroimg; assert threading.active_count() == 1"
    subprocess.run([sys.executable, "-c", code], cwd=server.folder, env=server.environ, check=True)
    assert list(server.folder.iterdir()) == []
