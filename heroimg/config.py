"""The settings: the one module that reads the environment.

Every setting is read once, at start, and all faults are reported together. `.env.example` lists them for people.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from click import ClickException
from limits import parse_many

T = TypeVar("T")

# A body up to this size is read to its end, so that a browser shows our answer instead of a broken connection: 32 MB of
# picture, and 1 MB for what a form wraps around it. nginx's client_max_body_size belongs just above it.
MAX_REQUEST_BYTES = 33 * 1024 * 1024

# Stripe takes an expires_at from 30 minutes to 24 hours ahead, by its own clock; never send exactly 30 minutes.
# https://docs.stripe.com/api/checkout/sessions/create#create_checkout_session-expires_at
MIN_CHECKOUT_SECONDS = 30 * 60 + 120
MAX_CHECKOUT_SECONDS = 24 * 3600 - 120


class ConfigError(ClickException):
    """Settings that cannot work. The message lists every fault; the `flask` command prints it without a traceback."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("heroimg cannot start with these settings:\n" + "\n".join(f"  - {fault}" for fault in faults))

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Config:
    """What can be set. Seconds, bytes and the smallest currency unit, as the names say."""

    frontend_origins: tuple[str, ...] = ("http://localhost:3000",)
    stripe_secret_key: str | None = None
    stripe_publishable_key: str | None = None
    stripe_webhook_secret: str | None = None
    stripe_api_base: str | None = None
    redis_url: str | None = None
    redis_replicas: int = 0
    upload_dir: Path = Path("uploads")
    instance_dir: Path = Path("instance")
    image_seconds: int = 3600
    max_image_bytes: int = 5 * 1024 * 1024
    claim_seconds: int = 300
    return_seconds: int = 1200
    paid_seconds: int = 86400
    sweep_seconds: int = 60
    min_free_bytes: int = 256 * 1024 * 1024
    image_check: str = "decode"
    trusted_proxies: int = 0
    metrics: bool = False
    upload_rate: str = "60 per minute"
    checkout_rate: str = "60 per minute"
    product_name: str = "Hero Me Feelings - Personalized AAC Board"
    product_description: str = "AI-powered personalized feelings board with 24+ custom images"
    unit_amount: int = 200
    currency: str = "usd"
    return_path: str = "/hero-me"

    @property
    def return_url(self) -> str:
        """Where Stripe sends the customer; Stripe fills in the braces, so they stay as they are."""
        return f"{self.frontend_origins[0]}{self.return_path}?session_id={{CHECKOUT_SESSION_ID}}"

    @property
    def place(self) -> str:
        """Say where pictures wait, for the log: a folder, or a Redis without the password that its URL may have."""
        if not self.redis_url:
            return str(self.upload_dir)
        scheme, _, rest = self.redis_url.partition("?")[0].partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"

    @property
    def stripe_mode(self) -> str:
        """Say what payments are, for the log: nothing, a stand-in, or Stripe in test or live mode."""
        if not self.stripe_secret_key:
            return "nothing: STRIPE_SECRET_KEY is not set"
        return self.stripe_api_base or f"Stripe, {self.stripe_secret_key.split('_')[1]} mode"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Config:
        """Read and check every setting; an empty value counts as not set.

        :raises ConfigError: with all faults, each with an example of a good value.
        """
        read = _Reader(environ)
        config = cls(
            frontend_origins=read("FRONTEND_URL", _origins, cls.frontend_origins),
            stripe_secret_key=read("STRIPE_SECRET_KEY", _secret_key, None),
            stripe_publishable_key=read("STRIPE_PUBLISHABLE_KEY", _publishable_key, None),
            stripe_webhook_secret=read("STRIPE_WEBHOOK_SECRET", _webhook_secret, None),
            stripe_api_base=read("STRIPE_API_BASE", _origin, None),
            redis_url=read("REDIS_URL", _redis_url, None),
            redis_replicas=read("HEROIMG_REDIS_REPLICAS", _whole(0, 5), cls.redis_replicas),
            upload_dir=read("HEROIMG_UPLOAD_DIR", _folder, cls.upload_dir).absolute(),
            instance_dir=read("HEROIMG_INSTANCE_DIR", _folder, cls.instance_dir).absolute(),
            image_seconds=read("HEROIMG_IMAGE_SECONDS", _whole(1, 30 * 86400), cls.image_seconds),
            max_image_bytes=read("HEROIMG_MAX_IMAGE_BYTES", _whole(1024, 32 * 1024 * 1024), cls.max_image_bytes),
            claim_seconds=read("HEROIMG_CLAIM_SECONDS", _whole(1, 86400), cls.claim_seconds),
            return_seconds=read("HEROIMG_RETURN_SECONDS", _whole(0, 86400), cls.return_seconds),
            paid_seconds=read("HEROIMG_PAID_SECONDS", _whole(1, 30 * 86400), cls.paid_seconds),
            sweep_seconds=read("HEROIMG_SWEEP_SECONDS", _whole(0, 86400), cls.sweep_seconds),
            min_free_bytes=read("HEROIMG_MIN_FREE_BYTES", _whole(0, 2**50), cls.min_free_bytes),
            image_check=read("HEROIMG_IMAGE_CHECK", _one_of("decode", "header"), cls.image_check),
            trusted_proxies=read("HEROIMG_TRUSTED_PROXIES", _whole(0, 10), cls.trusted_proxies),
            metrics=bool(read("HEROIMG_METRICS", _whole(0, 1), 0)),
            upload_rate=read("HEROIMG_UPLOAD_RATE", _rate, cls.upload_rate, empty=""),
            checkout_rate=read("HEROIMG_CHECKOUT_RATE", _rate, cls.checkout_rate, empty=""),
            product_name=read("HEROIMG_PRODUCT_NAME", _text(250), cls.product_name),
            product_description=read("HEROIMG_PRODUCT_DESCRIPTION", _text(1000), cls.product_description),
            unit_amount=read("HEROIMG_UNIT_AMOUNT", _whole(1, 99_999_999), cls.unit_amount),
            currency=read("HEROIMG_CURRENCY", _currency, cls.currency),
            return_path=read("HEROIMG_RETURN_PATH", _path, cls.return_path),
        )
        faults = read.faults + _unknown(environ, read.names) + _contradictions(config)
        if faults:
            raise ConfigError(faults)
        return config


class _Reader:
    """Reads settings one by one and gathers what is wrong with them, so that all faults can be told at once."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.faults: list[str] = []
        self.names: list[str] = []

    def __call__(self, name: str, parse: Callable[[str], T], default: T, *, empty: T | None = None) -> T:
        """Read one setting.

        :param empty: what an empty value means, where that is not the same as the default.
        """
        self.names.append(name)
        text = self._environ.get(name)
        if text is not None and not text.strip() and empty is not None:
            return empty
        if text is None or not text.strip():
            return default
        try:
            return parse(text.strip())
        except ValueError as fault:
            self.faults.append(f"{name} {fault}")
            return default


def _unknown(environ: Mapping[str, str], names: list[str]) -> list[str]:
    """Say which settings of ours there are not: a misspelt one would go unnoticed."""
    unknown = sorted(name for name in environ if name.startswith("HEROIMG_") and name not in names)
    return [f"{name} is no setting; the nearest is {get_close_matches(name, names, 1, 0)[0]}" for name in unknown]


def _contradictions(config: Config) -> list[str]:
    """Say which settings do not go together, each fine by itself."""
    faults = []
    paying_seconds = config.image_seconds - config.return_seconds
    if config.stripe_webhook_secret and not config.stripe_secret_key:
        faults.append("STRIPE_WEBHOOK_SECRET is set and STRIPE_SECRET_KEY is not; set both, such as sk_test_...")
    keys = (config.stripe_secret_key, config.stripe_publishable_key)
    if None not in keys and len({"_live_" in str(key) for key in keys}) == 2:
        faults.append(
            "STRIPE_SECRET_KEY and STRIPE_PUBLISHABLE_KEY are of different modes; take both from test, or live"
        )
    if config.stripe_secret_key and not MIN_CHECKOUT_SECONDS <= paying_seconds <= MAX_CHECKOUT_SECONDS:
        faults.append(
            f"HEROIMG_IMAGE_SECONDS less HEROIMG_RETURN_SECONDS is {paying_seconds}, and Stripe leaves a customer "
            f"between {MIN_CHECKOUT_SECONDS} and {MAX_CHECKOUT_SECONDS} seconds to pay; for example 3600 and 1200"
        )
    if config.currency == "usd" and config.unit_amount < 50:
        faults.append(f"HEROIMG_UNIT_AMOUNT is {config.unit_amount} cents and Stripe's minimum is 50; for example 200")
    if config.stripe_api_base and "_live_" in (config.stripe_secret_key or ""):
        faults.append("STRIPE_API_BASE is for a stand-in and would be sent a live key; unset it, or use a test key")
    return faults


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}, not {text!r}")
        return int(text)

    return parse


def _text(longest: int) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if len(text) > longest:
            raise ValueError(f"has {len(text)} characters; the limit is {longest}")
        return text

    return parse


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be {' or '.join(words)}, not {text!r}")
        return text

    return parse


def _folder(text: str) -> Path:
    return Path(text).expanduser()


def _origin(text: str) -> str:
    origin = text.rstrip("/").lower()
    if not re.fullmatch(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", origin):
        raise ValueError(f"must be a scheme, a host and nothing behind, such as https://example.com, not {text!r}")
    return origin


def _origins(text: str) -> tuple[str, ...]:
    return tuple(_origin(part.strip()) for part in text.split(","))


def _path(text: str) -> str:
    if not re.fullmatch(r"/[A-Za-z0-9/._~-]*", text):
        raise ValueError(f"must be a path such as /hero-me, not {text!r}")
    return text


def _currency(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{3}", text):
        raise ValueError(f"must be a currency of three letters, such as usd, not {text!r}")
    return text.lower()


def _rate(text: str) -> str:
    try:
        is_rate = all(limit.amount > 0 and limit.get_expiry() > 0 for limit in parse_many(text))
    except ValueError:
        is_rate = False
    if not is_rate:
        raise ValueError(f"must be a rate such as '60 per minute', or empty for none, not {text!r}")
    return text


# The values of secrets are not repeated: this message ends in a log.
def _redis_url(text: str) -> str:
    if not re.match(r"(rediss?(\+cluster)?|unix)://.", text):
        raise ValueError("must start with redis://, rediss://, unix://, redis+cluster:// or rediss+cluster://")
    return text


def _secret_key(text: str) -> str:
    if not re.fullmatch(r"[sr]k_(test|live)_[A-Za-z0-9_]+", text):
        raise ValueError("must be a secret or restricted key, such as sk_test_... or rk_live_...")
    return text


def _publishable_key(text: str) -> str:
    if not re.fullmatch(r"pk_(test|live)_[A-Za-z0-9_]+", text):
        raise ValueError("must be a publishable key, such as pk_test_...")
    return text


def _webhook_secret(text: str) -> str:
    if not re.fullmatch(r"whsec_[A-Za-z0-9+/=_]+", text):
        raise ValueError("must be a webhook's signing secret, such as whsec_...")
    return text
