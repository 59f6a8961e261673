"""Whether slow phones keep others waiting, behind nginx on two workers: `python -m benchmarks.slow_phones`.

Fifty phones upload a picture of 1 MB at 20 KB a second, for as long as others make whole journeys, one after the other.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from tests.helpers import pictures
from tests.helpers.api import UPLOAD, multipart, new_token
from tests.helpers.production import Production, addresses, production

PHONES, BYTES_A_SECOND, JOURNEYS = 50, 20_000, 30


def main() -> None:
    with tempfile.TemporaryDirectory() as name, production(Path(name) / "whole") as house:
        alone = journeys(house)
        is_over = threading.Event()
        phones = [threading.Thread(target=phone, args=(house, is_over)) for _ in range(PHONES)]
        for thread in phones:
            thread.start()
        beside = journeys(house)
        is_over.set()
        for thread in phones:
            thread.join()
    print(f"a journey alone: {median(alone) * 1000:.0f} ms; the slowest {max(alone) * 1000:.0f} ms")
    print(f"a journey beside {PHONES} phones: {median(beside) * 1000:.0f} ms; the slowest {max(beside) * 1000:.0f} ms")
    print(f"ratio of the medians: {median(beside) / median(alone):.2f}")


def journeys(house: Production) -> list[float]:
    """Make journeys with a picture of 3 MB; return their seconds."""
    picture, seconds = pictures.jpeg().ljust(3 * 2**20, b"\0"), []
    for _ in range(JOURNEYS):
        api, token, begun = house.customer(), new_token(), time.perf_counter()
        image_id = api.keep(picture)
        session_id = api.session_of(image_id)
        house.stand_in.pay(session_id)
        api.status(session_id)
        assert api.retrieve(image_id, token).content == picture
        api.confirm(image_id, token)
        seconds.append(time.perf_counter() - begun)
    return seconds


def phone(house: Production, is_over: threading.Event) -> None:
    """Upload, slowly, again and again."""
    body, content_type = multipart(pictures.jpeg().ljust(2**20, b"\0"))
    head = f"Host: heroimg.example.com\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    context = ssl.create_default_context(cafile=str(house.certificate))
    while not is_over.is_set():
        with socket.socket() as plain:
            plain.bind((next(addresses), 0))
            plain.connect(("127.0.0.1", house.port))
            with context.wrap_socket(plain, server_hostname="heroimg.example.com") as connection:
                connection.sendall(f"POST {UPLOAD} HTTP/1.1\r\n{head}".encode())
                for start in range(0, len(body), BYTES_A_SECOND // 4):
                    connection.sendall(body[start : start + BYTES_A_SECOND // 4])
                    if is_over.wait(0.25):
                        return


if __name__ == "__main__":
    main()
