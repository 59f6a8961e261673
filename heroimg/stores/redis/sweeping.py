"""Sweeping Redis: report expired pictures with a complete checkout, and pictures with sessions to end.

All workers on all machines may sweep at the same time. The worker whose script removes a picture reports the picture.
If the answer of the script is lost, the picture is not reported.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from heroimg.errors import ImageNotFound, StoreUnavailable
from heroimg.stores.base import Swept
from heroimg.stores.image import StoredImage
from heroimg.stores.redis.due import DueIds
from heroimg.stores.redis.pictures import RedisPictures
from heroimg.stores.redis.scripts import REMOVE_EXPIRED

# A picture with sessions to end is reported again after this time, which is less than the default
# HEROIMG_SWEEP_SECONDS.
_RETRY_SECONDS = 30


class DueSweep:
    """One sweep of the due ids.

    :param now: returns the current time in whole Unix seconds.
    """

    def __init__(self, pictures: RedisPictures, due: DueIds, now: Callable[[], int]) -> None:
        self._pictures = pictures
        self._due = due
        self._now = now
        self._expired = list[StoredImage]()
        self._with_sessions_to_end = list[str]()

    def run(self, seconds: float | None = None) -> Swept:
        """Look at every id that is due.

        If Redis fails, return the pictures that this sweep has removed, because no other sweep can report them.

        :param seconds: stop after this time. The first id is always looked at.
        """
        try:
            self._look_at_due(math.inf if seconds is None else time.monotonic() + seconds)
        except StoreUnavailable:
            if not self._expired:
                raise
        return Swept(tuple(self._expired), with_sessions_to_end=tuple(self._with_sessions_to_end))

    def _look_at_due(self, deadline: float) -> None:
        while ids := self._due.first(self._now()):
            for image_id in ids:
                self._look_at(image_id)
                if time.monotonic() >= deadline:
                    return

    def _look_at(self, image_id: str) -> None:
        now = self._now()
        try:
            image, _ = self._pictures.change(image_id, REMOVE_EXPIRED, now=now)
        except ImageNotFound:
            self._due.remove(image_id)
            return
        if image.expires <= now:
            self._expired.append(image)
            self._due.remove(image_id)
        elif image.sessions_to_end:
            self._with_sessions_to_end.append(image_id)
            self._due.postpone(image_id, min(now + _RETRY_SECONDS, image.expires), now)
        else:
            self._due.postpone(image_id, image.expires, now)
