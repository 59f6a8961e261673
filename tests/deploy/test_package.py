"""`pip install .` gives a package that works by itself, with everything that belongs to it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.serving import Server, copy_repository


def test_the_built_package_has_every_file_and_serves(tmp_path: Path) -> None:
    source = tmp_path / "source"
    tracked = copy_repository(source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("heroimg-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if not name.startswith("heroimg-")}
        archive.extractall(tmp_path / "installed")
    assert packed == {name for name in tracked if name.startswith("heroimg/")}

    server = Server(tmp_path, {"PYTHONPATH": str(tmp_path / "installed")})
    gunicorn = (sys.executable, "-m", "gunicorn", "-c", "python:heroimg.gunicorn_conf", "--bind", "127.0.0.1:0")
    server.start(*gunicorn)
    try:
        image_id = Api(server).keep(pictures.jpeg())
        assert Api(server).retrieve(image_id).content == pictures.jpeg()
        assert "ready: " in server.log()
    finally:
        server.stop()
