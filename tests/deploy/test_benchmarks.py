"""The benchmarks' load generator, and the plot in docs/ that `make bench` made."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.serving import ROOT, wait_for


def load(api: Api, picture: Path) -> subprocess.CompletedProcess[str]:
    port = api.server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "benchmarks.load", "form", "--port", port, "--clients", "2", "--journeys", "5"]
    return subprocess.run(
        [*command, "--picture", str(picture)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_load_generator_makes_whole_journeys_and_times_each(api: Api, tmp_path: Path) -> None:
    (picture := tmp_path / "photo.jpg").write_bytes(pictures.jpeg(1))
    report = json.loads(load(api, picture).stdout)
    assert [len(times) for times in report["journeys"]] == [2] * 5
    wait_for(lambda: api.server.log().count(" handed over ") == 5, "all pictures to be handed over")
    assert api.server.names() == []


def test_load_generator_fails_if_a_request_does(api: Api, tmp_path: Path) -> None:
    (picture := tmp_path / "photo.jpg").write_bytes(b"no picture")
    done = load(api, picture)
    assert done.returncode == 1
    assert "415" in done.stderr


def test_plot_has_the_figures_of_the_page() -> None:
    plot = ElementTree.parse(ROOT / "docs" / "performance.svg")
    rows = (ROOT / "docs" / "performance.md").read_text().replace(",", "").splitlines()
    texts = ["".join(text.itertext()).replace(",", "") for text in plot.iter("{http://www.w3.org/2000/svg}text")]
    bars = [(name, float(figure)) for name, figure in pairwise(texts) if figure.replace(".", "").isdecimal()]
    assert len(bars) == 10
    for name, figure in bars:
        assert any(name in row and figure in map(float, re.findall(r"\d+(?:\.\d+)?", row)) for row in rows), name
