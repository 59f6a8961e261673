"""A network between heroimg and Redis: an address that can lead to another server, and a memory that can fail."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class RedisNetwork:
    """Listens on a port of its own while in a ``with`` block, and leads new connections to :attr:`target`, a port.

    Connections that are open stay as they are when the target changes, as behind a Kubernetes Service or a DNS name.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._forgotten = threading.Event()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for open_socket in (self._listener, *self._sockets):
            with suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()

    def forget_connections(self) -> None:
        """From now on swallow all data on the connections that are open, as a firewall does after idle minutes."""
        self._forgotten.set()
        self._forgotten = threading.Event()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                self._sockets += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=_pass_on, args=(source, sink, self._forgotten), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket, forgotten: threading.Event) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            if not forgotten.is_set():
                sink.sendall(data)
        sink.shutdown(socket.SHUT_RDWR)
