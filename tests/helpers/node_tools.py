"""The programs of node_modules, run by the Node.js of the virtual environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.serving import ROOT


def run_node_tool(*command: str, cwd: Path, **environ: str) -> str:
    """Run npm or a program of node_modules and return its output; fail if the program does."""
    path = f"{ROOT / 'node_modules' / '.bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PATH": path, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
