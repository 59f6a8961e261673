"""Real redis-servers, alone and as a cluster, each in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from redis import Redis
from redis.exceptions import RedisError

from tests.helpers.serving import LONG, free_port, wait_for

SLOTS = 16384


class RedisServer:
    """A redis-server that keeps its port when it is started again.

    :param settings: of its redis.conf, in addition to the port, the folder and the append-only file.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        # Its port for other servers and, with a certificate, for TLS.
        self.cluster_port = free_port() if "tls_cert_file" in settings else self.port
        self.client: Any = Redis(port=self.port, password=settings.get("requirepass"), socket_timeout=LONG)
        self._folder = folder
        if self.cluster_port != self.port:
            settings = {"tls_port": str(self.cluster_port), "tls_cluster": "yes", "tls_auth_clients": "no", **settings}
        self._settings = {"port": str(self.port), "dir": str(folder), "appendonly": "yes", "save": "", **settings}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.client.close()

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def start(self) -> None:
        command = [shutil.which("redis-server") or "redis-server", "--bind", "127.0.0.1"]
        for name, value in self._settings.items():
            command += [f"--{name.replace('_', '-')}", value]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(self.answers, "redis-server to answer")
        except AssertionError:
            self.end()
            raise

    def answers(self) -> bool:
        with suppress(RedisError):
            # Another server may have taken the port between our choice and its start.
            return bool(self.client.ping()) and self.client.info("server")["process_id"] == self.pid
        return False

    def end(self, number: int = signal.SIGKILL) -> None:
        """Kill it, or pause it with SIGSTOP until :meth:`resume`."""
        if self._process and self._process.poll() is None:
            os.kill(self.pid, number)
            if number != signal.SIGSTOP:
                self._process.wait(LONG)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def names(self) -> list[str]:
        return sorted(key.decode() for key in self.client.keys("*"))


def has_expired(server: RedisServer, key: str, now: float) -> bool:
    """Return whether Redis removes a key by this time. A test's clock may be ahead of that of Redis."""
    if not key.startswith("heroimg:{"):  # the set of due ids, for example
        return bool(0 < server.client.expiretime(key) <= now)
    expires, is_paid = server.client.hmget(key, "expires", "checkout_complete")
    return not is_paid and expires is not None and int(expires) <= now


class RedisCluster:
    """Three primaries, each with a number of replicas."""

    def __init__(self, folder: Path, replicas: int = 0, **settings: str) -> None:
        settings = {"cluster_enabled": "yes", "cluster_node_timeout": "1000", **settings}
        self.nodes = [RedisServer(folder / str(number), **settings) for number in range(3 + 3 * replicas)]
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.cluster_port}" for node in self.nodes[:3])
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for node in self.nodes:
            self._stack.enter_context(node)
        for number, node in enumerate(self.nodes[:3]):
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1)
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].cluster_port)
        wait_for(self.is_ok, "the cluster to be whole")
        for number, node in enumerate(self.nodes[3:]):
            node.client.execute_command("CLUSTER", "REPLICATE", self.id_of(self.nodes[number % 3]))
        wait_for(self.is_replicated, "the replicas to follow")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def is_ok(self) -> bool:
        infos = [node.client.execute_command("CLUSTER INFO") for node in self.nodes]
        return all(
            info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(len(self.nodes)) for info in infos
        )

    def is_replicated(self) -> bool:
        links: list[Any] = [node.client.info("replication") for node in self.nodes[3:]]
        return all(link.get("master_link_status") == "up" for link in links)

    def id_of(self, node: RedisServer) -> str:
        answer: bytes = node.client.execute_command("CLUSTER MYID")
        return answer.decode()

    def names(self) -> list[str]:
        return sorted(key for node in self.nodes[:3] for key in node.names())
