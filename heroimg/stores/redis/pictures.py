"""The pictures in Redis. Each picture is a hash, `heroimg:{<id>}`. After `keep`, only scripts change it."""

from __future__ import annotations

import json
from collections.abc import Callable

from heroimg.errors import ImageNotFound
from heroimg.stores.image import StoredImage, is_image_id
from heroimg.stores.redis.connection import RedisConnection
from heroimg.stores.redis.durability import Durability
from heroimg.stores.redis.scripts import STORED_NAMES

Fields = dict[str, str]


class RedisPictures:
    """Reads and changes pictures.

    :param now: returns the current time in whole Unix seconds.
    """

    def __init__(self, redis: RedisConnection, replicas: int, now: Callable[[], int]) -> None:
        self._redis = redis
        self._durability = Durability(redis, replicas)
        self._now = now

    def read(self, image_id: str) -> StoredImage:
        """Read a picture, which may have expired.

        :raises ImageNotFound: there is no such picture.
        """
        with self._redis.client() as client:
            values = client.hmget(key_of(image_id), STORED_NAMES)
        pairs = zip(STORED_NAMES, values, strict=True)
        return _image(image_id, {name: value.decode() for name, value in pairs if value is not None}, self._now())

    def change(
        self, image_id: str, script: str, *arguments: str | int, now: int | None = None
    ) -> tuple[StoredImage, Fields]:
        """Run a script on a picture, and read the fields that it returns.

        :param now: the time that the script uses. A caller that compares the picture's times with the current time must
            pass that time here. Otherwise a claim could lapse between two readings of the clock.
        :raises ImageNotFound: the script found no picture, and did nothing.
        """
        now = now or self._now()
        fields: Fields = json.loads(self._redis.run(script, key_of(image_id), now, *arguments) or "{}")
        return _image(image_id, fields, now), fields

    def change_safely(self, image_id: str, script: str, *arguments: str | int) -> StoredImage:
        """Run a script on a picture, and wait until its change cannot be lost.

        :raises ImageNotFound: there is no such picture, or it has expired.
        :raises StoreUnavailable: the change may be lost, so nothing may rely on it.
        """
        image, _ = self.change(image_id, script, *arguments)
        return self.make_safe(image_id, script, *arguments) or image

    def make_safe(self, image_id: str, script: str, *arguments: str | int) -> StoredImage | None:
        """Run a script a second time, and wait until its change cannot be lost.

        There are two reasons to run it again. A failover may have lost the change, and Redis waits only for the changes
        of the same connection.

        :returns: the picture as the script returns it; None if Redis has nothing to wait for.
        :raises ImageNotFound: there is no such picture, or it has expired.
        :raises StoreUnavailable: the change may be lost, so nothing may rely on it.
        """
        if not self._durability.is_wanted:
            return None
        now = self._now()
        reply = self._durability.run(script, key_of(image_id), now, *arguments)
        return _image(image_id, json.loads(reply or "{}"), now)

    def read_blocks(self, image_id: str, count: int) -> list[bytes]:
        """Read a picture's bytes.

        :raises ImageNotFound: the picture was removed, or expired, after it was claimed.
        """
        # Read one block at a time: redis-py buffers each answer, so one large answer would be in memory twice.
        with self._redis.client() as client:
            blocks = [client.hget(key_of(image_id), number) for number in range(count)]
        if None in blocks:
            raise ImageNotFound
        return blocks


def key_of(image_id: str) -> str:
    """Return the key of a picture.

    :raises ImageNotFound: the id has the wrong form.
    """
    if not is_image_id(image_id):
        raise ImageNotFound
    return f"heroimg:{{{image_id}}}"


def _image(image_id: str, fields: Fields, now: int) -> StoredImage:
    if "mimetype" not in fields:
        raise ImageNotFound
    return StoredImage.from_fields(image_id, fields, now)
