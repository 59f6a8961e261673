"""Rates counted in Redis, so that they hold over all machines."""

from __future__ import annotations

import time

from limits.storage import Storage

from heroimg.stores.redis.connection import RedisConnection

_COUNT = """
local count = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('TTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return count
"""


class RedisRates(Storage):
    """Fixed windows, one key each.

    The storages that come with limits would keep the workers from starting where a cluster is not there yet, and would
    have timeouts of their own.
    """

    STORAGE_SCHEME = None

    def __init__(self, redis_url: str) -> None:
        super().__init__()
        self._redis = RedisConnection(redis_url)

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        return ()  # they are HeroimgErrors by now

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        return int(self._redis.run(_COUNT, _key(key), amount, int(expiry)))

    def get(self, key: str) -> int:
        with self._redis.client() as client:
            return int(client.get(_key(key)) or 0)

    def get_expiry(self, key: str) -> float:
        with self._redis.client() as client:
            return time.time() + max(0, int(client.pttl(_key(key)))) / 1000

    def check(self) -> bool:
        with self._redis.client() as client:
            return bool(client.ping())

    def clear(self, key: str) -> None:
        with self._redis.client() as client:
            client.delete(_key(key))

    def reset(self) -> int | None:
        raise NotImplementedError


def _key(key: str) -> str:
    return f"heroimg:rate:{key}"
