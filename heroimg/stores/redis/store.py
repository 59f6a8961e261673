"""RedisStore: pictures in Redis, or Valkey, for workers on any number of machines.

A picture is one hash, `heroimg:{<id>}`, whose braces let a cluster keep all of it on one node:

    mimetype, size, timestamp, expires      written when it is kept; times in Unix seconds
    blocks                                  how many of the fields 0, 1, 2, ... hold its bytes, as they are
    claim_token, claim_until                while somebody fetches it
    checkout_session, checkout_complete     the checkout's notes, and checkout_replaced, the session noted before

While it arrives it is in the worker's memory, once, because it is looked at as a whole anyway; then one transaction
writes all of the hash and when Redis is to forget it. So there is nothing half-written, and nothing to sweep. Every
change is one script, which Redis runs alone. What time it is, is the workers' word: a picture whose `expires` has come
is gone for them whether or not Redis has forgotten it yet.
"""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, BinaryIO, cast

from redis.exceptions import RedisError, ResponseError

from heroimg.config import Config
from heroimg.errors import ImageNotFound, StoreUnavailable
from heroimg.stores.base import (
    Claim,
    Claimed,
    Clock,
    Held,
    ImageStore,
    Staged,
    StoredImage,
    Swept,
    is_image_id,
    new_image_id,
)
from heroimg.stores.redis.connection import RETRY_AFTER_SECONDS, SCRIPT_HEAD, RedisConnection

# Redis' allocator (jemalloc) has room for 1 MiB and next for 1.25 MiB, and a string has a header of up to 17 bytes.
_BLOCK = 1024 * 1024 - 64

# Less than the time that an answer may take (redis_connection.py), or the answer would never be heard.
_WAIT_MILLISECONDS = 700

_FIELDS = ("mimetype", "size", "timestamp", "expires", "blocks", "claim_token", "claim_until",
           "checkout_session", "checkout_complete")  # fmt: skip

# How every script begins: it gets the time first, and ends here if the picture is not there or its time is over.
_LOOK = f"""
local now = tonumber(ARGV[1])
local function look() return redis.call('HMGET', KEYS[1], '{"', '".join(_FIELDS)}') end
local image = look()
if not image[1] or tonumber(image[4]) <= now then return false end
local function is_anothers(token) return image[6] and image[6] ~= token and tonumber(image[7]) > now end
"""
_CLAIM = """
if not is_anothers(ARGV[2]) then redis.call('HSET', KEYS[1], 'claim_token', ARGV[2], 'claim_until', ARGV[3]) end
return image
"""
_RELEASE = """
if image[6] == ARGV[2] and tonumber(image[7]) > now then
  redis.call('HDEL', KEYS[1], 'claim_token', 'claim_until')
end
return image
"""
_REMOVE = """
if not is_anothers(ARGV[2]) then redis.call('UNLINK', KEYS[1]) end
return image
"""
_PIN = """
local expires = image[4]
if tonumber(expires) < tonumber(ARGV[2]) then expires = math.max(ARGV[2], ARGV[3]) end
redis.call('HSET', KEYS[1], 'expires', expires)
redis.call('EXPIREAT', KEYS[1], expires)
return look()
"""
# The one that is asked twice, because its first answer was lost, is told what it was told then.
_NOTE = """
if ARGV[2] ~= '' then
  if image[8] == ARGV[2] then image[8] = redis.call('HGET', KEYS[1], 'checkout_replaced')
  else redis.call('HSET', KEYS[1], 'checkout_session', ARGV[2], 'checkout_replaced', image[8] or '') end
end
if ARGV[3] == '1' then redis.call('HSET', KEYS[1], 'checkout_complete', 1) end
return image
"""
# Without the leave to write into a full server that the other scripts have: this is to find out.
_PROBE = ("SET", "heroimg:probe", "", "EX", 60)


class StagedBytes(io.BytesIO):
    """A picture as it arrives, in memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        # A copy of all of it would be the second one in memory; this is not a copy.
        return self.getvalue() if size in (-1, None) and self.tell() == 0 else super().read(size)


class Blocks(io.RawIOBase):
    """A picture's bytes, block by block; each is let go as soon as it has been read."""

    def __init__(self, blocks: Sequence[bytes]) -> None:
        self._blocks = deque(memoryview(block) for block in blocks)

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return self.readall()
        if not self._blocks:
            return b""
        block = self._blocks.popleft()
        if len(block) > size:
            self._blocks.appendleft(block[size:])
        return bytes(block[:size])

    def readall(self) -> bytes:
        data = b"".join(self._blocks)
        self._blocks.clear()
        return data


class RedisStore(ImageStore):
    """Pictures in the Redis that `config.redis_url` names."""

    expires_by_itself = True

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._redis = RedisConnection(config.redis_url or "")
        self._can_wait_for_disk = True

    def stage(self) -> Staged:
        return StagedBytes()

    def keep(self, staged: Staged, media_type: str) -> StoredImage:
        part = cast(StagedBytes, staged)
        view = memoryview(part.getvalue())
        blocks = [view[start : start + _BLOCK] for start in range(0, len(view), _BLOCK)]
        image_id, now = new_image_id(), self._now()
        expires = now + self._config.image_seconds
        fields = {
            "mimetype": media_type,
            "size": len(view),
            "timestamp": now,
            "expires": expires,
            "blocks": len(blocks),
        }
        items = [item for field in [*fields.items(), *enumerate(blocks)] for item in field]
        with self._redis.client() as client, client.pipeline(transaction=True) as pipe:
            pipe.hset(_key(image_id), items=items)
            pipe.expireat(_key(image_id), expires)
            pipe.execute()
        return StoredImage(image_id, media_type, len(view), now, expires)

    def get(self, image_id: str) -> StoredImage:
        if not is_image_id(image_id):
            raise ImageNotFound
        with self._redis.client() as client:
            reply = client.hmget(_key(image_id), _FIELDS)
        now = self._now()
        image = _image(image_id, reply, now)
        if image.expires <= now:
            raise ImageNotFound
        return image

    def pin(self, image_id: str, until: int, renewed: int = 0) -> StoredImage:
        image, _ = self._change(image_id, _PIN, until, renewed)
        if self._config.redis_replicas or self._can_wait_for_disk:
            return self._wait_until_safe(image_id, until, renewed)
        return image

    def note_checkout(self, image_id: str, session_id: str | None = None, *, complete: bool = False) -> StoredImage:
        return self._change(image_id, _NOTE, session_id or "", int(complete))[0]

    def claim(self, image_id: str, token: str) -> Claimed:
        image, blocks = self._claim(image_id, token)
        return Claimed(image, cast(BinaryIO, Blocks(self._read_blocks(image_id, blocks))))

    def renew(self, image_id: str, token: str) -> None:
        self._claim(image_id, token)

    def release(self, image_id: str, token: str) -> None:
        self._change_if_there(image_id, _RELEASE, token)

    def remove(self, image_id: str, token: str | None = None) -> StoredImage | None:
        now = self._now()
        image = self._change_if_there(image_id, _REMOVE, token or "", now=now)
        if image:
            image.refuse_others(token, now)
        return image

    def sweep(self, seconds: float | None = None) -> Swept:  # noqa: ARG002 (Redis does it)
        return Swept()

    def held(self) -> Held:
        count, size, oldest = 0, 0, None
        with self._redis.client() as client:
            for key in client.scan_iter(match=_key("*"), count=1000):
                if not _KEY.fullmatch(key):
                    continue
                bytes_held, stored, expires = client.hmget(key, "size", "timestamp", "expires")
                if expires and int(expires) > self._now():
                    count, size = count + 1, size + int(bytes_held)
                    oldest = min(oldest or int(stored), int(stored))
        return Held(count, size, oldest)

    def check(self) -> None:
        with self._redis.client() as client:
            client.execute_command(*_PROBE)

    def warnings(self) -> list[str]:
        found = []
        for memory in self._redis.every_primary("memory"):
            if (policy := memory["maxmemory_policy"]) != "noeviction":
                found.append(
                    f"Redis evicts pictures when it is full: set its maxmemory-policy to noeviction, not {policy}."
                )
        # With replicas too: a primary that comes back empty empties them.
        for persistence in self._redis.every_primary("persistence"):
            if not persistence["aof_enabled"]:
                found.append("Redis loses every picture when it restarts: set its appendonly to yes.")
        return sorted(set(found))

    def _now(self) -> int:
        return int(self._clock())

    def _claim(self, image_id: str, token: str) -> tuple[StoredImage, int]:
        now = self._now()
        image, blocks = self._change(image_id, _CLAIM, token, now + self._config.claim_seconds, now=now)
        image.refuse_others(token, now)
        return image, blocks

    def _change(
        self, image_id: str, script: str, *arguments: str | int, now: int | None = None
    ) -> tuple[StoredImage, int]:
        """Run a script on a picture, and read what it returns: the picture, and how many blocks it has.

        :param now: the same instant for the script and for who reads its answer; a second between the two would let
            them judge a claim differently.
        :raises ImageNotFound: there is none, or its time is over; the script has done nothing.
        """
        if not is_image_id(image_id):
            raise ImageNotFound
        now = now or self._now()
        reply = self._redis.run(_LOOK + script, _key(image_id), now, *arguments)
        return _image(image_id, reply, now), int(reply[_FIELDS.index("blocks")])

    def _change_if_there(
        self, image_id: str, script: str, *arguments: str | int, now: int | None = None
    ) -> StoredImage | None:
        with suppress(ImageNotFound):
            return self._change(image_id, script, *arguments, now=now)[0]
        return None

    def _read_blocks(self, image_id: str, count: int) -> list[bytes]:
        # One by one: redis-py gathers what is asked for at once in a buffer, which would be a second copy.
        with self._redis.client() as client:
            blocks = [client.hget(_key(image_id), number) for number in range(count)]
        if None in blocks:  # removed, or its hour over, since it was claimed
            raise ImageNotFound
        return blocks

    def _wait_until_safe(self, image_id: str, until: int, renewed: int) -> StoredImage:
        """Wait until a pin is where a restart does not lose it: on the disk, if Redis keeps one, and on the replicas.

        :raises StoreUnavailable: not in time; the picture must not be paid for.
        """
        now, replicas = self._now(), self._config.redis_replicas
        with self._redis.node_of(_key(image_id)) as node, node.pipeline(transaction=False) as pipe:
            # Pinned again, in one go with the waiting: WAIT and WAITAOF go by what their own connection has written.
            pipe.eval(SCRIPT_HEAD + _LOOK + _PIN, 1, _key(image_id), now, until, renewed)
            if replicas:
                pipe.execute_command("WAIT", replicas, _WAIT_MILLISECONDS)
            if self._can_wait_for_disk:
                pipe.execute_command("WAITAOF", 1, 0, _WAIT_MILLISECONDS)
            reply, *answers = pipe.execute(raise_on_error=False)
            if isinstance(reply, Exception):
                raise reply
            if replicas:
                self._expect_on_replicas(answers.pop(0))
            if answers:
                self._expect_on_disk(answers.pop())
        return _image(image_id, reply, now)

    def _expect_on_replicas(self, answer: Any) -> None:
        if isinstance(answer, Exception):
            raise answer
        if answer < self._config.redis_replicas:
            raise StoreUnavailable(retry_after=RETRY_AFTER_SECONDS) from RedisError(
                f"{answer} of {self._config.redis_replicas} replicas have a picture after {_WAIT_MILLISECONDS} ms: "
                "mend the others, or set HEROIMG_REDIS_REPLICAS lower"
            )

    def _expect_on_disk(self, answer: Any) -> None:
        """Read what WAITAOF says: Redis has it from 7.2 on, and without appendonly there is no disk to wait for."""
        if isinstance(answer, ResponseError) and "unknown command" in str(answer):
            self._can_wait_for_disk = False
        elif isinstance(answer, Exception):
            if "appendonly is disabled" not in str(answer):
                raise answer
        elif not answer[0]:
            raise StoreUnavailable(retry_after=RETRY_AFTER_SECONDS) from RedisError(
                f"Redis has not written to its disk within {_WAIT_MILLISECONDS} ms: set appendfsync to always, "
                "or find out what slows the disk"
            )


def _image(image_id: str, reply: Sequence[bytes | None] | None, now: int) -> StoredImage:
    if not reply or not reply[0]:
        raise ImageNotFound
    fields = dict(zip(_FIELDS, (value.decode() if value is not None else "" for value in reply), strict=True))
    last = Claim(fields["claim_token"], int(fields["claim_until"])) if fields["claim_token"] else None
    return StoredImage(
        id=image_id,
        media_type=fields["mimetype"],
        size=int(fields["size"]),
        stored=int(fields["timestamp"]),
        expires=int(fields["expires"]),
        checkout_session=fields["checkout_session"] or None,
        checkout_complete=bool(fields["checkout_complete"]),
        claim=last if last and last.until > now else None,
        claim_lapsed=last is not None and last.until <= now,
    )


_KEY = re.compile(rb"heroimg:\{[0-9a-f]{32}\}")


def _key(image_id: str) -> str:
    return f"heroimg:{{{image_id}}}"
