"""The file `.env` in the working folder, for settings that are not in the environment."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import suppress
from io import StringIO
from pathlib import Path

from dotenv import find_dotenv
from dotenv.parser import parse_stream

from heroimg.config import ConfigError

# The values that gunicorn's master has read and checked. A worker that replaces a killed worker uses these values,
# because the file may have changed and may now be wrong.
_checked: dict[str, str] | None = None


def env_file_values() -> dict[str, str]:
    """Return the values that gunicorn's master has checked. Without gunicorn, read the file.

    :raises ConfigError: as `read_env_file`.
    """
    return read_env_file() if _checked is None else _checked


def give_to_workers(values: dict[str, str]) -> None:
    """Let the workers that start from now on use these values."""
    global _checked  # noqa: PLW0603
    _checked = values


def read_env_file(path: Path = Path(".env")) -> dict[str, str]:
    """Read a file of lines such as NAME=value. `$` in a value is not expanded.

    A line that is not NAME=value is an error. If the line were ignored, a default would apply, and heroimg could sell
    the wrong product. The messages show only line numbers, because lines may contain secrets.

    :returns: the values by their names; none if there is no file.
    :raises ConfigError: the file cannot be read, is not in UTF-8, or has lines that are not NAME=value.
    """
    path = path.absolute()
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError([f"{path} cannot be read ({error.strerror})"]) from error
    try:
        text = content.decode("utf-8-sig")  # some Windows editors put a byte order mark first
    except UnicodeDecodeError as error:
        raise _not_utf8(path, content[: error.start]) from error
    if "\0" in text:  # UTF-16 without a byte order mark
        raise _not_utf8(path, content[: content.index(b"\0")])
    values, faults = dict[str, str](), list[str]()
    for binding in parse_stream(StringIO(text)):
        if binding.value is not None and binding.key is not None and not binding.error:
            values[binding.key] = binding.value
        elif binding.key is not None or binding.error:
            start = binding.original.string
            line = binding.original.line + start[: len(start) - len(start.lstrip())].count("\n")
            faults.append(f"{path}, line {line}, is not NAME=value: an equals sign or a quotation mark may be missing")
    if faults:
        raise ConfigError(faults)
    return values


def forget_flasks_reading(environ: MutableMapping[str, str]) -> None:
    """Remove from the environment what the `flask` command has read from a `.env`.

    `flask` expands `${HOME}`, and may read the file of a parent folder. So a command could get other settings than the
    server. `flask` sets FLASK_RUN_FROM_CLI just before it reads the file, and `environ` lists variables in the order in
    which they were set. So only variables after FLASK_RUN_FROM_CLI are removed.
    """
    names = list(environ)
    if "FLASK_RUN_FROM_CLI" not in names:
        return
    set_since = [name for name in names[names.index("FLASK_RUN_FROM_CLI") :] if not name.startswith("FLASK_")]
    # If we cannot read the file, Flask has not read it either.
    with suppress(OSError, UnicodeDecodeError), open(find_dotenv(usecwd=True), encoding="utf-8") as file:
        for binding in parse_stream(file):
            if binding.key in set_since:
                environ.pop(binding.key, None)  # a file may have a name twice


def _not_utf8(path: Path, before: bytes) -> ConfigError:
    line = before.count(b"\n") + 1
    return ConfigError([f"{path}, line {line}, is not in UTF-8: save the file in that encoding"])
