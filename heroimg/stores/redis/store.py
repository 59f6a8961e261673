"""RedisStore: pictures in Redis, or Valkey, for workers on any number of machines.

A picture is one hash (pictures.py). Its fields are:

    mimetype, size, timestamp, ...          what heroimg/stores/image.py declares; times in Unix seconds
    blocks                                  the number of blocks
    0, 1, 2, ...                            the blocks, which are the picture's bytes

While a picture arrives, it is in the worker's memory. Then one transaction writes the hash and its time to live. So no
picture is half-written, and Redis removes pictures that are not fetched. Redis counts the time to live itself, so its
clock need not agree with ours. Every change of a picture is one script (scripts.py). When the worker's clock reaches
`expires`, the picture cannot be retrieved any more, even if Redis still has it.

After a picture with a complete checkout has expired, it stays in Redis for a grace period, so that a sweep can report
it to the operator. Sweeps use a set of due ids (due.py, sweeping.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO, cast

from redis.exceptions import RedisError

from heroimg.config import Config
from heroimg.errors import ImageNotFound, StoreUnavailable
from heroimg.findings import Finding
from heroimg.stores.base import Claimed, Clock, Held, ImageStore, Staged, Swept
from heroimg.stores.image import StoredImage, new_image_id, new_record
from heroimg.stores.redis import scripts
from heroimg.stores.redis.blocks import BlocksReader, StagedBytes
from heroimg.stores.redis.connection import RedisConnection
from heroimg.stores.redis.due import DueIds
from heroimg.stores.redis.pictures import RedisPictures, key_of
from heroimg.stores.redis.setup import check_redis, denials, risks
from heroimg.stores.redis.sweeping import DueSweep

# Before `note` writes `sessions_to_end`, it adds the picture's id to the due ids. The id is due this many seconds
# later, so that no sweep looks at the picture before the sessions are noted.
_NOTING_SECONDS = 5


class RedisStore(ImageStore):
    """Pictures in the Redis that `config.redis_url` names."""

    is_shared = True

    def __init__(self, config: Config, clock: Clock) -> None:
        self._image_seconds = config.image_seconds
        self._claim_seconds = config.claim_seconds
        self._clock = clock
        self._replicas = config.redis_replicas
        self._redis = RedisConnection(config.redis_url or "")
        self._pictures = RedisPictures(self._redis, config.redis_replicas, self._now)
        self._due = DueIds(self._redis)

    def stage(self) -> Staged:
        return StagedBytes()

    def keep(self, staged: Staged, media_type: str) -> StoredImage:
        part = cast(StagedBytes, staged)
        image_id, now, blocks = new_image_id(), self._now(), part.blocks()
        size = sum(map(len, blocks))
        fields = new_record(media_type, size, now, self._image_seconds) | {"blocks": len(blocks)}
        items = [item for field in [*fields.items(), *enumerate(blocks)] for item in field]
        with self._redis.client() as client, client.pipeline(transaction=True) as pipe:
            pipe.hset(key_of(image_id), items=items)
            pipe.expire(key_of(image_id), self._image_seconds)
            pipe.execute()
        return StoredImage.from_fields(image_id, fields, now)

    def get(self, image_id: str) -> StoredImage:
        image = self._pictures.read(image_id)
        if image.expires <= self._now():
            raise ImageNotFound
        return image

    def pin(self, image_id: str, until: int, renewed: int = 0) -> StoredImage:
        return self._pictures.change_safely(image_id, scripts.PIN, until, renewed)

    def note(self, image_id: str, change: Callable[[StoredImage], StoredImage]) -> tuple[StoredImage, StoredImage]:
        original = None
        while True:
            before = self.get(image_id)
            after = change(before)
            if after.checkout_complete or after.sessions_to_end:
                due = self._now() + _NOTING_SECONDS if after.sessions_to_end else before.expires
                self._due.add(image_id, min(due, before.expires))
            old, new = before.checkout_fields(), after.checkout_fields()
            arguments = (*new, *old.values(), *new.values())
            # If another process has changed the fields, NOTE changes nothing. NOTE returns the current picture.
            noted, _ = self._pictures.change(image_id, scripts.NOTE, *arguments)
            if noted.checkout_fields() != new:
                continue  # read the picture again
            original = original or before  # in a later round, `before` may have our own change
            safe = self._pictures.make_safe(image_id, scripts.NOTE, *arguments)
            if safe is None or safe.checkout_fields() == new:
                return original, safe or noted  # not `after`: the claim may have changed since `before` was read

    def claim(self, image_id: str, token: str) -> Claimed:
        now = self._now()
        image, fields = self._pictures.change(image_id, scripts.CLAIM, token, now + self._claim_seconds, now=now)
        image.refuse_others(token, now)
        return Claimed(image, cast(BinaryIO, BlocksReader(self._pictures.read_blocks(image_id, int(fields["blocks"])))))

    def renew(self, image_id: str, token: str) -> None:
        now = self._now()
        image, fields = self._pictures.change(image_id, scripts.RENEW, token, now + self._claim_seconds, now=now)
        image.refuse_others(token, now)
        if fields.get("claim_token") != token:
            raise ImageNotFound

    def release(self, image_id: str, token: str) -> None:
        with suppress(ImageNotFound):
            self._pictures.change(image_id, scripts.RELEASE, token)

    def remove(self, image_id: str, token: str | None = None) -> StoredImage | None:
        now = self._now()
        try:
            image, _ = self._pictures.change(image_id, scripts.REMOVE, token or "", now=now)
        except ImageNotFound:
            return None
        image.refuse_others(token, now)
        if image.checkout_complete:
            self._due.remove(image_id)
        return image

    def sweep(self, seconds: float | None = None) -> Swept:
        return DueSweep(self._pictures, self._due, self._now).run(seconds)

    def held(self) -> Held:
        pictures = [(image.size, image.stored) for image in self.images()]
        oldest = min((stored for _, stored in pictures), default=None)
        return Held(len(pictures), sum(size for size, _ in pictures), oldest)

    def images(self) -> Iterator[StoredImage]:
        with self._redis.client() as client:
            for key in client.scan_iter(match="heroimg:{*}", count=1000):
                with suppress(ImageNotFound):
                    yield self.get(key.decode()[len("heroimg:{") : -1])

    def check(self) -> None:
        if refused := denials(self._redis, self._replicas):
            raise StoreUnavailable from RedisError("Redis: " + "; ".join(refused))

    def warnings(self) -> list[str]:
        return risks(self._redis)

    def check_setup(self) -> Iterator[Finding]:
        return check_redis(self._redis, self._replicas)

    def _now(self) -> int:
        return int(self._clock())
