"""Parsers of settings: each turns the text of a setting into its value, or raises BadValue."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from limits import parse_many


class BadValue(ValueError):
    """A value that a setting cannot have.

    :param requirement: what the value must be, as a phrase that starts with "must".
    :param got: the value, or the part of it that is wrong.
    """

    def __init__(self, requirement: str, got: object) -> None:
        self.requirement = requirement
        self.got = got


def matching(pattern: str, requirement: str) -> Callable[[str], str]:
    """Make a parser for text that a regular expression matches as a whole."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise BadValue(requirement, text)
        return text

    return parse


def whole(low: int, high: int) -> Callable[[str], int]:
    """Make a parser for whole numbers, both bounds included."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise BadValue(f"must be a whole number from {low} to {high}", text)
        return int(text)

    return parse


def at_most(longest: int) -> Callable[[str], str]:
    """Make a parser for text of at most so many characters."""

    def parse(text: str) -> str:
        if len(text) > longest:
            raise BadValue(f"must have at most {longest} characters", len(text))
        return text

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """Make a parser for some words."""
    return matching("|".join(words), f"must be {' or '.join(words)}")


def switch(text: str) -> bool:
    return bool(whole(0, 1)(text))


def folder(text: str) -> Path:
    return Path(text).expanduser()


def origin(text: str) -> str:
    """Parse an origin as browsers send it: lower case, without a path."""
    pattern = r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
    return matching(pattern, "must be http:// or https:// and a host, without a path")(text.rstrip("/").lower())


def origins(text: str) -> tuple[str, ...]:
    return tuple(origin(part.strip()) for part in text.split(","))


def currency(text: str) -> str:
    return matching("[A-Za-z]{3}", "must be a currency of three letters")(text).lower()


def rate(text: str) -> str:
    """Check a rate of the `limits` library; one that admits nothing is refused."""
    try:
        is_rate = all(limit.amount > 0 and limit.get_expiry() > 0 for limit in parse_many(text))
    except ValueError:
        is_rate = False
    if not is_rate:
        raise BadValue("must be a rate, or empty for no limit", text)
    return text


secret_key = matching(r"[sr]k_(test|live)_[A-Za-z0-9_]+", "must be a secret or restricted key")
publishable_key = matching(r"pk_(test|live)_[A-Za-z0-9_]+", "must be a publishable key")
signing_secret = matching(r"whsec_[A-Za-z0-9+/=_]+", "must be a webhook's signing secret")
path = matching(r"/[A-Za-z0-9/._~-]*", "must be a path")
redis_url = matching(
    r"(rediss?(\+cluster)?|unix)://.+",
    "must start with redis://, rediss://, unix://, redis+cluster:// or rediss+cluster://",
)
