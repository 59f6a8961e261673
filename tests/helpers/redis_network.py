"""A network between heroimg and Redis that can redirect new connections, and drop the data of open ones."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class RedisNetwork:
    """Listens on a port during a ``with`` block, and forwards new connections to the port :attr:`target`.

    If the target changes, open connections stay with the old one, as behind a Kubernetes Service or a DNS name.
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
        """Drop all further data of the open connections, as a firewall does after idle minutes."""
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
