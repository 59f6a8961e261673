"""The files that the documentation contains. deploy/rehearse imports this too, without the virtual environment."""

from __future__ import annotations

import re
from pathlib import Path


def fenced_files(document: Path) -> dict[str, str]:
    """Return the code blocks of a document that are fenced with a language and a file's name, by these names."""
    return dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL))
