"""Limits on the requests of each client address.

Without Redis, each worker process counts separately. With Redis, all machines count together.

Rates use fixed windows. The first request opens a window; later requests count in it until it ends.

The library `limits` parses the rates, but heroimg does not use its storages. Its storage in memory starts a thread for
each request, and some hosts forbid threads. Its storages in Redis have timeouts of their own, and do not let workers
start while a cluster is down.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from ipaddress import IPv6Address, ip_address, ip_network

from flask import request

from heroimg.config import Config
from heroimg.errors import TooManyRequests
from heroimg.logs import error_once

log = logging.getLogger(__name__)

_COUNT = """
local count = redis.call('INCRBY', KEYS[1], 1)
redis.call('EXPIRE', KEYS[1], ARGV[1], 'NX')
return {count, redis.call('PTTL', KEYS[1])}
"""

# The rate for picture requests that must ask Stripe to end a checkout.
STRIPE_RATE = "stripe"

# Azure's and IIS' proxies add a port to the address: 203.0.113.3:50003, [2001:db8::1]:443.
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]+|\[(.+)\](?::[0-9]+)?")


class Rates:
    """Refuses the requests of an address that asks too often: 429 with `Retry-After`."""

    def __init__(self, config: Config) -> None:
        self._windows = _RedisWindows(config.redis_url) if config.redis_url else _MemoryWindows()
        self._trusted_proxies = config.trusted_proxies
        self._rates = {
            "temp_images.upload": config.upload_rate,
            "checkout.embedded_session": config.checkout_rate,
            "checkout.session_status": config.checkout_rate,
            STRIPE_RATE: config.checkout_rate,
        }

    def count_endpoint(self) -> None:
        """Count the current request if its endpoint has a rate. A browser's preflight does not count."""
        if request.endpoint in self._rates and request.method != "OPTIONS":
            self.count(request.endpoint)

    def check(self) -> None:
        """Check that requests can be counted. The check does not count towards any client's limit.

        :raises StoreUnavailable: Redis cannot count.
        """
        self._windows.count("check", 1)

    def count(self, name: str) -> None:
        """Count the current request.

        :raises TooManyRequests: the client's address has made too many requests.
        """
        network = _client_network(self._trusted_proxies) if self._rates[name] else ""
        for rate in self._rates[name]:
            count, seconds_left = self._windows.count(rate.key_for(name, network), rate.get_expiry())
            if count > rate.amount:
                seconds = max(1, math.ceil(seconds_left))
                sentence = (
                    f"Too many requests from your address: the limit is {rate}. Please try again in {seconds} seconds."
                )
                raise TooManyRequests(sentence, retry_after=seconds)


class _MemoryWindows:
    """The windows of this process."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._clear_at = 1000

    def count(self, key: str, seconds: int) -> tuple[int, float]:
        """Count a request in the key's window. If the key has no window, open one.

        :param seconds: how long a new window lasts.
        :returns: how many requests the window has, this one included, and in how many seconds it ends.
        """
        now = time.monotonic()
        with self._lock:
            count, end = self._windows.get(key, (0, now))
            if end <= now:
                count, end = 0, now + seconds
            self._windows[key] = (count + 1, end)
            if len(self._windows) > self._clear_at:
                self._windows = {key: window for key, window in self._windows.items() if window[1] > now}
                self._clear_at = max(1000, 2 * len(self._windows))
        return count + 1, end - now


class _RedisWindows:
    """The windows of all machines."""

    def __init__(self, redis_url: str) -> None:
        from heroimg.stores.redis.connection import RedisConnection  # noqa: PLC0415 (redis-py is an extra)

        self._redis = RedisConnection(redis_url)

    def count(self, key: str, seconds: int) -> tuple[int, float]:
        count, milliseconds = self._redis.run(_COUNT, f"heroimg:rate:{key}", seconds)
        return count, milliseconds / 1000


def _client_network(trusted_proxies: int) -> str:
    """Return the client's IPv4 address, or the /64 network of its IPv6 address (usually one household)."""
    text = request.remote_addr or ""
    if with_port := _WITH_PORT.fullmatch(text):
        text = with_port[1] or with_port[2]
    try:
        address = ip_address(text)
    except ValueError:
        advice = (
            f"HEROIMG_TRUSTED_PROXIES is {trusted_proxies}, but the proxy sends no address in X-Forwarded-For: check "
            "its settings"
            if trusted_proxies
            else "if a proxy connects by a unix socket, set HEROIMG_TRUSTED_PROXIES to 1, and let the proxy send the "
            "address in X-Forwarded-For"
        )
        error_once(
            log,
            "requests come without an address (%s), so all customers share one rate: %s",
            request.remote_addr,
            advice,
            key="no address",
        )
        return "unknown"
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((int(address), 64), strict=False))
    return str(address)
