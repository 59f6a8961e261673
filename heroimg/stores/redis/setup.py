"""Checks of the Redis that holds the pictures, for `flask --app wsgi check`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from redis.exceptions import NoPermissionError

from heroimg.stores.findings import Finding, fault, ok, warning
from heroimg.stores.redis.connection import RedisConnection

_SUBJECT = "redis"

# Since this version a flag lets a script write into a full server:
# https://redis.io/docs/latest/develop/programmability/lua-api/
_MIN_VERSION = (7, 0)

# One call of each command that a picture, a sweep or a rate needs. The braces put all keys on one node of a cluster.
_KEY, _SET, _NUMBER = "heroimg:{check}", "heroimg:{check}:due", "heroimg:rate:{check}"
_CALLS = (
    ("HSET", _KEY, "a", 1),
    ("HGET", _KEY, "a"),
    ("HMGET", _KEY, "a"),
    ("HDEL", _KEY, "a"),
    ("UNLINK", _KEY),
    ("ZADD", _SET, 1, "a"),
    ("ZSCORE", _SET, "a"),
    ("ZRANGE", _SET, 0, -1),
    ("ZREM", _SET, "a"),
    ("SET", _NUMBER, 0),
    ("INCRBY", _NUMBER, 1),
    ("EXPIRE", _NUMBER, 1),
    ("PTTL", _NUMBER),
    ("EVAL", "return 1", 0),
    ("SCAN", 0),
    ("INFO", "server"),
)


def check_redis(redis: RedisConnection, replicas: int, risks: list[str]) -> Iterator[Finding]:
    """Check the version, the eviction policy, the persistence and the replicas of every node that holds pictures.

    :param replicas: how many must have a picture (HEROIMG_REDIS_REPLICAS).
    :param risks: the warnings of the store.
    """
    yield _check_permissions(redis)
    for server in redis.every_primary("server"):
        version = str(server["redis_version"])
        if tuple(map(int, re.findall("[0-9]+", version)[:2])) < _MIN_VERSION:
            least = ".".join(map(str, _MIN_VERSION))
            yield fault(_SUBJECT, f"its version is {version}: install {least} or later, or Valkey")
        else:
            yield ok(_SUBJECT, f"its version is {version}")
    yield from (warning(_SUBJECT, risk) for risk in risks)
    if not risks:
        yield ok(_SUBJECT, "it evicts no picture, and keeps pictures when it restarts")
    for replication in redis.every_primary("replication"):
        connected = int(replication["connected_slaves"])
        if connected < replicas:
            yield fault(
                _SUBJECT,
                f"{connected} replicas are connected, and HEROIMG_REDIS_REPLICAS is {replicas}, so nothing can be paid "
                f"for: connect more, or set HEROIMG_REDIS_REPLICAS to {connected}",
            )
        elif connected > replicas == 0:
            yield warning(
                _SUBJECT,
                f"{connected} replicas are connected, and a failover may still lose a paid picture: "
                "set HEROIMG_REDIS_REPLICAS to 1",
            )
        else:
            yield ok(_SUBJECT, f"{connected} replicas are connected, and HEROIMG_REDIS_REPLICAS is {replicas}")


def _check_permissions(redis: RedisConnection) -> Finding:
    refused = []
    with redis.node_of(_KEY) as node:
        for call in _CALLS:
            try:
                node.execute_command(*call)
            except NoPermissionError:
                refused.append(call[0])
    if refused:
        rules = " ".join(f"+{name.lower()}" for name in refused)
        return fault(
            _SUBJECT,
            f"the user of REDIS_URL may not run {', '.join(refused)} on heroimg:*: allow it, by `ACL SETUSER` with "
            f"~heroimg:* {rules}",
        )
    return ok(_SUBJECT, "the user of REDIS_URL may run every command that a checkout needs")
