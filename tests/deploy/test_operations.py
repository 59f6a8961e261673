"""Check docs/operations.md as far as that is possible without a server; `make rehearse` follows it on one."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dotenv import dotenv_values

from heroimg.config import Config
from heroimg.operations.counters import Count, Counters
from tests.helpers.fenced_files import fenced_files
from tests.helpers.needed_programs import needs
from tests.helpers.serving import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text()
COMMANDS = fenced_files(ROOT / "docs" / "operations.md")


@pytest.mark.parametrize("name", COMMANDS)
def test_shell_can_read_the_commands(name: str) -> None:
    subprocess.run(["sh", "-n"], input=COMMANDS[name], text=True, check=True)


def test_site_has_the_operator_s_names_once_they_are_put_in() -> None:
    substitute = [line.partition(">")[0] for line in COMMANDS["install"].splitlines() if line.startswith('sed "s|')]
    command = "\n".join(["name=a.test; front_end=https://b.test", *substitute])
    site = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "example.com" not in site
    assert site.count("server_name a.test;") == 2
    assert '"https://b.test" $http_origin;' in site


def test_settings_of_the_install_work(tmp_path: Path) -> None:
    settings = tmp_path / ".env"
    settings.write_text(
        COMMANDS["install"].partition("<<END\n")[2].partition("END\n")[0].replace("$front_end", "https://b.test")
    )
    config = Config.from_env({name: value or "" for name, value in dotenv_values(settings).items()})
    assert config.frontend_origins == ("https://b.test",)
    assert config.upload_dir.is_relative_to("/var/lib/heroimg")
    assert config.instance_dir.is_relative_to("/var/lib/heroimg")


def test_commands_that_are_pasted_twice_can_still_be_backed_out(tmp_path: Path) -> None:
    (tmp_path / "heroimg").symlink_to("heroimg-old")
    switch = COMMANDS["switch"].partition("cd /usr/local/src/heroimg\n")[0]
    back_out = COMMANDS["back-out"].partition("systemctl")[0]
    for commands, version in ((switch * 2, "heroimg-new"), (back_out, "heroimg-old")):
        script = f"version=heroimg-new\n{commands}".replace("/opt", str(tmp_path))
        subprocess.run(["sh", "-e", "-c", script], check=True)
        assert (tmp_path / "heroimg").readlink() == Path(version)


def log_lines() -> Iterator[str]:
    """Find the lines that heroimg logs, in the source of all its modules."""
    for module in (ROOT / "heroimg").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                text = next(
                    (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)), ""
                )
                name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                methods = ("info", "warning", "error", "exception", "log")
                if name in (methods if isinstance(node.func, ast.Attribute) else ("error_once",)) and text:
                    yield text


@pytest.mark.parametrize("line", sorted(set(log_lines())))
def test_every_line_of_the_log_is_on_the_page(line: str) -> None:
    assert max(re.split(r"%[.\d]*[sdr]", line.partition(": ")[0]), key=len).strip() in " ".join(PAGE.split())


def test_every_metric_is_on_the_page() -> None:
    gauges = ["held_images", "held_bytes", "oldest_age_seconds", "last_sweep_timestamp_seconds"]
    gauges += ["free_bytes", "free_inodes", "clock_ahead_seconds"]
    figures = vars(Counters()).items()
    names = [f"{name}_total" if isinstance(figure, Count) else name for name, figure in figures]
    assert [name for name in [*names, *gauges] if f"`heroimg_{name}" not in PAGE] == []


@needs("systemd-analyze")
def test_the_unit_is_valid_and_as_closed_as_the_page_says(tmp_path: Path) -> None:
    for path in [*(ROOT / "deploy").glob("*.service"), *(ROOT / "deploy").glob("*.socket")]:
        unit = path.read_text().replace("/opt/heroimg/bin", str(Path(sys.executable).parent))
        (tmp_path / path.name).write_text(unit)
    verified = subprocess.run(
        ["systemd-analyze", "verify", *tmp_path.iterdir()], capture_output=True, text=True, check=True
    )
    assert "heroimg" not in verified.stderr
    security = ["systemd-analyze", "security", "--offline=true", str(tmp_path / "heroimg.service")]
    asked = subprocess.run(security, capture_output=True, text=True, check=True)
    score = re.search(r"Overall exposure level for heroimg.service: ([\d.]+) OK", asked.stdout)
    assert score
    assert f"`systemd-analyze security --offline=true deploy/heroimg.service` says {score[1]}." in PAGE
