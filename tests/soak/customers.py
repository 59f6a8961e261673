"""The customers of torture.py: each makes one journey after another, and retries as a good page does."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from demo.stripe_stand_in import Refusal
from heroimg.stores.base import ImageStore
from tests.helpers import pictures
from tests.helpers.api import RETRIEVE, SESSION, STATUS, UPLOAD, new_token
from tests.helpers.production import Production
from tests.soak.model import Picture, TortureModel

# Seconds for which a customer retries. A claim lasts longer, so no second reader can get the picture in that time.
PATIENCE = 120


class Customer:
    """A customer who makes journeys through nginx, each connection from a new address.

    :param url: the address of the network that cuts connections.
    :param earlier: the same store, with a clock almost an hour behind, so that its pictures expire soon.
    """

    def __init__(
        self, house: Production, url: str, model: TortureModel, earlier: ImageStore, rng: random.Random
    ) -> None:
        self._house, self._url, self._model = house, url.replace("http:", "https:"), model
        self._earlier, self._rng = earlier, rng
        self._local = threading.local()

    def make_journeys(self, deadline: float) -> None:
        """Begin journeys until the deadline, at least two."""
        kinds = {
            self._buy: 10, self._use_once: 4, self._compete: 3, self._compete_without_claims: 2,
            self._give_up: 2, self._come_late: 3, self._fetch_before_paying: 3,
        }  # fmt: skip
        journeys = 0
        while time.monotonic() < deadline or journeys < 2:
            (kind,) = self._rng.choices(list(kinds), list(kinds.values()))
            kind()
            journeys += 1
            with self._model.lock:
                self._model.journeys[kind.__name__.strip("_").replace("_", " ")] += 1

    # Journeys

    def _buy(self) -> None:
        content = self._photo()
        if (picture := self._upload(content)) and (session_id := self._open_checkout(picture)):
            self._house.stand_in.pay(session_id)
            picture.is_paid = True
            self._ask_until(
                lambda answer: answer.json().get("status") == "complete", "GET", STATUS, session_id=session_id
            )
            self._fetch_and_confirm(picture, content)

    def _use_once(self) -> None:
        content = self._photo()
        if not (picture := self._upload(content)):
            return
        for _ in range(3):
            begun = time.time()
            answer = self._ask("GET", RETRIEVE, imageId=picture.image_id)
            if answer is None or answer.status_code >= 500:
                picture.may_be_gone = True
            elif answer.status_code == 200:
                self._compare(answer, content, picture)
                self._model.got(picture, f"once {begun}")
                picture.use_up()
            elif answer.status_code == 404:
                self._model.missed(picture)
                if not picture.got_by:
                    self._model.used_up_unread += 1
                return
            elif answer.status_code != 409 or not (picture.may_be_gone or self._model.may_be_left(picture)):
                self._complain(answer)

    def _compete(self) -> None:
        content, tokens = self._photo(), [new_token() for _ in range(4)]
        if picture := self._upload(content):
            with ThreadPoolExecutor(4) as pool:
                won = list(pool.map(lambda token: self._fetch(picture, content, token, has_rivals=True), tokens))
            if won.count(True) != 1:
                self._model.violate("other wrong answers", f"{won.count(True)} of 4 rivals got {picture.image_id}")
            self._confirm(picture, tokens[won.index(True)] if True in won else tokens[0])

    def _compete_without_claims(self) -> None:
        content = self._photo()
        if picture := self._upload(content):
            picture.may_be_gone = True
            with ThreadPoolExecutor(4) as pool:
                answers = list(pool.map(lambda _: self._ask("GET", RETRIEVE, imageId=picture.image_id), range(4)))
            for number, answer in enumerate(answers):
                if answer is not None and answer.status_code == 200:
                    self._compare(answer, content, picture)
                    self._model.got(picture, f"rival {number}")
                    picture.use_up()

    def _give_up(self) -> None:
        picture = self._upload(self._photo())
        if picture and self._rng.random() < 0.5:
            self._open_checkout(picture)

    def _come_late(self) -> None:
        content, token = self._photo(), new_token()
        staged = self._earlier.stage()
        staged.write(content)
        kept = self._earlier.keep(staged, "image/jpeg")
        staged.close()
        picture = self._model.add(Picture(kept.id, kept.expires))
        while (begun := time.time()) < kept.expires + 2:
            answer = self._ask("GET", RETRIEVE, imageId=kept.id, claim=token)
            if answer is not None and answer.status_code == 404:
                self._model.missed(picture)
            elif answer is not None and answer.status_code == 200:
                self._compare(answer, content, picture)
                if begun > kept.expires + 1:
                    self._model.violate("available too long", f"{kept.id}, {begun - kept.expires} s after it expired")
            time.sleep(0.1)

    def _fetch_before_paying(self) -> None:
        content = self._photo()
        if (picture := self._upload(content)) and (session_id := self._open_checkout(picture)):
            self._fetch_and_confirm(picture, content)
            try:
                self._house.stand_in.pay(session_id)
            except Refusal:
                return
            self._model.violate("paid without a picture", f"{picture.image_id}, which was gone already")

    # Steps of a journey

    def _photo(self) -> bytes:
        """Return a picture of 10 KB to 1 MB that no other customer has."""
        return pictures.jpeg(0.3) + self._rng.randbytes(int(10 ** self._rng.uniform(4, 6)))

    def _upload(self, content: bytes) -> Picture | None:
        for _ in range(20):
            answer = self._ask("POST", UPLOAD, files={"image": ("photo.jpg", content)})
            if answer is None or answer.status_code >= 500:
                with self._model.lock:
                    self._model.unanswered_uploads += 1
            elif answer.status_code == 200:
                return self._model.add(Picture(answer.json()["imageId"], time.time() + 3600))
            else:
                self._complain(answer)
        return None

    def _open_checkout(self, picture: Picture) -> str | None:
        answer = self._ask_until(lambda _: True, "POST", SESSION, json={"imageId": picture.image_id})
        if answer is None:
            self._model.missed(picture)
            return None
        secret: str = answer.json()["client_secret"]
        return secret.partition("_secret_")[0]

    def _fetch_and_confirm(self, picture: Picture, content: bytes) -> None:
        token = new_token()
        if self._fetch(picture, content, token):
            self._confirm(picture, token)

    def _fetch(self, picture: Picture, content: bytes, token: str, *, has_rivals: bool = False) -> bool:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            answer = self._ask("GET", RETRIEVE, imageId=picture.image_id, claim=token)
            if answer is not None and answer.status_code == 200:
                self._compare(answer, content, picture)
                self._model.got(picture, token)
                return True
            if answer is not None and answer.status_code == 404:
                self._model.missed(picture)
                return False
            if answer is not None and answer.status_code == 409 and has_rivals:
                return False
            if answer is not None and answer.status_code < 500:
                self._complain(answer)
            time.sleep(0.05)
        self._model.violate("pictures lost", f"{picture.image_id}: no good answer within {PATIENCE} s")
        return False

    def _confirm(self, picture: Picture, token: str) -> None:
        params = {"imageId": picture.image_id, "claim": token}
        if self._ask_until(lambda answer: answer.status_code == 204, "DELETE", RETRIEVE, **params):
            picture.is_gone = True
            answer = self._ask("GET", RETRIEVE, imageId=picture.image_id, claim=new_token())
            if answer is not None and answer.status_code in (200, 409):
                self._model.violate("available too long", f"{picture.image_id}, after it was confirmed")

    def check_remaining_pictures(self) -> None:
        """After the faults, check that every picture that must be there can be retrieved."""
        self._session().headers["Connection"] = "close"  # so that each request has an address of its own
        for picture in self._model.pictures:
            if picture.must_be_there():
                answer = self._ask("HEAD", RETRIEVE, imageId=picture.image_id)
                if answer is None or answer.status_code not in (200, 409):
                    self._model.missed(picture)

    # Requests

    def _ask_until(
        self, is_enough: Callable[[requests.Response], bool], method: str, path: str, json: Any = None, **params: str
    ) -> requests.Response | None:
        """Repeat a request until its answer is good; return None after a 404, or after PATIENCE seconds."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            answer = self._ask(method, path, json=json, **params)
            if answer is not None and answer.status_code == 404:
                return None
            if answer is not None and answer.ok and is_enough(answer):
                return answer
            if answer is not None and not answer.ok and answer.status_code < 500:
                self._complain(answer)
            time.sleep(0.05)
        self._model.violate("other wrong answers", f"{method} {path}: no good answer within {PATIENCE} s")
        return None

    def _ask(
        self, method: str, path: str, files: Any = None, json: Any = None, **params: str
    ) -> requests.Response | None:
        """Send a request once; return None unless a complete answer arrives."""
        begun = time.time()
        try:
            answer = self._session().request(
                method, self._url + path, params=params, files=files, json=json, timeout=60
            )
        except requests.RequestException:
            return None
        self._model.answered(begun, answer)
        if answer.status_code == 429:  # nginx: too many requests at once
            time.sleep(1)
            return None
        return answer

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.trust_env = False
            self._local.session.verify = str(self._house.certificate)
        session: requests.Session = self._local.session
        return session

    def _compare(self, answer: requests.Response, content: bytes, picture: Picture) -> None:
        if answer.content != content:
            self._model.violate("other wrong answers", f"{picture.image_id}: {len(answer.content)} other bytes")

    def _complain(self, answer: requests.Response) -> None:
        self._model.violate("other wrong answers", f"{answer.request.method} {answer.status_code} {answer.text[:200]}")
