"""kill -9 at any moment: no acknowledged picture is lost or handed over twice, and no file is left behind."""

from __future__ import annotations

import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import requests

from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.serving import wait_for

PICTURE = pictures.jpeg(0.5)


class Ledger:
    """The answers that clients got, by picture id."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.received: list[str] = []
        self.cut: set[str] = set()
        self.surprises: list[str] = []

    def customer(self, api: Api, is_over: threading.Event) -> None:
        while not is_over.is_set():
            with suppress(requests.RequestException):
                answer = api.upload(PICTURE)
                if answer.status_code != 200:
                    self.surprises.append(answer.text)
                    continue
                image_id = answer.json()["imageId"]
                self.acknowledged.add(image_id)
                if random.random() < 0.5:
                    self.fetch(api, image_id)

    def fetch(self, api: Api, image_id: str) -> None:
        try:
            answer = api.retrieve(image_id)
        except requests.RequestException:
            self.cut.add(image_id)
            return
        if answer.status_code == 200 and answer.content == PICTURE:
            self.received.append(image_id)
        else:
            self.surprises.append(f"{answer.status_code} {len(answer.content)}")


def test_workers_killed_during_uploads_and_retrievals_lose_nothing_and_leave_nothing(own: Api) -> None:
    ledger = Ledger()
    is_over = threading.Event()

    def kill_workers() -> None:
        while not is_over.is_set():
            ready = own.server.log().count("ready: ")
            with suppress(ProcessLookupError, IndexError):
                os.kill(random.choice(own.server.workers()), signal.SIGKILL)
                wait_for(lambda: own.server.log().count("ready: ") > ready, "a new worker")  # noqa: B023

    killer = threading.Thread(target=kill_workers)
    killer.start()
    with ThreadPoolExecutor(8) as pool:
        customers = [pool.submit(ledger.customer, own, is_over) for _ in range(8)]
        try:
            wait_for(
                lambda: own.server.log().count("SIGKILL") >= 3 and len(ledger.acknowledged) > 20,
                "some workers to be killed and some pictures to be kept",
            )
        finally:
            is_over.set()
        for customer in customers:
            customer.result()
    killer.join()
    assert not ledger.surprises

    own.server.kill()
    own.server.gunicorn()
    swept = own.server.flask("sweep")
    assert swept.returncode == 0, swept.stderr
    names = own.server.names()
    held = {name for name in names if "." not in name}
    assert names == sorted([*held, *(f"{image_id}.json" for image_id in held)])

    assert len(ledger.received) == len(set(ledger.received))
    # A worker killed between its reader's last byte and the confirmation leaves the claim, which keeps others out.
    for image_id in held.intersection(ledger.received):
        assert own.retrieve(image_id).status_code == 409
    # A reader that was cut off counts as served if the server had handed the last byte to its connection.
    assert ledger.acknowledged - set(ledger.received) - ledger.cut <= held
    for image_id in (held & ledger.acknowledged) - ledger.cut - set(ledger.received):
        assert own.retrieve(image_id).content == PICTURE
        wait_for(lambda image_id=image_id: own.is_gone(image_id), "the picture to be gone")  # type: ignore[misc]


def test_acknowledged_pictures_are_there_after_the_server_was_killed_and_started_again(own: Api) -> None:
    ids = [own.keep(PICTURE) for _ in range(5)]
    own.server.kill()
    own.server.gunicorn()
    for image_id in ids:
        assert own.retrieve(image_id).content == PICTURE
    wait_for(lambda: own.server.names() == [], "the last one to be gone")
