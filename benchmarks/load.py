"""The load generator: customers who upload a picture and fetch it, again and again, each on a connection of its own.

    python -m benchmarks.load --port 8000 --clients 16 --journeys 100 --picture photo.jpg form

A process of its own, so that what it computes is not the server's. It asks the kernel for little: a request is sent
from one buffer, an answer is received into another, and compared. It prints JSON: how long it took, what this process
computed meanwhile, and the seconds of each journey: of its upload, and of its retrieval.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

UPLOAD, RETRIEVE = "/api/temp-image-upload", "/api/temp-image-retrieve"
_BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW5"  # as long as Chrome's


class Connection:
    """One kept-alive connection.

    :param room: bytes that the longest answer may have.
    """

    def __init__(self, port: int, room: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(room)

    def ask(self, head: str, *body: bytes) -> memoryview:
        """Send a request and return the answer's body, which the next request overwrites.

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
            raise OSError("the server has closed the connection")
        return count

    def close(self) -> None:
        self._socket.close()


class FormCustomer:
    """Uploads in a form and fetches once, as the front end does."""

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
            raise OSError("another picture came back")

    def close(self) -> None:
        self._connection.close()


class FileCustomer(FormCustomer):
    """Uploads the bare bytes by PUT under a name of its own, and fetches that: what a file server can do."""

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
            raise OSError("another picture came back")


CUSTOMERS: dict[str, type[FormCustomer]] = {"form": FormCustomer, "file": FileCustomer}


def run(clients: int, journeys: int, customer: Callable[[], FormCustomer]) -> dict[str, object]:
    """Make these journeys, by so many at once."""
    numbers, times, faults = iter(range(journeys)), list[tuple[float, float]](), list[Exception]()

    def work(one: FormCustomer) -> None:
        try:
            for _ in numbers:
                times.append(journey(one))
        except Exception as error:  # to be told by who waits for us
            faults.append(error)
        finally:
            one.close()

    threads = [threading.Thread(target=work, args=(customer(),)) for _ in range(clients)]
    gc.collect()
    gc.disable()
    begun, computed = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, computed = time.perf_counter() - begun, time.process_time() - computed
    if faults:
        raise faults[0]
    return {"seconds": seconds, "own_cpu_seconds": computed, "journeys": times}


def journey(customer: FormCustomer) -> tuple[float, float]:
    """Upload and retrieve; return the seconds of each."""
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
