"""The load generator: customers who upload a picture and retrieve it, each on a kept-alive connection.

    python -m benchmarks.load --port 8000 --clients 16 --journeys 100 --picture photo.jpg form

It runs in a process of its own, so that its CPU time is not the server's, and uses plain sockets, which cost little. It
prints JSON: the total seconds, the CPU seconds of this process, and for each journey the seconds of its upload and of
its retrieval.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

UPLOAD, RETRIEVE = "/api/temp-image-upload", "/api/temp-image-retrieve"
_BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW5"  # as long as Chrome's


class Connection:
    """A kept-alive connection.

    :param room: the maximum number of bytes in an answer.
    """

    def __init__(self, port: int, room: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(room)

    def ask(self, head: str, *body: bytes) -> memoryview:
        """Send a request and return the answer's body. The next request overwrites it.

        :raises OSError: the answer is not 200, 201 or 204.
        """
        self._socket.sendall(head.encode())
        for part in body:
            self._socket.sendall(part)
        view, received, end = memoryview(self._buffer), 0, -1
        while end < 0:
            received += self._receive(view[received:])
            end = self._buffer.find(b"\r\n\r\n", 0, received)
        answer = bytes(view[:end]).lower()
        if not re.match(rb"http/1.1 20[014] ", answer):
            raise OSError(f"{head.partition(' HTTP')[0]}: {bytes(view[:received])[:500]!r}")
        length = re.search(rb"content-length: (\d+)", answer)
        whole = end + 4 + (int(length[1]) if length else 0)
        while received < whole:
            received += self._receive(view[received:])
        return view[end + 4 : whole]

    def _receive(self, room: memoryview) -> int:
        if not (count := self._socket.recv_into(room)):
            raise OSError("the server closed the connection")
        return count

    def close(self) -> None:
        self._socket.close()


class FormCustomer:
    """Uploads in a form and retrieves, as the front end does."""

    def __init__(self, port: int, picture: bytes) -> None:
        self._picture = picture
        self._connection = Connection(port, len(picture) + 64 * 1024)
        head = (
            f"--{_BOUNDARY}\r\n"
            'Content-Disposition: form-data; name="image"; filename="photo.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        )
        self._body = (head.encode(), picture, f"\r\n--{_BOUNDARY}--\r\n".encode())
        self._head = (
            f"POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={_BOUNDARY}\r\n"
            f"Content-Length: {sum(map(len, self._body))}\r\n\r\n"
        )

    def upload(self) -> str:
        image_id: str = json.loads(bytes(self._connection.ask(self._head, *self._body)))["imageId"]
        return image_id

    def retrieve(self, image_id: str) -> None:
        head = f"GET {RETRIEVE}?imageId={image_id} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        if bytes(self._connection.ask(head)) != self._picture:
            raise OSError("the server sent another picture")

    def close(self) -> None:
        self._connection.close()


class FileCustomer(FormCustomer):
    """Uploads the bytes by PUT and retrieves them by name, as from a file server."""

    def __init__(self, port: int, picture: bytes) -> None:
        super().__init__(port, picture)
        self._name, self._count = f"{os.getpid()}-{id(self)}", 0

    def upload(self) -> str:
        self._count += 1
        name = f"/{self._name}-{self._count}"
        head = f"PUT {name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(self._picture)}\r\n\r\n"
        self._connection.ask(head, self._picture)
        return name

    def retrieve(self, image_id: str) -> None:
        if bytes(self._connection.ask(f"GET {image_id} HTTP/1.1\r\nHost: localhost\r\n\r\n")) != self._picture:
            raise OSError("the server sent another picture")


CUSTOMERS: dict[str, type[FormCustomer]] = {"form": FormCustomer, "file": FileCustomer}


def run(clients: int, journeys: int, customer: Callable[[], FormCustomer]) -> dict[str, object]:
    """Share this number of journeys among the clients, and make them."""
    customers, numbers = [customer() for _ in range(clients)], iter(range(journeys))

    def work(one: FormCustomer) -> list[tuple[float, float]]:
        with closing(one):
            return [journey(one) for _ in numbers]

    gc.collect()
    gc.disable()
    begun, computed = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(clients) as threads:
        times = [journey for share in threads.map(work, customers) for journey in share]
    seconds, computed = time.perf_counter() - begun, time.process_time() - computed
    return {"seconds": seconds, "own_cpu_seconds": computed, "journeys": times}


def journey(customer: FormCustomer) -> tuple[float, float]:
    """Upload and retrieve a picture; return the seconds of each."""
    begun = time.perf_counter()
    image_id = customer.upload()
    kept = time.perf_counter()
    customer.retrieve(image_id)
    return kept - begun, time.perf_counter() - kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("customer", choices=CUSTOMERS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--journeys", type=int, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    given = parser.parse_args()
    picture = given.picture.read_bytes()
    kind = CUSTOMERS[given.customer]
    print(json.dumps(run(given.clients, given.journeys, lambda: kind(given.port, picture))))


if __name__ == "__main__":
    main()
