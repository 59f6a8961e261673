"""The pictures that a sweep must look at: the sorted set `heroimg:due` of ids, by the instant at which they are due.

An id is added before the change that makes its picture due, and removed after the picture is gone. A crash between the
two leaves an id that means nothing, and never a picture that no sweep looks at. In a cluster the set and most pictures
are on different nodes, so no script uses both.
"""

from __future__ import annotations

from heroimg.stores.redis.connection import RedisConnection

_KEY = "heroimg:due"
_PAGE = 100

# A script, because plain commands must not write into a full server.
_ADD = "return redis.call('ZADD', KEYS[1], unpack(ARGV))"


class DueIds:
    """The ids in the set."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis

    def add(self, image_id: str, due: int) -> None:
        """Add an id, or move it."""
        self._redis.run(_ADD, _KEY, due, image_id)

    def move(self, image_id: str, due: int) -> None:
        """Move an id, unless another process has removed it."""
        self._redis.run(_ADD, _KEY, "XX", due, image_id)

    def remove(self, image_id: str) -> None:
        """Remove an id."""
        with self._redis.client() as client:
            client.zrem(_KEY, image_id)

    def first(self, now: int) -> list[str]:
        """List the first ids that are due."""
        with self._redis.client() as client:
            ids = client.zrange(_KEY, "-inf", now, byscore=True, offset=0, num=_PAGE)
        return [image_id.decode() for image_id in ids]
