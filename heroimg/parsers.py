"""Parsers of settings. Each parser turns a setting's text into its value, or raises BadValue."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import idna
from limits import RateLimitItem, parse_many


class BadValue(ValueError):
    """A value that a setting cannot have.

    :param requirement: what the value must be, as a phrase that starts with "must".
    :param got: the value, its length, or the part of it that is wrong.
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


def whole(low: int, high: int, reason: str = "") -> Callable[[str], int]:
    """Make a parser for whole numbers from `low` to `high`.

    :param reason: a phrase for the message that says why there is a bound.
    """

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise BadValue(f"must be a whole number from {low} to {high}{reason}", text)
        return int(text)

    return parse


def at_most(longest: int) -> Callable[[str], str]:
    """Make a parser for text of at most `longest` characters."""

    def parse(text: str) -> str:
        if len(text) > longest:
            raise BadValue(f"must have at most {longest} characters", len(text))
        return text

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """Make a parser for one of these words."""
    return matching("|".join(words), f"must be {' or '.join(words)}")


def switch(text: str) -> bool:
    return bool(whole(0, 1)(text))


def folder(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise BadValue("must be a folder whose ~user exists on this machine", text) from error


def origin(text: str) -> str:
    """Parse a web origin and write it as browsers send it: lower case, punycode, a short IPv6 address, no default port.

    https://url.spec.whatwg.org/#host-serializing
    """
    parts = re.fullmatch(r"(https?)://(\[[^]%]*\]|[^][\s/?#@:%]+)(?::([0-9]{1,5}))?/*", text.lower())
    host = parts and _host(parts[2])
    port = int(parts[3] or 0) if parts else 0
    if not parts or not host or port > 65535 or (parts[3] and not port):
        raise BadValue(
            "must be an origin without a path: http:// or https://, a host, and optionally a port up to 65535", text
        )
    is_default = port in (0, {"http": 80, "https": 443}[parts[1]])
    return f"{parts[1]}://{host}" + ("" if is_default else f":{port}")


def _host(host: str) -> str | None:
    """Write a host as browsers write it. Return None if the text cannot be a host."""
    try:
        if host.startswith("["):
            address = IPv6Address(host[1:-1])
            return (
                None if address.ipv4_mapped else f"[{address}]"
            )  # Python 3.13 and browsers write mapped addresses differently
        without_dot = host.removesuffix(".")
        if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", without_dot.rpartition(".")[2]):
            return str(IPv4Address(without_dot))
        labels = host.split(".")  # idna refuses the underscore, which browsers accept
        ascii_host = ".".join(label if label.isascii() else idna.encode(label, uts46=True).decode() for label in labels)
    except ValueError:  # idna raises ValueErrors too
        return None
    is_name = re.fullmatch(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", ascii_host) and len(ascii_host) <= 254
    return ascii_host if is_name else None


def origins(text: str) -> tuple[str, ...]:
    """Parse the origins of front ends. Apps made with Capacitor or Ionic have schemes of their own."""
    first, *others = (part.strip() for part in text.split(","))
    app = re.compile(r"(capacitor|ionic)://[a-z0-9.-]+")
    if app.fullmatch(first.lower()):
        raise BadValue("must start with the http:// or https:// origin that customers return to", first)
    return (origin(first), *(other.lower() if app.fullmatch(other.lower()) else origin(other) for other in others))


def currency(text: str) -> str:
    return matching("[A-Za-z]{3}", "must be a currency of three letters")(text).lower()


def rate(text: str) -> tuple[RateLimitItem, ...]:
    """Parse a rate. Shorter windows come first, so a request that they refuse does not count in longer windows."""
    if not text:
        return ()
    try:
        limits = sorted(parse_many(text), key=RateLimitItem.get_expiry)
    except ValueError:
        limits = []
    if not limits or any(limit.amount < 1 or limit.get_expiry() < 1 for limit in limits):
        raise BadValue("must be a rate, or empty for no limit", text)
    return tuple(limits)


secret_key = matching(r"[sr]k_(test|live)_[A-Za-z0-9_]+", "must be a secret or restricted key")
publishable_key = matching(r"pk_(test|live)_[A-Za-z0-9_]+", "must be a publishable key")
signing_secret = matching(r"whsec_[A-Za-z0-9+/=_]+", "must be a webhook's signing secret")
path = matching(r"/[A-Za-z0-9/._~-]*", "must be a path")
redis_url = matching(
    r"(rediss?(\+cluster)?|unix)://.+",
    "must start with redis://, rediss://, unix://, redis+cluster:// or rediss+cluster://",
)


# Prices. Amounts are in the currency's smallest unit. For currencies without decimals, such as the yen, the
# smallest unit is the currency itself.

# Stripe's minimum amounts.
# https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts
_MIN_AMOUNTS = {
    "aed": 200, "ars": 50, "aud": 50, "brl": 50, "cad": 50, "chf": 50, "cop": 50, "czk": 1500, "dkk": 250, "eur": 50,
    "gbp": 30, "hkd": 400, "huf": 17500, "idr": 50, "ils": 50, "inr": 50, "jpy": 50, "krw": 50, "mxn": 1000, "myr": 200,
    "nok": 300, "nzd": 50, "php": 50, "pln": 200, "ron": 200, "rub": 50, "sek": 300, "sgd": 50, "thb": 1000, "usd": 50,
    "zar": 50,
}  # fmt: skip

# Amounts in these currencies must be multiples of these steps. ISK and UGX have no decimals, but Stripe counts them in
# hundredths. The other currencies have three decimals, and the last decimal must be 0.
# https://docs.stripe.com/currencies#special-cases
_AMOUNT_STEPS = {"isk": 100, "ugx": 100, "bhd": 10, "jod": 10, "kwd": 10, "omr": 10, "tnd": 10}


def price_fault(amount: int, currency: str) -> str | None:
    """Return the reason, as a phrase, why Stripe would refuse a price; None if no reason is known."""
    least, step = _MIN_AMOUNTS.get(currency, 1), _AMOUNT_STEPS.get(currency, 1)
    if amount < least:
        return f"is {amount}, but Stripe's minimum for {currency} is {least}; for example {4 * least}"
    if amount % step:
        return f"is {amount}, but for {currency} Stripe accepts only multiples of {step}; for example {100 * step}"
    return None
