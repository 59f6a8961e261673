"""Every store, for the tests that run over each of them. A further store is added here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from heroimg.config import Config
from heroimg.stores import open_store
from tests.helpers.needed_programs import require
from tests.helpers.redis_servers import RedisCluster, RedisServer, has_expired
from tests.helpers.store_shelf import Clock, Shelf


@dataclass
class StoreBackend:
    """A folder, a Redis or a cluster in which a store keeps its pictures.

    :param config: opens the store.
    :param settings: select the store, as environment variables of a server.
    :param clear: removes everything.
    :param names: lists the files, or the keys that Redis would still have at a time.
    """

    config: Config
    settings: dict[str, str]
    clear: Callable[[], object]
    names: Callable[[float], list[str]]

    def open_shelf(self) -> Shelf:
        """Open the store, empty and with a new clock."""
        self.clear()
        clock = Clock()
        return Shelf(open_store(self.config, clock), clock, lambda: self.names(clock.now))


@contextmanager
def _files(folder: Path) -> Iterator[StoreBackend]:
    uploads = folder / "uploads"
    yield StoreBackend(
        Config(upload_dir=uploads, min_free_bytes=0),
        {},
        lambda: shutil.rmtree(uploads, ignore_errors=True),
        lambda _: sorted(path.name for path in uploads.iterdir()),
    )


@contextmanager
def _redis(folder: Path) -> Iterator[StoreBackend]:
    require("redis-server")
    with RedisServer(folder / "redis") as server:
        yield _redis_backend(server.url, [server])


@contextmanager
def _cluster(folder: Path) -> Iterator[StoreBackend]:
    require("redis-server")
    with RedisCluster(folder / "cluster") as servers:
        yield _redis_backend(servers.url, servers.nodes)


def _redis_backend(url: str, nodes: list[RedisServer]) -> StoreBackend:
    return StoreBackend(
        Config(redis_url=url),
        {"REDIS_URL": url},
        lambda: [node.client.flushall() for node in nodes],
        lambda now: [key for node in nodes for key in node.names() if not has_expired(node, key, now)],
    )


OpenBackend = Callable[[Path], AbstractContextManager[StoreBackend]]
STORES: dict[str, OpenBackend] = {"files": _files, "redis": _redis}
STORES_AND_CLUSTER: dict[str, OpenBackend] = STORES | {"cluster": _cluster}
