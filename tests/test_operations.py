"""docs/operations.md, as far as it can be tested without a server; `make rehearse` follows it on one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values

from heroimg.config import Config

from .front_end import snippets
from .serving import ROOT

COMMANDS = snippets(ROOT / "docs" / "operations.md")


@pytest.mark.parametrize("name", COMMANDS)
def test_shell_can_read_the_commands(name: str) -> None:
    subprocess.run(["sh", "-n"], input=COMMANDS[name], text=True, check=True)


def test_site_has_the_operator_s_names_once_they_are_put_in() -> None:
    substitute = COMMANDS["install"][COMMANDS["install"].index('sed "s|') :].partition(">")[0]
    command = f"name=a.test; front_end=https://b.test; {substitute}"
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
