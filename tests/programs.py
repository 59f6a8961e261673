"""What some tests need of the machine. HEROIMG_REQUIRE_ALL=1 turns a skipped test into a failed one."""

from __future__ import annotations

import os
import shutil

import pytest


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test where a program is missing, and say how to get it."""
    is_missing = shutil.which(program) is None and "HEROIMG_REQUIRE_ALL" not in os.environ
    return pytest.mark.skipif(is_missing, reason=f"needs {program}: `make system` installs it")


def require(program: str) -> None:
    """Skip a test from within a fixture, as :func:`needs` does."""
    if shutil.which(program) is None and "HEROIMG_REQUIRE_ALL" not in os.environ:
        pytest.skip(f"needs {program}: `make system` installs it")


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 and "HEROIMG_REQUIRE_ALL" not in os.environ, reason="needs root, to mount a small disk"
)
