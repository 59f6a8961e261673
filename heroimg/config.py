"""The settings. Each is declared once, in `Config`.

Each process reads them when it starts, and reports all wrong values in one message. After a change here, run
`make settings`: it writes .env.example and the table in docs/settings.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from click import ClickException
from limits import RateLimitItem

from heroimg import parsers
from heroimg.parsers import BadValue

T = TypeVar("T")

# The largest request body: 32 MB for the largest picture that can be configured, and 1 MB for the form around it.
# nginx's client_max_body_size must be a little larger.
MAX_REQUEST_BYTES = 33 * 1024 * 1024

# Stripe accepts an expires_at from 30 minutes to 24 hours ahead, by its own clock. The margin of 120 seconds allows
# for clocks that differ. https://docs.stripe.com/api/checkout/sessions/create#create_checkout_session-expires_at
MIN_CHECKOUT_SECONDS = 30 * 60 + 120
MAX_CHECKOUT_SECONDS = 24 * 3600 - 120

# The minimum of HEROIMG_CLAIM_SECONDS. A claim may lapse up to a second early, because stores count whole seconds.
# heroimg renews a claim after at most three quarters of its time (pictures/hand_over.py). With ten seconds,
# 10 - 1 - 7.5 = 1.5 seconds are left for a slow disk or a slow Redis.
MIN_CLAIM_SECONDS = 10

# The minimum of HEROIMG_RETURN_SECONDS. The webhook of a last-minute payment must still find the picture.
MIN_RETURN_SECONDS = 60

# Kubernetes sets these variables, so they are not misspelt settings. If a Service is named heroimg, they are in every
# pod of the namespace: HEROIMG_SERVICE_HOST, HEROIMG_PORT=tcp://10.0.0.1:3000, HEROIMG_PORT_3000_TCP_ADDR. For a
# Service named heroimg-x: HEROIMG_X_PORT.
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_KUBERNETES = re.compile(
    r"HEROIMG_(\w+_)?(SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=[0-9]+|PORT=(tcp|udp|sctp)://.*"
    r"|PORT_[0-9]+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?=.*)"
)


class ConfigError(ClickException):
    """The settings have faults. The message lists all of them; the `flask` command prints it without a traceback."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        lines = ["heroimg cannot start with these settings:", *(f"  - {fault}" for fault in faults)]
        if not os.path.exists(".env"):
            lines.append(f"No .env was read: there is none in the working folder, {os.path.abspath('.')}.")
        super().__init__("\n".join(lines))

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Setting:
    """One declared setting."""

    name: str
    parse: Callable[[str], Any]
    default: str | None
    help: str
    example: str
    is_secret: bool
    can_be_empty: bool

    def read(self, environ: Mapping[str, str]) -> Any:
        """Read the setting. An empty value counts as not set, unless the setting can be empty.

        :raises BadValue: the value cannot be used.
        """
        text = environ.get(self.name, "").strip()
        if not text and not (self.can_be_empty and self.name in environ):
            return None if self.default is None else self.parse(self.default)
        return self.parse(text)

    def describe(self, fault: BadValue) -> str:
        """Describe the fault, and give an example. A secret's value is left out, because the message is logged."""
        got = "" if self.is_secret else f", not {fault.got!r}"
        return f"{self.name} {fault.requirement}{got}; for example {self.example}"


def setting(  # noqa: PLR0913 (one call declares all of a setting)
    name: str,
    parse: Callable[[str], T],
    default: str | None,
    help: str,
    *,
    example: str | None = None,
    is_secret: bool = False,
    can_be_empty: bool = False,
) -> T:
    """Declare a field of `Config` that is read from the environment.

    :param default: the default as text, parsed like a value of the environment; None if there is no default.
    :param help: sentences for .env.example and docs/settings.md. In the table there, names like docs/redis.md
        become links.
    :param example: a good value. If it is not given, the default is the example.
    :param can_be_empty: True if an empty value is parsed. If False, an empty value counts as not set.
    """
    declared = Setting(name, parse, default, help, example or default or "", is_secret, can_be_empty)
    value: Any = None if default is None else parse(default)
    declared_field: T = field(default=value, repr=not is_secret, metadata={"setting": declared})
    return declared_field


def settings_of(config_class: type) -> dict[str, Setting]:
    """List the settings of a dataclass, in order, by the names of their fields."""
    return {declared.name: declared.metadata["setting"] for declared in fields(config_class)}


@dataclass(frozen=True)
class Config:
    """All settings. Times are in seconds, sizes in bytes, the price in the currency's smallest unit."""

    # fmt: off
    frontend_origins: tuple[str, ...] = setting("FRONTEND_URL", parsers.origins, "http://localhost:3000",
        "The front end's origins, separated by commas. CORS allows only these, and customers return to the first. The "
        "others may be origins of apps, such as `capacitor://localhost`.",
        example="https://www.example.com")
    stripe_secret_key: str | None = setting("STRIPE_SECRET_KEY", parsers.secret_key, None,
        "Stripe's secret key, or a restricted key (rk_) that may write Checkout Sessions. Without it, "
        "`embedded-session` and `session-status` answer 503.", example="sk_test_...", is_secret=True)
    stripe_publishable_key: str | None = setting("STRIPE_PUBLISHABLE_KEY", parsers.publishable_key, None,
        "For the page that `make run` serves. The API does not use it.", example="pk_test_...", is_secret=True)
    stripe_webhook_secret: str | None = setting("STRIPE_WEBHOOK_SECRET", parsers.signing_secret, None,
        "Turns on the webhook, which keeps paid pictures for HEROIMG_PAID_SECONDS.",
        example="whsec_...", is_secret=True)
    stripe_api_base: str | None = setting("STRIPE_API_BASE", parsers.origin, None,
        "The address of a stand-in for Stripe's API, for tests. Not allowed with a live key.",
        example="http://localhost:12111")
    redis_url: str | None = setting("REDIS_URL", parsers.redis_url, None,
        "Keeps pictures in Redis or Valkey, 7.0 or later, instead of a folder, so that several machines can serve "
        "them. Starts with `redis://`, `rediss://` (TLS) or `unix://`. For a cluster, list some nodes: "
        "`redis+cluster://host:port,host:port` (`rediss+cluster://` with TLS). Needs requirements-redis.txt; see "
        "docs/redis.md.",
        example="redis://localhost:6379/0", is_secret=True)
    redis_replicas: int = setting("HEROIMG_REDIS_REPLICAS", parsers.whole(0, 5), "0",
        "How many replicas of REDIS_URL must have a picture before it can be paid for.")
    upload_dir: Path = setting("HEROIMG_UPLOAD_DIR", parsers.folder, "uploads",
        "The folder for pictures; unused with REDIS_URL. Keep nothing else there. In production, use an absolute path.")
    instance_dir: Path = setting("HEROIMG_INSTANCE_DIR", parsers.folder, "instance",
        "The folder for files that belong to one machine: the sweep's lock, and the counters. In production, use an "
        "absolute path.")
    image_seconds: int = setting("HEROIMG_IMAGE_SECONDS", parsers.whole(1, 30 * 86400), "3600",
        "How long a picture is kept. Opening a checkout can restart this time.")
    max_image_bytes: int = setting("HEROIMG_MAX_IMAGE_BYTES", parsers.whole(1024, 32 * 1024 * 1024), "5242880",
        "The size limit of a picture, at most 33554432. A web server in front must allow slightly more.")
    claim_seconds: int = setting("HEROIMG_CLAIM_SECONDS",
        parsers.whole(MIN_CLAIM_SECONDS, 86400, " (a slow reader's claim must be renewed before it lapses)"),
        "300",
        "How long a claim keeps other readers out after its last fetch. heroimg renews a claim while it sends the "
        "picture.")
    return_seconds: int = setting("HEROIMG_RETURN_SECONDS",
        parsers.whole(MIN_RETURN_SECONDS, 86400, " (the webhook of a last-minute payment must find the picture)"),
        "1200",
        "How long a picture is kept after its checkout ends, so that the customer can return. At least 60.")
    paid_seconds: int = setting("HEROIMG_PAID_SECONDS", parsers.whole(1, 30 * 86400), "86400",
        "How long a paid picture is kept if it is not confirmed. Needs the webhook.")
    sweep_seconds: int = setting("HEROIMG_SWEEP_SECONDS", parsers.whole(0, 86400), "60",
        "How often expired pictures are removed from the disk. Set 0 if threads are not allowed, and run "
        "`flask --app heroimg.wsgi sweep` by cron.")
    min_free_bytes: int = setting("HEROIMG_MIN_FREE_BYTES", parsers.whole(0, 2**50), "268435456",
        "Uploads are refused (507) while the disk has less free space than this.")
    image_check: str = setting("HEROIMG_IMAGE_CHECK", parsers.one_of("decode", "header"), "decode",
        "`decode` checks that a picture is whole; `header` checks only type and size.")
    trusted_proxies: int = setting("HEROIMG_TRUSTED_PROXIES", parsers.whole(0, 10), "0",
        "How many proxies in front of heroimg add an address to X-Forwarded-For. With 0, heroimg ignores this header.")
    metrics: bool = setting("HEROIMG_METRICS", parsers.switch, "0",
        "1 turns on /metrics for Prometheus. heroimg answers every client; deploy/nginx.conf allows only this "
        "machine. See docs/operations.md.")
    upload_rate: tuple[RateLimitItem, ...] = setting("HEROIMG_UPLOAD_RATE", parsers.rate, "60 per minute",
        "How many uploads one address may make; empty for no limit. Without Redis each worker counts "
        "separately, so two workers allow up to twice as many uploads.", can_be_empty=True)
    checkout_rate: tuple[RateLimitItem, ...] = setting("HEROIMG_CHECKOUT_RATE", parsers.rate, "60 per minute",
        "How many requests of each kind one address may make; empty for no limit. The three kinds are "
        "`embedded-session`, `session-status`, and requests that end an open checkout (`DELETE`, and `GET` without a "
        "claim).", can_be_empty=True)
    product_name: str = setting("HEROIMG_PRODUCT_NAME", parsers.at_most(250),
        "Hero Me Feelings - Personalized AAC Board", "The product's name in the checkout.")
    product_description: str = setting("HEROIMG_PRODUCT_DESCRIPTION", parsers.at_most(1000),
        "AI-powered personalized feelings board with 24+ custom images", "The text below the name.")
    unit_amount: int = setting("HEROIMG_UNIT_AMOUNT", parsers.whole(1, 99_999_999), "200",
        "The price in the currency's smallest unit: 200 is $2.00, but 200 yen. Stripe has minimums, such as 50 cents.")
    currency: str = setting("HEROIMG_CURRENCY", parsers.currency, "usd", "The currency of the price.")
    return_path: str = setting("HEROIMG_RETURN_PATH", parsers.path, "/hero-me",
        "The page that customers return to, with `?session_id=`.")
    # fmt: on

    @property
    def return_url(self) -> str:
        """The page that Stripe returns the customer to. Stripe replaces the placeholder in braces."""
        return f"{self.frontend_origins[0]}{self.return_path}?session_id={{CHECKOUT_SESSION_ID}}"

    @property
    def storage_location(self) -> str:
        """Name the folder or the Redis that holds the pictures, for the log. The password is left out."""
        if not self.redis_url:
            return str(self.upload_dir)
        scheme, _, rest = self.redis_url.partition("?")[0].partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"

    @property
    def stripe_mode(self) -> str:
        """Name the receiver of payments, for the log: nothing, a stand-in, or Stripe in test or live mode."""
        if not self.stripe_secret_key:
            return "nothing: STRIPE_SECRET_KEY is not set"
        return self.stripe_api_base or f"Stripe, {self.stripe_secret_key.split('_')[1]} mode"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Config:
        """Read and check every setting.

        :raises ConfigError: with all faults, each with an example of a good value.
        """
        values, faults = dict[str, Any](), list[str]()
        declared = settings_of(cls)
        for field_name, one in declared.items():
            try:
                value = one.read(environ)
            except BadValue as fault:
                faults.append(one.describe(fault))
            else:
                values[field_name] = value.absolute() if isinstance(value, Path) else value
        config = cls(**values)
        faults += _unknown(environ, [one.name for one in declared.values()]) + _contradictions(config)
        if faults:
            raise ConfigError(faults)
        return config


def _unknown(environ: Mapping[str, str], names: list[str]) -> list[str]:
    """List the variables that have our prefix but are not settings. Otherwise a misspelt setting would be ignored."""
    unknown = [name for name in sorted(environ) if name.startswith("HEROIMG_") and name not in names]
    unknown = [name for name in unknown if not _KUBERNETES.fullmatch(f"{name}={environ[name]}")]
    return [f"{name} is not a setting; did you mean {get_close_matches(name, names, 1, 0)[0]}?" for name in unknown]


def _contradictions(config: Config) -> list[str]:
    """List the faults of settings that are valid alone, but not together."""
    faults = []
    if config.stripe_webhook_secret and not config.stripe_secret_key:
        faults.append("STRIPE_WEBHOOK_SECRET is set, but STRIPE_SECRET_KEY is not: set it too; for example sk_test_...")
    keys = (config.stripe_secret_key, config.stripe_publishable_key)
    if None not in keys and len({"_live_" in str(key) for key in keys}) == 2:
        faults.append(
            "STRIPE_SECRET_KEY and STRIPE_PUBLISHABLE_KEY must be of the same mode, but one is a test key and the "
            "other a live key; use two test keys, or two live keys"
        )
    paying_seconds = config.image_seconds - config.return_seconds
    if config.stripe_secret_key and not MIN_CHECKOUT_SECONDS <= paying_seconds <= MAX_CHECKOUT_SECONDS:
        faults.append(
            f"HEROIMG_IMAGE_SECONDS minus HEROIMG_RETURN_SECONDS is {paying_seconds}, but a customer must have "
            f"between {MIN_CHECKOUT_SECONDS} and {MAX_CHECKOUT_SECONDS} seconds to pay; for example 3600 and 1200"
        )
    if fault := parsers.price_fault(config.unit_amount, config.currency):
        faults.append(f"HEROIMG_UNIT_AMOUNT {fault}")
    if "_live_" in (config.stripe_secret_key or "") and config.frontend_origins[0].startswith("http:"):
        faults.append(
            f"FRONTEND_URL starts with {config.frontend_origins[0]}, but with a live key Stripe returns customers only "
            "to https://; for example https://www.example.com"
        )
    if config.stripe_api_base and "_live_" in (config.stripe_secret_key or ""):
        faults.append("STRIPE_API_BASE is for a stand-in, which must not get a live key; unset it, or use a test key")
    return faults
