"""Rates by address. They hold for each worker process by itself, or, with Redis, for all machines together."""

from __future__ import annotations

import logging
import time
from functools import cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, cast

from flask import Flask, request
from flask.typing import RouteCallable
from flask_limiter import Limiter, RequestLimit

from .config import Config
from .errors import TooManyRequests

log = logging.getLogger(__name__)


def limit_rates(app: Flask, config: Config) -> None:
    """Answer 429 with `Retry-After` to an address that asks too often."""
    limiter = Limiter(_client_network, app=app, on_breach=_refuse, **_storage(config))
    rates = {
        "temp_images.upload": config.upload_rate,
        "checkout.embedded_session": config.checkout_rate,
        "checkout.session_status": config.checkout_rate,
    }
    for endpoint, rate in rates.items():
        if rate:
            view = limiter.limit(rate)(app.view_functions[endpoint])
            app.view_functions[endpoint] = cast(RouteCallable, view)


def _storage(config: Config) -> dict[str, Any]:
    if not config.redis_url:
        return {"storage_uri": "memory://"}
    from .redis_rates import SCHEME  # noqa: PLC0415 (redis-py is an extra)

    return {"storage_uri": f"{SCHEME}://", "storage_options": {"redis_url": config.redis_url}}


def _refuse(breached: RequestLimit) -> None:
    seconds = max(1, breached.reset_at - int(time.time()))
    raise TooManyRequests(
        f"Too many requests from your address: the limit is {breached.limit}. Please try again in {seconds} seconds.",
        retry_after=seconds,
    )


@cache
def _tell_operator() -> None:
    log.error(
        "requests come without an address, so all customers are counted as one: where a proxy hands them over by a "
        "unix socket, set HEROIMG_TRUSTED_PROXIES to 1"
    )


def _client_network() -> str:
    """Count an IPv6 customer by the /64 that a provider gives to one household, an IPv4 one by the address."""
    try:
        address = ip_address(request.remote_addr or "")
    except ValueError:  # a unix socket has none
        _tell_operator()
        return "unknown"
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((address, 64), strict=False))
    return str(address)
