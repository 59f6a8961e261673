"""The model for torture.py: it checks every answer, and the pictures that remain at the end."""

from __future__ import annotations

import re
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

PROMISES = (
    "pictures lost",
    "handed to two holders",
    "paid without a picture",
    "available too long",
    "left behind",
    "5xx not caused by a fault",
    "other wrong answers",
)

# Seconds after a fault during which nginx may still answer 502.
_AFTERMATH = 1.0


@dataclass
class Picture:
    """A picture whose upload was acknowledged.

    :param expires: Unix seconds; a picture that a customer uploads outlives the run.
    :param got_by: the tokens of the readers that got every byte.
    :param is_gone: it was confirmed, or a reader without a claim got it.
    :param may_be_gone: a reader without a claim lost its connection during the retrieval.
    :param used_at: when a reader without a claim had got it. A worker that is killed then cannot remove it any more.
    """

    image_id: str
    expires: float
    is_paid: bool = False
    got_by: set[str] = field(default_factory=set)
    is_gone: bool = False
    may_be_gone: bool = False
    used_at: float | None = None

    def use_up(self) -> None:
        """Note that a reader without a claim has got it."""
        self.is_gone, self.used_at = True, time.time()

    def must_be_there(self) -> bool:
        return not self.is_gone and not self.may_be_gone and time.time() < self.expires - 1


class TortureModel:
    """The model of one run. It counts events, and records every broken promise."""

    def __init__(self, store: str, seed: int) -> None:
        self.store, self.seed = store, seed
        self.faults: Counter[str] = Counter()
        self.journeys: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.violations: list[tuple[str, str]] = []
        self.pictures: list[Picture] = []
        self.unanswered_uploads = 0
        self.used_up_unread = 0
        self.killed_at = list[float]()
        self._spans: list[tuple[float, float]] = []
        self.lock = threading.Lock()

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Count a fault, and record when it began and ended."""
        self.note_fault(name)
        begun = time.time()
        with self.lock:
            self._spans.append((begun, float("inf")))
            place = len(self._spans) - 1
        try:
            yield
        finally:
            self._spans[place] = (begun, time.time() + _AFTERMATH)

    def note_fault(self, name: str) -> None:
        with self.lock:
            self.faults[name] += 1

    def violate(self, promise: str, what: str) -> None:
        with self.lock:
            self.violations.append((promise, what))

    def add(self, picture: Picture) -> Picture:
        with self.lock:
            self.pictures.append(picture)
        return picture

    def answered(self, begun: float, answer: requests.Response) -> None:
        """Check that a 5xx was caused by a fault of this run."""
        with self.lock:
            self.answers[str(answer.status_code)] += 1
        if answer.status_code >= 500 and not self._is_explained(begun, _code(answer)):
            self.violate("5xx not caused by a fault", f"{answer.status_code} {answer.text[:200]}")

    def got(self, picture: Picture, token: str) -> None:
        """Record that a customer has received every byte."""
        with self.lock:
            picture.got_by.add(token)
        if len(picture.got_by) > 1:
            self.violate("handed to two holders", picture.image_id)

    def missed(self, picture: Picture) -> None:
        """Record that a customer got 404."""
        if picture.must_be_there():
            self.violate("paid without a picture" if picture.is_paid else "pictures lost", picture.image_id)

    def may_be_left(self, picture: Picture) -> bool:
        """Return whether a worker was killed so near to a retrieval without a claim that it may not have removed it."""
        used_at = picture.used_at
        return used_at is not None and any(abs(killed_at - used_at) < _AFTERMATH for killed_at in self.killed_at)

    def check_names(self, names: list[str]) -> None:
        """Check the files after the faults: only whole pictures, each not yet received or with an unanswered upload."""
        if not self.are_whole_pictures(names):
            self.violate("left behind", str([name for name in names if not re.fullmatch(r"\w{32}(\.json)?", name)]))
        known = {picture.image_id: picture for picture in self.pictures}
        there = {name[:32] for name in names}
        for image_id in there & known.keys():
            if known[image_id].is_gone and not self.may_be_left(known[image_id]):
                self.violate("left behind", f"{image_id}, which its reader has received")
        if len(there - known.keys()) > self.unanswered_uploads:
            self.violate("left behind", f"{len(there - known.keys())} unknown, {self.unanswered_uploads} not answered")

    @staticmethod
    def are_whole_pictures(names: list[str]) -> bool:
        return set(names) == {f"{name[:32]}{suffix}" for name in names for suffix in ("", ".json")}

    def check_nothing_is_left(self, names: list[str]) -> None:
        if names:
            self.violate("left behind", f"after all have expired: {names}")

    def check_log(self, log: str) -> None:
        for match in re.finditer(r"Traceback .*\n(?:[ \t].*\n)*.*", log):
            if "ResourceWarning: unclosed <socket" not in match[0]:  # gunicorn's own, about its inherited socket
                self.violate("other wrong answers", f"a traceback in the log: {match[0]}")

    def check_journeys(self, least: int) -> None:
        if sum(self.journeys.values()) < least:
            self.violate("other wrong answers", f"fewer than {least} journeys were completed")

    def watch(self, work: Callable[..., None]) -> Callable[..., None]:
        """Wrap a thread's function, so that an exception counts as a violation."""

        def watched(*arguments: Any) -> None:
            try:
                work(*arguments)
            except BaseException:
                self.violate("other wrong answers", traceback.format_exc())
                raise

        return watched

    def table(self) -> str:
        """Return the counts and the violations as text, with the seed that repeats the run."""
        counts = Counter(promise for promise, _ in self.violations)
        rows = [
            ("journeys", sum(self.journeys.values())),
            *((f"  {name}", count) for name, count in sorted(self.journeys.items())),
            ("answers", sum(self.answers.values())),
            *((f"  {name}", count) for name, count in sorted(self.answers.items())),
            *sorted(self.faults.items()),
            ("uploads whose answer was lost", self.unanswered_uploads),
            ("used up unread, by readers without a claim", self.used_up_unread),
            *((promise, counts[promise]) for promise in PROMISES),
        ]
        lines = [f"Torture of {self.store}, seed {self.seed}", *(f"{name:44}{count:8}" for name, count in rows)]
        return "\n".join([*lines, *(f"NOT AS PROMISED: {promise}: {what}" for promise, what in self.violations[:20])])

    def _is_explained(self, begun: float, code: str) -> bool:
        if code in ("payment_unreachable", "payment_failed"):
            return self.faults["failures of Stripe"] > 0
        now = time.time()
        return code == "server_unreachable" and any(start <= now and begun <= end for start, end in list(self._spans))


def _code(answer: requests.Response) -> str:
    try:
        return str(answer.json()["code"])
    except (ValueError, KeyError, TypeError):
        return ""
