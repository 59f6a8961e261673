"""Write `.env.example` and the table in `docs/settings.md` from `heroimg/config.py`: `make settings` runs this."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from heroimg.config import Config, settings_of

ENV_EXAMPLE = Path(__file__).parent.parent / ".env.example"
DOCUMENT = Path(__file__).with_suffix(".md")
BEGIN, END = "<!-- `make settings` writes this table -->", "<!-- end of the table -->"


def env_example(config_class: type = Config) -> str:
    """Return the whole text of `.env.example`."""
    blocks = [
        "# Copy this file to .env and change what you need. Values are the defaults. Values after a # are examples.\n"
        "# Times are in seconds, sizes in bytes."
    ]
    for setting in settings_of(config_class).values():
        comment = textwrap.fill(setting.help, 118, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        value = setting.default or ""
        line = f'{setting.name}="{value}"' if " " in value else f"{setting.name}={value}"
        blocks.append(f"{comment}\n" + (f"# {setting.name}={setting.example}" if setting.default is None else line))
    return "\n\n".join(blocks) + "\n"


def with_table(document: str, config_class: type = Config) -> str:
    """Return the document with a new table between its two markers."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for setting in settings_of(config_class).values():
        default = "none" if setting.default is None else f"`{setting.default}`"
        meaning = re.sub(r"\bdocs/(\S+\.md)", r"[\1](\1)", setting.help)
        rows.append(f"| `{setting.name}` | {default} | {meaning} |")
    before, marker, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    return "\n".join([before + marker, "", *rows, "", end + after])


if __name__ == "__main__":
    ENV_EXAMPLE.write_text(env_example())
    DOCUMENT.write_text(with_table(DOCUMENT.read_text()))
