"""RedisStore: pictures in Redis, or Valkey, for workers on any number of machines.

A picture is one hash, `heroimg:{<id>}`. The braces make a cluster keep all of it on one node. Its fields are:

    mimetype, size, timestamp, ...          what heroimg/stores/image.py declares; times in Unix seconds
    blocks                                  how many of the fields 0, 1, 2, ... hold its bytes, as they are

While a picture arrives, it is in the worker's memory. Then one transaction writes all of the hash and the instant at
which Redis is to remove it. So nothing is half-written, and Redis removes what nobody fetched. Every change is one
script (scripts.py). The workers' clock decides: from its `expires` on a picture cannot be retrieved, even if Redis
still has it.

A picture that was paid for stays for a grace period after its time, until a sweep reports it to the operator. Sweeps
find it in a set of due ids (due.py). Of several sweeps at once, the one whose script removes the picture reports it.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, BinaryIO, cast

from heroimg.config import Config
from heroimg.errors import ImageNotFound, StoreUnavailable
from heroimg.findings import Finding
from heroimg.stores.base import Claimed, Clock, Expired, Held, ImageStore, Staged, StoredImage, Swept
from heroimg.stores.image import is_image_id, new_image_id
from heroimg.stores.redis import scripts
from heroimg.stores.redis.blocks import BlocksReader, StagedBytes
from heroimg.stores.redis.connection import RedisConnection
from heroimg.stores.redis.due import DueIds
from heroimg.stores.redis.durability import Durability
from heroimg.stores.redis.setup import check_redis

_PICTURE_KEY = re.compile(rb"heroimg:\{[0-9a-f]{32}\}")

# A plain command: unlike the scripts it must not write into a full server, because it checks for that.
_PROBE = ("SET", "heroimg:probe", "", "EX", 60)

# How long a picture with sessions to end is left alone after a sweep has returned it.
_RETRY_SECONDS = 60

Fields = dict[str, str]


class RedisStore(ImageStore):
    """Pictures in the Redis that `config.redis_url` names."""

    is_shared = True

    def __init__(self, config: Config, clock: Clock) -> None:
        self._image_seconds = config.image_seconds
        self._claim_seconds = config.claim_seconds
        self._clock = clock
        self._replicas = config.redis_replicas
        self._redis = RedisConnection(config.redis_url or "")
        self._due = DueIds(self._redis)
        self._durability = Durability(self._redis, config.redis_replicas)

    def stage(self) -> Staged:
        return StagedBytes()

    def keep(self, staged: Staged, media_type: str) -> StoredImage:
        part = cast(StagedBytes, staged)
        image_id, now, blocks = new_image_id(), self._now(), part.blocks()
        fields = {
            "mimetype": media_type,
            "size": sum(map(len, blocks)),
            "timestamp": now,
            "expires": now + self._image_seconds,
            "blocks": len(blocks),
        }
        items = [item for field in [*fields.items(), *enumerate(blocks)] for item in field]
        with self._redis.client() as client, client.pipeline(transaction=True) as pipe:
            pipe.hset(_key(image_id), items=items)
            pipe.expireat(_key(image_id), fields["expires"])
            pipe.execute()
        return StoredImage.from_fields(image_id, fields, now)

    def get(self, image_id: str) -> StoredImage:
        if not is_image_id(image_id):
            raise ImageNotFound
        with self._redis.client() as client:
            values = client.hmget(_key(image_id), scripts.STORED_NAMES)
        now = self._now()
        pairs = zip(scripts.STORED_NAMES, values, strict=True)
        image = _image_from_fields(image_id, {name: value.decode() for name, value in pairs if value is not None}, now)
        if image.expires <= now:
            raise ImageNotFound
        return image

    def pin(self, image_id: str, until: int, renewed: int = 0) -> StoredImage:
        return self._change_safely(image_id, scripts.PIN, until, renewed)

    def note(self, image_id: str, change: Callable[[StoredImage], StoredImage]) -> tuple[StoredImage, StoredImage]:
        while True:
            before = self.get(image_id)
            after = change(before)
            if after.checkout_complete or after.sessions_to_end:
                self._due.add(image_id, self._now() if after.sessions_to_end else before.expires)
            old, new = before.checkout_fields(), after.checkout_fields()
            noted = self._change_safely(image_id, scripts.NOTE, *new, *old.values(), *new.values())
            if noted.checkout_fields() == new:
                return before, after

    def claim(self, image_id: str, token: str) -> Claimed:
        now = self._now()
        image, fields = self._change(image_id, scripts.CLAIM, token, now + self._claim_seconds, now=now)
        image.refuse_others(token, now)
        return Claimed(image, cast(BinaryIO, BlocksReader(self._read_blocks(image_id, int(fields["blocks"])))))

    def renew(self, image_id: str, token: str) -> None:
        now = self._now()
        image, fields = self._change(image_id, scripts.RENEW, token, now + self._claim_seconds, now=now)
        image.refuse_others(token, now)
        if fields.get("claim_token") != token:
            raise ImageNotFound

    def release(self, image_id: str, token: str) -> None:
        with suppress(ImageNotFound):
            self._change(image_id, scripts.RELEASE, token)

    def remove(self, image_id: str, token: str | None = None) -> StoredImage | None:
        now = self._now()
        try:
            image, _ = self._change(image_id, scripts.REMOVE, token or "", now=now)
        except ImageNotFound:
            return None
        image.refuse_others(token, now)
        if image.checkout_complete:
            self._due.remove(image_id)
        return image

    def sweep(self, seconds: float | None = None) -> Swept:
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        expired, unended, ids = list[Expired](), list[str](), list[str]()
        try:
            while ids or (ids := self._due.first(self._now())):
                self._sweep_due(ids.pop(), expired, unended)
                if time.monotonic() >= deadline:
                    break
        except StoreUnavailable:
            if not expired:
                raise
        # Also if Redis fails half-way: these pictures are gone, and must be reported.
        return Swept(tuple(expired), unseen=len(ids), unended=tuple(unended))

    def held(self) -> Held:
        count, size, oldest = 0, 0, None
        with self._redis.client() as client:
            for key in client.scan_iter(match=_key("*"), count=1000):
                if not _PICTURE_KEY.fullmatch(key):
                    continue
                bytes_held, stored, expires = client.hmget(key, "size", "timestamp", "expires")
                if expires and int(expires) > self._now():
                    count, size = count + 1, size + int(bytes_held)
                    oldest = min(oldest or int(stored), int(stored))
        return Held(count, size, oldest)

    def images(self) -> Iterator[StoredImage]:
        with self._redis.client() as client:
            for key in client.scan_iter(match=_key("*"), count=1000):
                with suppress(ImageNotFound):
                    yield self.get(key.decode()[len("heroimg:{") : -1])

    def check(self) -> None:
        with self._redis.client() as client:
            client.execute_command(*_PROBE)

    def warnings(self) -> list[str]:
        warnings = set[str]()
        for memory in self._redis.every_primary("memory"):
            if (policy := memory["maxmemory_policy"]) != "noeviction":
                warnings.add(
                    f"Redis evicts pictures when it is full: set its maxmemory-policy to noeviction, not {policy}."
                )
        # Also with replicas: they copy a primary that restarts empty.
        for persistence in self._redis.every_primary("persistence"):
            if not persistence["aof_enabled"]:
                warnings.add("Redis loses every picture when it restarts: set its appendonly to yes.")
        return sorted(warnings)

    def check_setup(self) -> Iterator[Finding]:
        return check_redis(self._redis, self._replicas, self.warnings())

    def _now(self) -> int:
        return int(self._clock())

    def _change(
        self, image_id: str, script: str, *arguments: str | int, now: int | None = None
    ) -> tuple[StoredImage, Fields]:
        """Run a script on a picture, and read the fields that it returns.

        :param now: one instant for the script and for the caller that judges its answer. With two instants, a claim
            that lapses between them would be judged differently.
        :raises ImageNotFound: there is no such picture, or its time is over; the script has done nothing.
        """
        if not is_image_id(image_id):
            raise ImageNotFound
        now = now or self._now()
        fields: Fields = json.loads(self._redis.run(script, _key(image_id), now, *arguments) or "{}")
        return _image_from_fields(image_id, fields, now), fields

    def _change_safely(self, image_id: str, script: str, *arguments: str | int) -> StoredImage:
        """Change a picture as :meth:`_change` does, and wait until the change is safe.

        :raises StoreUnavailable: it is not safe in time.
        """
        image, _ = self._change(image_id, script, *arguments)
        if not self._durability.is_wanted:
            return image
        now = self._now()
        reply = self._durability.run(script, _key(image_id), now, *arguments)
        return _image_from_fields(image_id, json.loads(reply or "{}"), now)

    def _read_blocks(self, image_id: str, count: int) -> list[bytes]:
        # One by one: redis-py gathers the answer to one command in a buffer, which would be a second copy.
        with self._redis.client() as client:
            blocks = [client.hget(_key(image_id), number) for number in range(count)]
        if None in blocks:  # removed or expired since it was claimed
            raise ImageNotFound
        return blocks

    def _sweep_due(self, image_id: str, expired: list[Expired], unended: list[str]) -> None:
        """Remove a picture if its time is over, else note when it is due again; add it to the list where it belongs."""
        now = self._now()
        with suppress(ImageNotFound):
            image, _ = self._change(image_id, scripts.REMOVE_EXPIRED, now=now)
            if image.expires > now:
                due = image.expires
                if image.sessions_to_end:
                    unended.append(image_id)
                    due = min(due, now + _RETRY_SECONDS)
                self._due.move(image_id, due)
                return
            expired.append(Expired.from_image(image))
        self._due.remove(image_id)


def _image_from_fields(image_id: str, fields: Mapping[str, Any], now: int) -> StoredImage:
    if "mimetype" not in fields:
        raise ImageNotFound
    return StoredImage.from_fields(image_id, fields, now)


def _key(image_id: str) -> str:
    return f"heroimg:{{{image_id}}}"
