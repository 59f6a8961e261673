"""Checks of the Redis that holds the pictures, for `/healthz`, `/readyz` and the command `check`."""

from __future__ import annotations

from collections.abc import Iterator

from redis.exceptions import NoPermissionError

from heroimg.findings import Finding, fault, ok, warning
from heroimg.stores.redis.connection import SCRIPT_HEAD, RedisConnection

_SUBJECT = "redis"

# One call of each command that pictures, sweeps or rate limits need. The braces put all keys on one node of a cluster.
_KEY, _SET, _NUMBER = "heroimg:{check}", "heroimg:{check}:due", "heroimg:rate:{check}"
_CALLS: tuple[tuple[str | int, ...], ...] = (
    ("PING",),
    ("MULTI",),
    ("EXEC",),
    ("HSET", _KEY, "a", 1),
    ("HGET", _KEY, "a"),
    ("HMGET", _KEY, "a"),
    ("HDEL", _KEY, "a"),
    ("UNLINK", _KEY),
    ("ZADD", _SET, 1, "a"),
    ("ZSCORE", _SET, "a"),
    ("ZRANGE", _SET, 0, -1),
    ("ZREM", _SET, "a"),
    ("INCRBY", _NUMBER, 1),
    ("EXPIRE", _NUMBER, 1),
    ("PTTL", _NUMBER),
    ("EVAL", SCRIPT_HEAD + "return 1", 0),
    ("WAITAOF", 0, 0, 1),
)
_WAIT = ("WAIT", 0, 1)

# Only the operator's commands need these.
_OPERATOR_CALLS: tuple[tuple[str | int, ...], ...] = (("SCAN", 0),)


def denials(redis: RedisConnection, replicas: int, *, for_operator: bool = False) -> list[str]:
    """Try every command that a checkout needs. Return sentences that say what Redis denies, and what to do.

    :param replicas: how many replicas must have a picture (HEROIMG_REDIS_REPLICAS).
    :param for_operator: try what the operator's commands need, too.
    :raises StoreUnavailable: Redis does not answer.
    :raises StoreFull: Redis has reached its maxmemory.
    """
    calls = _CALLS + (_WAIT,) * bool(replicas) + _OPERATOR_CALLS * for_operator
    with redis.client() as client:
        # Send SET outside the pipeline, because redis-py does not replace an outdated connection in a pipeline. SET
        # also shows whether the server is full: a full server refuses SET, but not the scripts.
        client.execute_command("SET", _NUMBER, 0, "EX", 60)
    with redis.node_of(_NUMBER) as node, node.pipeline(transaction=False) as pipe:
        for call in calls:
            pipe.execute_command(*call)
        errors = {
            str(call[0]): answer
            for call, answer in zip(calls, pipe.execute(raise_on_error=False), strict=True)
            if isinstance(answer, Exception)
        }
        if "unknown command" in str(errors.get("WAITAOF")):  # Redis before 7.2 has no WAITAOF
            del errors["WAITAOF"]
        sentences = []
        # Before 7.0, scripts cannot have flags. https://redis.io/docs/latest/develop/programmability/lua-api/
        if "compiling" in str(errors.get("EVAL")):
            del errors["EVAL"]
            sentences.append("it is too old to run heroimg's scripts: install 7.0 or later, or Valkey")
        if refused := [name for name, error in errors.items() if isinstance(error, NoPermissionError)]:
            rules = " ".join(f"+{name.lower()}" for name in refused)
            sentences.append(
                f"the user of REDIS_URL may not run {', '.join(refused)} on heroimg:*: allow it, by `ACL SETUSER` with "
                f"~heroimg:* {rules}"
            )
        if errors and not sentences:
            raise next(iter(errors.values()))
    return sentences


def risks(redis: RedisConnection) -> list[str]:
    """List the settings with which Redis may lose pictures."""
    memories = redis.every_primary("memory")
    if not memories:
        return [
            "The user of REDIS_URL may not run INFO, so heroimg cannot see whether Redis may lose pictures: allow it, "
            "with +info, or check that maxmemory-policy is noeviction and appendonly is yes."
        ]
    sentences = set[str]()
    for memory in memories:
        if (policy := memory["maxmemory_policy"]) != "noeviction":
            sentences.add(
                f"Redis evicts pictures when it is full: set its maxmemory-policy to noeviction, not {policy}."
            )
    # Warn even if there are replicas: if a primary restarts empty, its replicas become empty, too.
    for persistence in redis.every_primary("persistence"):
        if not persistence["aof_enabled"]:
            sentences.add("Redis loses every picture when it restarts: set its appendonly to yes.")
    return sorted(sentences)


def check_redis(redis: RedisConnection, replicas: int) -> Iterator[Finding]:
    """Check the permissions, and the version, the eviction policy, the persistence and the replicas of every primary.

    :param replicas: how many replicas must have a picture (HEROIMG_REDIS_REPLICAS).
    """
    refused = denials(redis, replicas, for_operator=True)
    yield from (fault(_SUBJECT, sentence) for sentence in refused)
    if not refused:
        yield ok(_SUBJECT, "the user of REDIS_URL may run every command that a checkout needs")
    for server in redis.every_primary("server"):
        yield ok(_SUBJECT, f"its version is {server['redis_version']}")
    seen = risks(redis)
    yield from (warning(_SUBJECT, risk) for risk in seen)
    if not seen:
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
