"""What some tests need of the machine. HEROIMG_REQUIRE_ALL=1 turns a skipped test into a failed one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test where a program is missing, and say how to get it."""
    is_missing = shutil.which(program) is None and "HEROIMG_REQUIRE_ALL" not in os.environ
    return pytest.mark.skipif(is_missing, reason=f"needs {program}: `make system` installs it")


def require(program: str) -> None:
    """Skip a test from within a fixture, as :func:`needs` does."""
    if shutil.which(program) is None and "HEROIMG_REQUIRE_ALL" not in os.environ:
        pytest.skip(f"needs {program}: `make system` installs it")


def require_file(path: Path) -> None:
    """Skip a test from within a fixture where a file of a Debian package is missing."""
    if not path.exists() and "HEROIMG_REQUIRE_ALL" not in os.environ:
        pytest.skip(f"needs {path}: `make system` installs it")


def run_node_tool(*command: str, cwd: Path) -> str:
    """Run a program of node_modules by the virtual environment's own Node.js; return what it says."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    tool = Path(__file__).parents[2] / "node_modules" / ".bin" / command[0]
    done = subprocess.run(
        [tool, *command[1:]], cwd=cwd, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 and "HEROIMG_REQUIRE_ALL" not in os.environ,
    reason="needs root, to mount a small disk or be two users",
)
