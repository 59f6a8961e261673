"""The results of `flask --app wsgi check`: one line for each thing that was checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from heroimg.logs import redacted


class Finding(NamedTuple):
    """One line of the check.

    :param subject: the thing that was checked, such as "folder" or "stripe".
    :param sentence: the result. For a warning or a fault, it also names the setting to change and its new value.
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
