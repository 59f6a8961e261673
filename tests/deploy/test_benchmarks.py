"""The benchmarks measure what they say, and docs/performance.md has what they measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import speed
from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.serving import ROOT, wait_for

REPORT: dict[str, Any] = json.loads((ROOT / "docs" / "performance.json").read_text())
DOCUMENT = (ROOT / "docs" / "performance.md").read_text()


def load(api: Api, picture: Path) -> subprocess.CompletedProcess[str]:
    port = api.server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "benchmarks.load", "form", "--port", port, "--clients", "2", "--journeys", "5"]
    return subprocess.run(
        [*command, "--picture", str(picture)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_load_generator_makes_whole_journeys_and_times_each(api: Api, tmp_path: Path) -> None:
    (picture := tmp_path / "photo.jpg").write_bytes(pictures.jpeg(1))
    told = json.loads(load(api, picture).stdout)
    assert [len(times) for times in told["journeys"]] == [2] * 5
    wait_for(lambda: api.server.log().count(" handed over ") == 5, "all to be handed over")
    assert api.server.names() == []


def test_the_load_generator_fails_where_a_request_does(api: Api, tmp_path: Path) -> None:
    (picture := tmp_path / "photo.jpg").write_bytes(b"no picture")
    done = load(api, picture)
    assert done.returncode == 1
    assert "415" in done.stderr


@pytest.mark.parametrize("cell", REPORT["speed"])
def test_the_document_has_the_measured_speed(cell: str) -> None:
    assert "\n".join(speed.lines_of_speed(cell, REPORT["speed"][cell])) in DOCUMENT


def test_the_document_has_the_measured_memory_and_losses() -> None:
    assert "\n".join(speed.lines_of_memory(REPORT["memory"], REPORT["lost"])) in DOCUMENT
    assert REPORT["machine"] in DOCUMENT


def test_the_plot_is_of_the_measured_figures() -> None:
    drawn = (ROOT / "docs" / "performance.svg").read_text()
    assert drawn == speed.plot(REPORT["speed"], REPORT["memory"])
    ElementTree.fromstring(drawn)
