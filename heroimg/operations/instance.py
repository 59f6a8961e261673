"""The instance folder: files that belong to one machine."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TextIO

from heroimg.config import Config, ConfigError
from heroimg.findings import Finding, check_owner, ok, warning
from heroimg.stores.files.disk import private_opener

_SUBJECT = "instance folder"


def instance_path(config: Config, name: str) -> Path:
    """Return the path of a file in the instance folder.

    The name includes a digest of the upload folder, so that several applications can share one instance folder.
    """
    stem, dot, suffix = name.partition(".")
    digest = hashlib.sha256(os.fsencode(config.upload_dir)).hexdigest()[:12]
    return config.instance_dir / f"{stem}-{digest}{dot}{suffix}"


def open_instance_file(path: Path) -> TextIO:
    """Open a file to append to it. Create the file, with mode 0600, and its folder if they are missing.

    :raises OSError: the file cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return open(path, "a", opener=private_opener)


def make_instance_file(path: Path) -> None:
    """Create a file and its folder at start.

    :raises ConfigError: the file cannot be written.
    """
    try:
        open_instance_file(path).close()
    except OSError as error:
        raise ConfigError(
            [
                f"HEROIMG_INSTANCE_DIR is {path.parent}, which cannot be written ({error.strerror}): make it a "
                f"folder that belongs to the user running heroimg (uid {os.geteuid()}), or name another; for example "
                "/var/lib/heroimg/instance"
            ]
        ) from error


def check_instance_folder(config: Config) -> Finding:
    """Check who owns the folder, for the command `check`.

    create_app creates the folder if heroimg needs it, so a missing folder is no fault.
    """
    folder = config.instance_dir
    if not folder.exists():
        return ok(_SUBJECT, f"{folder} is not needed with these settings")
    if wrong := check_owner(_SUBJECT, folder):
        return wrong
    if folder.stat().st_mode & 0o077:
        return warning(
            _SUBJECT,
            f"{folder} is open to other users, who could lock its files and so stop the sweeps: `chmod 700 {folder}`",
        )
    return ok(_SUBJECT, f"{folder} belongs to uid {os.geteuid()} alone")
