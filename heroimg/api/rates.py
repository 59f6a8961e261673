"""Rates by address. They hold for each worker process by itself, or, with Redis, for all machines together."""

from __future__ import annotations

import logging
import math
import time
from functools import cache, wraps
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from flask import Flask, request
from flask.typing import RouteCallable
from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage, Storage
from limits.strategies import FixedWindowRateLimiter, RateLimiter

from heroimg.config import Config
from heroimg.errors import TooManyRequests

log = logging.getLogger(__name__)


def limit_rates(app: Flask, config: Config) -> None:
    """Answer 429 with `Retry-After` to an address that asks too often."""
    limiter = FixedWindowRateLimiter(_storage(config))
    rates = {
        "temp_images.upload": config.upload_rate,
        "checkout.embedded_session": config.checkout_rate,
        "checkout.session_status": config.checkout_rate,
    }
    for endpoint, rate in rates.items():
        if rate:
            # The shortest first: what it refuses is not to use up the longer ones.
            shortest_first = sorted(parse_many(rate), key=RateLimitItem.get_expiry)
            app.view_functions[endpoint] = _limited(app.view_functions[endpoint], endpoint, shortest_first, limiter)


def _storage(config: Config) -> Storage:
    if not config.redis_url:
        return MemoryStorage()
    from heroimg.api.redis_rates import RedisRates  # noqa: PLC0415 (redis-py is an extra)

    return RedisRates(config.redis_url)


def _limited(view: RouteCallable, endpoint: str, rates: list[RateLimitItem], limiter: RateLimiter) -> RouteCallable:
    @wraps(view)
    def limited() -> Any:
        network = _client_network()
        for rate in rates:
            if not limiter.hit(rate, endpoint, network):
                raise _too_many(rate, limiter.get_window_stats(rate, endpoint, network).reset_time)
        return view()

    return limited


def _too_many(rate: RateLimitItem, reset_at: float) -> TooManyRequests:
    # Rounded up, or whoever comes back then would be refused again.
    seconds = max(1, math.ceil(reset_at - time.time()))
    return TooManyRequests(
        f"Too many requests from your address: the limit is {rate}. Please try again in {seconds} seconds.",
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
