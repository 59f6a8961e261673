"""Starting: with settings and folders that cannot work the servers end, and say why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.bad_settings import BAD
from tests.helpers.serving import Server


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
    for message in (server.log(), ended.stderr):
        assert f"{name} is {server.environ[name]}" in message
        assert f"uid {os.geteuid()}" in message
        assert "/var/lib/heroimg/" in message
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
