"""The sorted set `heroimg:due`: the ids of pictures that a sweep must look at, sorted by the instant when they are due.

`RedisStore.note` adds an id before it stores a complete checkout or sessions to end. An id is removed after its picture
is gone. So the set always has every due picture. It may also have a picture that is not due or is gone, which does no
harm. In a cluster, the set and most pictures are on different nodes, so no script uses both.
"""

from __future__ import annotations

from heroimg.stores.redis.connection import RedisConnection

_KEY = "heroimg:due"
_PAGE = 100

# These are scripts, because a full server refuses a plain ZADD.
_ADD = "return redis.call('ZADD', KEYS[1], 'LT', ARGV[1], ARGV[2])"

# After this process read the id, another process may have removed or postponed it.
_POSTPONE = """
local due = redis.call('ZSCORE', KEYS[1], ARGV[2])
if due and tonumber(due) <= tonumber(ARGV[3]) then redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2]) end
"""


class DueIds:
    """The ids in the set."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis

    def add(self, image_id: str, due: int) -> None:
        """Add an id. If the set has it already, the earlier of the two instants counts."""
        self._redis.run(_ADD, _KEY, due, image_id)

    def postpone(self, image_id: str, due: int, now: int) -> None:
        """If an id is due at `now`, postpone it to `due`."""
        self._redis.run(_POSTPONE, _KEY, due, image_id, now)

    def remove(self, image_id: str) -> None:
        """Remove the id of a picture that is gone."""
        with self._redis.client() as client:
            client.zrem(_KEY, image_id)

    def first(self, now: int) -> list[str]:
        """List the first ids that are due."""
        with self._redis.client() as client:
            ids = client.zrange(_KEY, "-inf", now, byscore=True, offset=0, num=_PAGE)
        return [image_id.decode() for image_id in ids]
