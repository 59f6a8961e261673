"""REDIS_URL, which is a URL of redis-py, or a URL with some of a cluster's nodes."""

from __future__ import annotations

from difflib import get_close_matches
from inspect import signature
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from redis import Connection, SSLConnection
from redis.cluster import REDIS_ALLOWED_KEYS, ClusterNode
from redis.connection import URL_QUERY_ARGUMENT_PARSERS, parse_url
from redis.exceptions import RedisError

from heroimg.config import ConfigError

_TLS_OPTIONS = {name for name in signature(SSLConnection).parameters if name.startswith("ssl_")}
_OPTIONS = {*URL_QUERY_ARGUMENT_PARSERS, "client_name", "username", "password"} | _TLS_OPTIONS

# This message does not quote the wrong part, because that may be the password.
_UNREADABLE = (
    "REDIS_URL cannot be read: write it like redis://:password@localhost:6379/0?client_name=heroimg, and "
    "percent-encode the characters / # @ ? % in the password"
)

# connection.py sets these options.
_SET_BY_HEROIMG = {"socket_timeout", "socket_connect_timeout", "health_check_interval"}

# `timeout` is for the pool of a single server, and a cluster has only one database.
_NOT_FOR_CLUSTERS = {"timeout", "db"}


def read_url(url: str) -> tuple[dict[str, Any], list[ClusterNode]]:
    """Read a URL.

    :returns: redis-py's keyword arguments for the connections, and the cluster's nodes. A single server has no nodes.
    :raises ConfigError: the URL cannot be read, or has an option that does not exist.
    """
    try:
        parts = urlsplit(url)
        userinfo, at, hosts = parts.netloc.rpartition("@")
        nodes = []
        if parts.scheme.endswith("+cluster"):
            pairs = [host.rpartition(":") for host in hosts.split(",")]
            nodes = [ClusterNode(host.strip("[]"), int(port)) for host, _, port in pairs]  # type: ignore[no-untyped-call]
            scheme, first = parts.scheme.removesuffix("+cluster"), hosts.split(",")[0]
            parts = parts._replace(scheme=scheme, netloc=userinfo + at + first)
            url = parts.geturl()
        _refuse_wrong_options(parts.query, is_tls=parts.scheme == "rediss", is_cluster=bool(nodes))
        options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        no_connection = {"connection_class", "max_connections", "timeout"}
        # This does not connect, but raises an error for a wrong value.
        options.get("connection_class", Connection)(**{name: options[name] for name in options.keys() - no_connection})
    except (ValueError, TypeError, AttributeError, RedisError):
        raise ConfigError([_UNREADABLE]) from None
    if not nodes:
        return options, nodes
    if options.pop("db", 0):
        raise ConfigError(["REDIS_URL names a database, and a cluster has only one: leave the number out"])
    return {name: options[name] for name in options.keys() - {"host", "port"}}, nodes


def _refuse_wrong_options(query: str, *, is_tls: bool, is_cluster: bool) -> None:
    """Refuse options that would have no effect, for example because they are misspelt or have no value."""
    options = _OPTIONS
    if is_cluster:
        options = options & {*REDIS_ALLOWED_KEYS} - _NOT_FOR_CLUSTERS
    if "@" in query:  # the password has a ? that is not percent-encoded
        raise ConfigError([_UNREADABLE])
    faults = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in _TLS_OPTIONS and not is_tls:
            faults.append(f"REDIS_URL has the option {name}, which is for TLS: start the URL with rediss, not redis")
        elif name in _SET_BY_HEROIMG:
            faults.append(f"REDIS_URL has the option {name}, which heroimg sets itself: leave it out")
        elif name not in options:
            nearest = get_close_matches(name, options, 1, 0)[0]
            faults.append(f"REDIS_URL has the option {name}, which does not exist; did you mean {nearest}?")
        elif not value:
            faults.append(f"REDIS_URL has the option {name} without a value; write {name}=...")
    if faults:
        raise ConfigError(faults)
