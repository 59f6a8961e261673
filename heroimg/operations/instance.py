"""The instance folder: what belongs to one machine, beside its pictures."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from heroimg.config import Config, ConfigError


def instance_path(config: Config, name: str) -> Path:
    """Name a file of this application's own: others may share the folder, and not the pictures."""
    stem, dot, suffix = name.partition(".")
    digest = hashlib.sha256(str(config.upload_dir).encode()).hexdigest()[:12]
    return config.instance_dir / f"{stem}-{digest}{dot}{suffix}"


def make_instance_file(path: Path) -> None:
    """Make a file in the folder, and the folder.

    :raises ConfigError: it cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as error:
        raise ConfigError(
            [
                f"HEROIMG_INSTANCE_DIR is {path.parent}, which cannot be written ({error.strerror}): make it a "
                f"folder that belongs to the user running heroimg (uid {os.geteuid()}), or name another; for example "
                "/var/lib/heroimg/instance"
            ]
        ) from error
