"""A TCP proxy that forwards bytes in both directions, and breaks or pauses a connection at a chosen byte."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.helpers.serving import LONG


@dataclass
class Stop:
    """The byte at which the proxy stops the connection of a request.

    :param request: the beginning of the request, such as ``b"GET /api/temp-image-retrieve"``.
    :param after: how many bytes pass first, headers included.
    :param upwards: count the request's bytes instead of the answer's.
    :param breaks: break the connection; otherwise pause it until :attr:`go_on` is set.
    :param lasting: stop every such request until the proxy is cleared; otherwise only the first.
    :param then: a second stop on the same connection; its bytes count from this one.
    """

    request: bytes
    after: int
    upwards: bool = False
    breaks: bool = True
    lasting: bool = False
    then: Stop | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """Listens on a free port during a ``with`` block, and connects to :attr:`target`."""

    def __init__(self) -> None:
        self.target = ""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._stops: list[Stop] = []
        self._connections: set[_Connection] = set()

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.clear()

    def clear(self) -> None:
        """Remove all stops and break every connection."""
        for stop in self._stops:
            stop.go_on.set()
        self._stops.clear()
        for connection in self._connections.copy():
            connection.cut()

    def stop_at(self, stop: Stop) -> Stop:
        """Stop the next request that the stop matches, or all of them."""
        self._stops.append(stop)
        return stop

    def stop_for(self, data: bytes) -> Stop | None:
        """Return the stop for a request, if there is one."""
        for stop in self._stops:
            if data.startswith(stop.request):
                if not stop.lasting:
                    self._stops.remove(stop)
                return stop
        return None

    def source(self) -> str:
        """Return the source address of the next connection; empty for any."""
        return ""

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # __exit__ has closed the listener
                return
            connection = _Connection(self, client)
            self._connections.add(connection)
            connection.start()

    def forget(self, connection: _Connection) -> None:
        self._connections.discard(connection)


class _Connection:
    """A client's connection, and the proxy's connection to the server for it."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = socket.socket()
        self._stop: Stop | None = None
        self._left = 0

    def start(self) -> None:
        target = urlsplit(self._proxy.target)
        try:
            self._server.bind((self._proxy.source(), 0))
            self._server.connect((target.hostname, target.port))
        except OSError:  # the server does not listen
            self.cut()
            return
        for pump in (self._upwards, self._downwards):
            threading.Thread(target=pump, daemon=True).start()

    def cut(self) -> None:
        """Break the connection as a lost network does: both sides get an error, not an end of file."""
        for side in (self._client, self._server):
            with contextlib.suppress(OSError):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.shutdown(socket.SHUT_RDWR)
            side.close()
        self._proxy.forget(self)

    def _upwards(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._client.recv(65536):
                if stop := self._proxy.stop_for(data):
                    self._stop, self._left = stop, stop.after
                self._pass(data, self._server, upwards=True)
        self.cut()

    def _downwards(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._server.recv(65536):
                self._pass(data, self._client, upwards=False)
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_WR)

    def _pass(self, data: bytes, to: socket.socket, *, upwards: bool) -> None:
        stop = self._stop
        if stop and stop.upwards == upwards and len(data) >= self._left:
            to.sendall(data[: self._left])
            data = data[self._left :]
            self._stop, self._left = stop.then, stop.then.after if stop.then else 0
            stop.reached.set()
            if stop.breaks:
                self.cut()
                raise ConnectionAbortedError
            stop.go_on.wait(LONG)
            if self._stop:
                return self._pass(data, to, upwards=upwards)
        elif stop and stop.upwards == upwards:
            self._left -= len(data)
        return to.sendall(data)
