"""Programs, files and rights that some tests need. HEROIMG_REQUIRE_ALL=1 turns a skipped test into a failed one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test if a program is missing, and name the command that installs it."""
    is_missing = shutil.which(program) is None and "HEROIMG_REQUIRE_ALL" not in os.environ
    return pytest.mark.skipif(is_missing, reason=f"needs {program}: `make system` installs it")


def require(program: str) -> None:
    """Skip a test from within a fixture if a program is missing."""
    if shutil.which(program) is None and "HEROIMG_REQUIRE_ALL" not in os.environ:
        pytest.skip(f"needs {program}: `make system` installs it")


def require_file(path: Path) -> None:
    """Skip a test from within a fixture if a file of a Debian package is missing."""
    if not path.exists() and "HEROIMG_REQUIRE_ALL" not in os.environ:
        pytest.skip(f"needs {path}: `make system` installs it")


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 and "HEROIMG_REQUIRE_ALL" not in os.environ,
    reason="needs root, to mount a small disk or be two users",
)
