"""The results of the command `check`: one line for each thing that was checked.

Stores, payments and operations each check their own part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from heroimg.logs import redacted


class Finding(NamedTuple):
    """One line of the check.

    :param subject: the thing that was checked, such as "folder" or "stripe".
    :param sentence: the result. The sentence of a warning or a fault also says what to change.
    """

    state: Literal["ok", "warning", "fault"]
    subject: str
    sentence: str


def ok(subject: str, sentence: str) -> Finding:
    """Report that something works."""
    return Finding("ok", subject, redacted(sentence))


def warning(subject: str, sentence: str) -> Finding:
    """Report a risk, or something that could not be checked."""
    return Finding("warning", subject, redacted(sentence))


def fault(subject: str, sentence: str) -> Finding:
    """Report something that an operator must fix before customers come."""
    return Finding("fault", subject, redacted(sentence))


# Checks one part of the set-up. The argument is heroimg's public address, if it is known.
Check = Callable[[str | None], Iterable[Finding]]


def check_owner(subject: str, folder: str | os.PathLike[str]) -> Finding | None:
    """Report a fault if a folder does not belong to the user that runs the check.

    The check must run as the user that runs heroimg.
    """
    owner, user = os.stat(folder).st_uid, os.geteuid()
    if owner == user:
        return None
    return fault(
        subject,
        f"{folder} belongs to uid {owner}, and this command runs as uid {user}: run it as the user that runs heroimg, "
        f"or give that user the folder, for example by `chown -R heroimg: {folder}`",
    )
