"""The start: the server's address and number of workers, and the settings and folders that prevent the start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.helpers.api import Api
from tests.helpers.bad_settings import BAD
from tests.helpers.needed_programs import needs_root
from tests.helpers.serving import LONG, ROOT, Server, free_port, wait_for

GUNICORN = (sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"))

# Gives a command the files of cgroup v2 that a container has, in a namespace of its own.
IN_A_CONTAINER = """
mount -t tmpfs tmpfs /sys/fs/cgroup
echo "$1" > /sys/fs/cgroup/cpu.max
echo "$2" > /sys/fs/cgroup/memory.max
shift 2
exec "$@"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, {})
    yield server
    server.stop()


def test_a_hosting_platforms_port_is_served_on_every_address(server: Server) -> None:
    port = free_port()
    server.environ["PORT"] = str(port)
    server.start(*GUNICORN)
    assert server.url == f"http://0.0.0.0:{port}"
    assert requests.get(f"http://127.0.0.1:{port}/healthz", timeout=LONG).status_code == 200


def test_a_bind_option_takes_precedence_over_the_platforms_port(server: Server) -> None:
    server.environ["PORT"] = str(free_port())
    server.gunicorn()
    assert server.url.startswith("http://127.0.0.1:")
    assert not server.url.endswith(f":{server.environ['PORT']}")


def test_a_platform_may_set_the_number_of_workers(server: Server) -> None:
    server.environ["WEB_CONCURRENCY"] = "3"
    server.start(*GUNICORN, "--bind", "127.0.0.1:0")
    wait_for(lambda: server.log().count("ready: ") == 3, "three workers")


def test_a_worker_that_replaces_a_killed_one_has_the_settings_of_the_others(server: Server) -> None:
    (server.folder / ".env").write_text("HEROIMG_MAX_IMAGE_BYTES=4096")
    server.gunicorn()
    (server.folder / ".env").write_text("HEROIMG_MAX_IMAGE_BYTES=five")
    for worker in server.workers():
        os.kill(worker, signal.SIGKILL)
    wait_for(lambda: server.log().count("ready: ") == 4 or server.has_ended(), "new workers")
    assert Api(server).request("GET", "/api/limits").json()["bytes"] == 4096


def test_after_a_hangup_with_wrong_settings_new_workers_have_the_old_ones(server: Server) -> None:
    (server.folder / ".env").write_text("HEROIMG_MAX_IMAGE_BYTES=4096")
    server.gunicorn()
    (server.folder / ".env").write_text("HEROIMG_MAX_IMAGE_BYTES=five")
    server.signal(signal.SIGHUP)
    wait_for(lambda: server.log().count("ready: ") == 4 or server.has_ended(), "new workers")
    assert Api(server).request("GET", "/api/limits").json()["bytes"] == 4096
    assert "the new settings are not used: " in server.log()
    assert "HEROIMG_MAX_IMAGE_BYTES must be" in server.log()


@needs_root
@pytest.mark.parametrize(
    ("cpu", "memory", "workers"), [("50000 100000", "536870912", 1), ("50000 100000", "max", 2)], ids=["512 MB", "CPU"]
)
def test_workers_follow_the_limits_of_the_container(server: Server, cpu: str, memory: str, workers: int) -> None:
    server.environ["PORT"] = str(free_port())
    server.start("unshare", "--mount", "sh", "-ec", IN_A_CONTAINER, "sh", cpu, memory, *GUNICORN)
    wait_for(lambda: server.log().count("ready: ") == workers, "the workers")
    assert len(server.workers()) == workers


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("HEROIMG_CURRENCY=eur\n".encode("utf-16"), "line 1, is not in UTF-8"),
        ("A=1\nHEROIMG_PRODUCT_NAME=Fühlbrett\n".encode("latin-1"), "line 2, is not in UTF-8"),
        (b"A=1\nHEROIMG_CURRENCY: eur\n", "line 2, is not NAME=value"),
    ],
    ids=["UTF-16", "Latin-1", "a colon"],
)
def test_an_env_file_that_cannot_be_read_stops_gunicorn_with_a_sentence(
    server: Server, content: bytes, message: str
) -> None:
    (server.folder / ".env").write_bytes(content)
    with pytest.raises(AssertionError):
        server.gunicorn()
    assert f"  - {server.folder}/.env, {message}" in server.log()
    assert "Traceback" not in server.log()


def test_dollars_in_the_env_file_are_dollars(server: Server) -> None:
    (server.folder / ".env").write_text("HEROIMG_PRODUCT_NAME=${HOME}\nHEROIMG_RETURN_PATH=/$x\n")
    with pytest.raises(AssertionError):
        server.gunicorn()
    assert "HEROIMG_RETURN_PATH must be a path, not '/$x'" in server.log()


@pytest.mark.parametrize("command", [("held",), ("check", "--json"), ("sweep",), ("run", "--port", "0")], ids=" ".join)
def test_flask_reads_the_env_file_as_gunicorn_does(server: Server, command: tuple[str, ...]) -> None:
    (server.folder / ".env").write_text("A=x\nHEROIMG_RETURN_PATH=/${A}\nHEROIMG_METRICS=yes\nHEROIMG_CURRENCY=euro\n")
    server.environ["HEROIMG_CURRENCY"] = "eur"  # the environment wins
    ended = server.flask(*command)
    assert "HEROIMG_RETURN_PATH must be a path, not '/${A}'" in ended.stdout + ended.stderr
    assert "HEROIMG_METRICS must" in ended.stdout + ended.stderr
    assert "HEROIMG_CURRENCY" not in ended.stdout + ended.stderr


def test_flask_reads_the_file_that_its_option_names(server: Server, tmp_path: Path) -> None:
    (server.folder / ".env").write_text("HEROIMG_CURRENCY=wrong\n")
    (tmp_path / "other.env").write_text("HEROIMG_CURRENCY=eur\n")
    command = [sys.executable, "-m", "flask", "-e", str(tmp_path / "other.env"), "--app", "heroimg.wsgi", "held"]
    ran = subprocess.run(command, cwd=server.folder, env=server.environ, capture_output=True, text=True, check=False)
    assert ran.stdout == "No pictures are held.\n", ran.stderr


def test_flask_reads_no_env_file_of_a_parent_folder(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HEROIMG_METRICS=yes\nHEROIMG_CURRENCY=euro\n")
    (folder := tmp_path / "heroimg").mkdir()
    server = Server(folder, {})
    assert server.flask("held").stdout == "No pictures are held.\n"
    server.environ["HEROIMG_CURRENCY"] = "euro"
    ended = server.flask("held")
    assert "HEROIMG_CURRENCY must" in ended.stderr
    assert "HEROIMG_METRICS" not in ended.stderr


def test_flask_run_reads_the_env_file_again_when_it_reloads(server: Server) -> None:
    (server.folder / ".env").write_text("HEROIMG_RETURN_PATH=/x\n")
    (server.folder / "watched.py").touch()
    command = (
        sys.executable,
        "-m",
        "flask",
        "--app",
        "heroimg.wsgi",
        "run",
        "--port",
        "0",
        "--extra-files",
        "watched.py",
    )
    server.start(*command, "--reload", listening=r"Running on (http://\S+)")
    (server.folder / ".env").write_text("HEROIMG_RETURN_PATH=/${HOME}\n")
    (server.folder / "watched.py").write_text("# changed")
    wait_for(lambda: "HEROIMG_RETURN_PATH must be a path, not '/${HOME}'" in server.log(), "the reloaded settings")


def test_without_flasks_reading_a_file_that_cannot_be_read_stops_flask_with_a_sentence(server: Server) -> None:
    (server.folder / ".env").write_bytes("HEROIMG_CURRENCY=eur\n".encode("utf-16"))
    server.environ["FLASK_SKIP_DOTENV"] = "1"
    ended = server.flask("held")
    assert f"  - {server.folder}/.env, line 1, is not in UTF-8" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_pod_with_a_kubernetes_service_of_our_name_starts(server: Server) -> None:
    server.environ |= {"HEROIMG_PORT": "tcp://10.0.0.1:3000", "HEROIMG_PORT_3000_TCP_ADDR": "10.0.0.1"}
    server.gunicorn()
    assert requests.get(f"{server.url}/healthz", timeout=LONG).status_code == 200


def test_without_an_env_file_the_message_names_the_working_folder(server: Server) -> None:
    server.environ["HEROIMG_METRICS"] = "yes"
    (server.folder / ".env").touch()
    assert "No .env was read" not in server.flask("held").stderr
    (server.folder / ".env").unlink()
    message = f"No .env was read: there is none in the working folder, {server.folder}.\n"
    assert server.flask("held").stderr.endswith(message)


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
    for message in (server.log(), ended.stderr):
        assert f"{name} is {server.environ[name]}" in message
        assert f"uid {os.geteuid()}" in message
        assert "/var/lib/heroimg/" in message
    assert ended.returncode != 0


@needs_root
def test_a_volume_of_root_is_refused_and_a_folder_below_it_works(server: Server, tmp_path: Path) -> None:
    volume, instance, user = tmp_path / "volume", tmp_path / "instance", 54321
    for folder, owner in ((volume, 0), (instance, user)):
        folder.mkdir()
        os.chown(folder, owner, user)
    volume.chmod(0o2775)  # as Kubernetes does with fsGroup
    capabilities = [f"--{kind}=-all,+dac_read_search" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    as_user = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *capabilities)
    server.environ |= {"HEROIMG_INSTANCE_DIR": str(instance), "HEROIMG_UPLOAD_DIR": str(volume)}
    assert f"belongs to the user running heroimg (uid {user})" in server.flask("held", before=as_user).stderr
    server.environ["HEROIMG_UPLOAD_DIR"] = str(volume / "pictures")
    assert server.flask("held", before=as_user).stdout == "No pictures are held.\n"


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
