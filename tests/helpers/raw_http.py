"""Requests that no HTTP library would send: single bytes, and single HTTP/2 frames."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from contextlib import suppress
from typing import NamedTuple

from tests.helpers.production import Production, addresses
from tests.helpers.serving import LONG


class RawResponse(NamedTuple):
    """A response, split into status, headers and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """Return the code of a refusal; fail if the response is not the API's JSON."""
        assert self.headers["content-type"] == "application/json", self
        refusal = json.loads(self.body)
        assert set(refusal) == {"error", "code"}, self
        return str(refusal["code"])


def answers_in(received: bytes) -> list[RawResponse]:
    """Split received bytes into responses. Each must have a Content-Length."""
    responses = []
    while received.startswith(b"HTTP/1."):
        head, _, rest = received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", len(rest)))
        responses.append(RawResponse(int(status.split()[1]), headers, rest[:size]))
        received = rest[size:]
    return responses


def say(connection: socket.socket, data: bytes, *, hang_up: bool = False) -> list[RawResponse]:
    """Send bytes and read the responses until the server closes the connection.

    :param hang_up: close the sending direction. nginx treats that as a lost client.
    """
    received = b""
    with suppress(ConnectionError):  # the server may close it before it has read everything
        connection.sendall(data)
        if hang_up:
            connection.shutdown(socket.SHUT_WR)
        while more := connection.recv(65536):
            received += more
    return answers_in(received)


def to_nginx(house: Production, protocol: str = "http/1.1", *, plain: bool = False) -> socket.socket:
    """Connect to nginx from a new address: with TLS, or plainly to the port that redirects to TLS."""
    port = house.plain_port if plain else house.port
    connection = socket.create_connection(("127.0.0.1", port), LONG, (next(addresses), 0))
    if plain:
        return connection
    context = ssl.create_default_context(cafile=str(house.certificate))
    context.set_alpn_protocols([protocol])
    return context.wrap_socket(connection, server_hostname="heroimg.example.com")


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """Make an HTTP/2 frame. RFC 9113, section 4.1."""
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


def _literal(text: bytes) -> bytes:
    """Write a string as HPACK does without compressing it. RFC 7541, section 5.2."""
    length = len(text)
    if length < 127:
        return bytes([length]) + text
    octets, length = bytearray([127]), length - 127
    while length >= 128:
        octets.append(length % 128 + 128)
        length //= 128
    return bytes(octets) + bytes([length]) + text


def say_by_http2(house: Production, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> int | None:
    """Send a request by HTTP/2 with exactly these headers; return the status, or None without a response."""
    block = b"".join(b"\0" + _literal(name) + _literal(value) for name, value in headers)
    with to_nginx(house, "h2") as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        connection.sendall(frame(1, 4 if body else 5, 1, block) + (frame(0, 1, 1, body) if body else b""))
        with suppress(ConnectionError):
            return _status_in_frames(connection)
    return None


def _status_in_frames(connection: socket.socket) -> int | None:
    stream = connection.makefile("rb")
    while len(head := stream.read(9)) == 9:
        content = stream.read(int.from_bytes(head[:3], "big"))
        if head[3] == 1:  # HEADERS: nginx writes the status first, as an index of the static table or literally
            known = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}
            return known.get(content[0]) or _literal_status(content)
        if head[3] in (3, 7):  # RST_STREAM, GOAWAY
            return None
    return None


def _literal_status(content: bytes) -> int:
    text = content[2 : 2 + (content[1] & 0x7F)]
    return int(text) if not content[1] & 0x80 else -1  # -1: a Huffman-coded status, which no test expects
