"""A client of the HTTP API. It checks every response against docs/openapi.yaml."""

from __future__ import annotations

import os
import secrets
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests

from tests.helpers.openapi import hold_to_description
from tests.helpers.serving import LONG, Server

UPLOAD = "/api/temp-image-upload"
RETRIEVE = "/api/temp-image-retrieve"
SESSION = "/api/checkout/embedded-session"
STATUS = "/api/checkout/session-status"
WEBHOOK = "/api/checkout/webhook"


class Api:
    """One server's API."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.send: Callable[..., requests.Response] = requests.request

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        answer = self.send(method, self.server.url + path, timeout=LONG, **options)
        hold_to_description(method, path.partition("?")[0], answer)
        return answer

    def upload(self, picture: bytes, name: str = "photo.jpg", **options: Any) -> requests.Response:
        return self.request("POST", UPLOAD, files={"image": (name, picture)}, **options)

    def keep(self, picture: bytes) -> str:
        """Upload a picture that must be accepted; return its id."""
        answer = self.upload(picture)
        assert answer.status_code == 200, answer.text
        image_id: str = answer.json()["imageId"]
        return image_id

    def retrieve(
        self, image_id: str, claim: str | None = None, method: str = "GET", **options: Any
    ) -> requests.Response:
        params = {"imageId": image_id} | ({"claim": claim} if claim else {})
        return self.request(method, RETRIEVE, params=params, **options)

    def confirm(self, image_id: str, claim: str | None = None) -> requests.Response:
        return self.retrieve(image_id, claim, "DELETE")

    def is_gone(self, image_id: str) -> bool:
        """Check whether a picture is gone. heroimg removes it just after the last byte for a reader without a claim."""
        return self.retrieve(image_id, method="HEAD").status_code == 404

    def open_checkout(self, image_id: Any) -> requests.Response:
        return self.request("POST", SESSION, json={"imageId": image_id})

    def session_of(self, image_id: str) -> str:
        """Open a checkout and return its session's id."""
        answer = self.open_checkout(image_id)
        assert answer.status_code == 200, answer.text
        secret: str = answer.json()["client_secret"]
        return secret.partition("_secret_")[0]

    def status(self, session_id: str) -> requests.Response:
        return self.request("GET", STATUS, params={"session_id": session_id})

    def many(self, count: int, image_id: str, claims: bool = False) -> list[requests.Response]:
        """Retrieve one picture with many readers at once."""
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda _: self.retrieve(image_id, new_token() if claims else None), range(count)))

    @contextmanager
    def connection(self, window: int | None = None) -> Iterator[socket.socket]:
        """Connect to the server, to send bytes that no HTTP library would send.

        :param window: how many bytes the system may receive before they are read.
        """
        address = urlsplit(self.server.url)
        with socket.socket() as connection:
            connection.settimeout(LONG)
            if window:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
            connection.connect((address.hostname, address.port))
            if address.scheme == "http":
                yield connection
                return
            context = ssl.create_default_context(cafile=os.environ["REQUESTS_CA_BUNDLE"])
            with context.wrap_socket(connection, server_hostname=address.hostname) as encrypted:
                yield encrypted

    def hang_up_after(self, count: int, image_id: str, claim: str | None = None) -> bytes:
        """Retrieve a picture and close the connection after this many bytes of it."""
        query = f"?imageId={image_id}" + (f"&claim={claim}" if claim else "")
        with self.connection(window=32768) as connection:
            connection.sendall(f"GET {RETRIEVE}{query} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            received = b""
            while len(received.partition(b"\r\n\r\n")[2]) < count:
                data = connection.recv(min(65536, count + 1024))
                assert data, received
                received += data
        return received


def new_token() -> str:
    return secrets.token_urlsafe(24)


def multipart(picture: bytes, name: str = "image") -> tuple[bytes, str]:
    """Return the body and the Content-Type of a form, for sending it in pieces."""
    request = requests.Request("POST", "http://test", files={name: ("photo.jpg", picture)}).prepare()
    assert isinstance(request.body, bytes)
    return request.body, request.headers["Content-Type"]
