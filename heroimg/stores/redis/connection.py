"""The connection to Redis, Valkey or a cluster, with its timeouts, retries and errors.

If a server does not work, a request fails within about two seconds. A refused or broken connection is tried three times
within half a second. A silent server is not asked again. In a cluster, a request is not repeated, and may wait two
seconds for each silent node. Trying a command again does no harm: at worst, a request counts twice towards
a rate limit, or a removal is not logged.

An open connection can become useless in two ways. First, after a planned failover it leads to a server that is now a
replica. When this server refuses a change, the connection is closed, and the next attempt resolves the name again.
Second, a network may silently drop an idle connection. So a connection that was idle must answer a PING before it is
used.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from redis import BlockingConnectionPool, Connection, Redis, RedisCluster, SSLConnection, UnixDomainSocketConnection
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.cluster import ClusterNode
from redis.connection import AbstractConnection
from redis.exceptions import (
    ConnectionError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

from heroimg.errors import StoreFull, StoreUnavailable
from heroimg.stores.redis.url import read_url

_CONNECT_SECONDS = 0.5
_ANSWER_SECONDS = 1.5
RETRY_AFTER_SECONDS = 2

# A connection that was idle for longer than this must answer a PING before it is used.
_IDLE_SECONDS = 1
# A working server answers a PING within this time.
_PING_SECONDS = 0.3

# The maximum number of connections to one node. Each thread uses one connection at a time. If all connections are in
# use, a thread waits; with a cluster, redis-py raises an error instead.
_MAX_CONNECTIONS = 16

# The errors of a server that is no longer a primary.
OUTDATED = (ReadOnlyError, MasterDownError)

# This flag lets scripts write when Redis is full. Otherwise no picture could be claimed and removed, and Redis would
# stay full.
SCRIPT_HEAD = "#!lua flags=allow-oom\n"


class RedisConnection:
    """A connection of one process. It connects when it is first used, and again if it was lost.

    :param url: for one server, `redis://`, `rediss://` (TLS) or `unix://`, as redis-py reads them. For a cluster,
        `redis+cluster://user:password@host:port,host:port` (`rediss+cluster://` with TLS) with some of its nodes.
        The URL may have options (url.py).
    :raises ConfigError: the URL cannot be read, or has an option that does not exist.
    """

    def __init__(self, url: str) -> None:
        self._options, self._nodes = read_url(url)
        self._single = None if self._nodes else _single(self._options)
        self._cluster: RedisCluster | None = None
        self._lock = threading.Lock()

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Return redis-py's client, and turn its errors into ours. Redis' own message is in the cause.

        :raises StoreUnavailable: Redis does not answer, or answers with an error.
        :raises StoreFull: Redis has reached its maxmemory.
        """
        with _redis_errors():
            yield self._single or self._connected_cluster()

    def run(self, script: str, key: str, *arguments: str | int) -> Any:
        """Run a script on one key. Each call sends the script, so it need not be in Redis' script cache."""
        with self.client() as client:
            return client.eval(SCRIPT_HEAD + script, 1, key, *arguments)

    @contextmanager
    def node_of(self, key: str) -> Iterator[Any]:
        """Return a client of the one node that has the key."""
        with self.client() as client:
            yield client.get_redis_connection(client.get_node_from_key(key)) if self._nodes else client

    def every_primary(self, section: str) -> list[dict[str, Any]]:
        """Return a section of INFO of every primary; an empty list if Redis refuses INFO."""
        with self.client() as client, suppress(ResponseError):
            if not self._nodes:
                return [client.info(section)]
            return [client.info(section, target_nodes=node) for node in client.get_primaries()]
        return []

    def _connected_cluster(self) -> RedisCluster:
        # Connect here, not at start: workers must be able to start while the cluster is down.
        if not self._lock.acquire(timeout=_ANSWER_SECONDS):
            raise ConnectionError("another request waits for the cluster already")
        try:
            if self._cluster is None:
                self._cluster = _cluster(self._options, self._nodes)
            return self._cluster
        finally:
            self._lock.release()


class _CheckedIfIdle(AbstractConnection):
    """A connection that connects again if it was idle and does not answer a PING.

    redis-py's own health check fails the request if there is no answer.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.health_check_interval = _IDLE_SECONDS  # redis-py then sets next_health_check

    def check_health(self) -> None:
        if time.monotonic() <= self.next_health_check:
            return
        try:
            self.send_command("PING", check_health=False)  # type: ignore[no-untyped-call]
            self.read_response(timeout=_PING_SECONDS)
        except (ConnectionError, TimeoutError):  # redis-py has closed the connection
            self.connect_check_health(check_health=False)


class _TcpConnection(_CheckedIfIdle, Connection):
    pass


class _TlsConnection(_CheckedIfIdle, SSLConnection):
    pass


class _UnixConnection(_CheckedIfIdle, UnixDomainSocketConnection):
    pass


_CHECKED = {Connection: _TcpConnection, SSLConnection: _TlsConnection, UnixDomainSocketConnection: _UnixConnection}


def _single(options: dict[str, Any]) -> Redis:
    errors = (ConnectionError, *OUTDATED)
    retry = Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.2), retries=2, supported_errors=errors)
    defaults = {"max_connections": _MAX_CONNECTIONS, "timeout": _ANSWER_SECONDS}
    pool = BlockingConnectionPool(**(defaults | options | _fixed(options)), retry=retry)  # type: ignore[no-untyped-call]
    return Redis(connection_pool=pool)


def _cluster(options: dict[str, Any], nodes: list[ClusterNode]) -> RedisCluster:
    first, *others = nodes
    host = f"[{first.host}]" if ":" in first.host else first.host
    return RedisCluster(
        url=f"redis://{host}:{first.port}",  # redis-py takes a connection class only with a URL
        startup_nodes=others,
        # Allow one attempt: by default redis-py also retries silent nodes, and reads the cluster's layout each time.
        retry=Retry(NoBackoff(), retries=0),
        **({"max_connections": _MAX_CONNECTIONS} | options | _fixed(options)),
    )


def _fixed(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that the URL cannot change."""
    return {
        "connection_class": _CHECKED[options.get("connection_class", Connection)],
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_timeout": _ANSWER_SECONDS,
        "decode_responses": False,
    }


@contextmanager
def _redis_errors() -> Iterator[None]:
    try:
        yield
    except OutOfMemoryError as error:
        raise StoreFull from RedisError(
            f"Redis has reached its maxmemory ({error}): raise it; `flask --app heroimg.wsgi held` shows the pictures"
        )
    except (RedisError, RedisClusterException, AttributeError, ValueError) as error:
        # redis-py raises AttributeError or ValueError if a growing cluster names a node that redis-py does not know.
        raise StoreUnavailable(retry_after=RETRY_AFTER_SECONDS) from RedisError(
            f"Redis at REDIS_URL failed ({type(error).__name__}: {error})"
        )
