"""Waiting until a change is on the disk and on the replicas, so a restart or a failover cannot lose it."""

from __future__ import annotations

from typing import Any

from redis.exceptions import RedisError, ResponseError

from heroimg.errors import StoreUnavailable
from heroimg.stores.redis.connection import OUTDATED, RETRY_AFTER_SECONDS, SCRIPT_HEAD, RedisConnection

# This must be less than the time that an answer may take (connection.py).
_WAIT_MILLISECONDS = 700


class Durability:
    """Waits until changes are safe.

    :param replicas: how many replicas must have a change (HEROIMG_REDIS_REPLICAS).
    """

    def __init__(self, redis: RedisConnection, replicas: int) -> None:
        self._redis = redis
        self._replicas = replicas
        self._can_wait_for_disk = True

    @property
    def is_wanted(self) -> bool:
        """Whether replicas are required, or this Redis may have WAITAOF."""
        return bool(self._replicas) or self._can_wait_for_disk

    def run(self, script: str, key: str, *arguments: str | int) -> Any:
        """Run a script, and wait until its change is safe.

        :raises StoreUnavailable: the change is not safe in time, so nothing may rely on it.
        """
        with self._redis.node_of(key) as node:
            reply, *answers = self._run_and_wait(node, script, key, *arguments)
            if isinstance(reply, OUTDATED):
                node.connection_pool.disconnect(inuse_connections=False)
                reply, *answers = self._run_and_wait(node, script, key, *arguments)
            if isinstance(reply, Exception):
                raise reply
            if self._replicas:
                self._expect_on_replicas(answers.pop(0))
            if answers:
                self._expect_on_disk(answers.pop())
        return reply

    def _run_and_wait(self, node: Any, script: str, key: str, *arguments: str | int) -> list[Any]:
        # Use one connection: WAIT and WAITAOF wait only for the changes of their own connection.
        with node.pipeline(transaction=False) as pipe:
            pipe.eval(SCRIPT_HEAD + script, 1, key, *arguments)
            if self._replicas:
                pipe.execute_command("WAIT", self._replicas, _WAIT_MILLISECONDS)
            if self._can_wait_for_disk:
                pipe.execute_command("WAITAOF", 1, 0, _WAIT_MILLISECONDS)
            answers: list[Any] = pipe.execute(raise_on_error=False)
            return answers

    def _expect_on_replicas(self, answer: Any) -> None:
        if isinstance(answer, Exception):
            raise answer
        if answer < self._replicas:
            raise StoreUnavailable(retry_after=RETRY_AFTER_SECONDS) from RedisError(
                f"{answer} of {self._replicas} replicas have a picture after {_WAIT_MILLISECONDS} ms: "
                "repair the others, or set HEROIMG_REDIS_REPLICAS lower"
            )

    def _expect_on_disk(self, answer: Any) -> None:
        """Check the answer to WAITAOF. Accept that Redis before 7.2 has no WAITAOF, or that appendonly is disabled."""
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
