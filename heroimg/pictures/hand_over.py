"""Handing claimed pictures to their readers, block by block. No claim lapses while its reader is served."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator

from heroimg.errors import ImageClaimed, ImageNotFound, StoreUnavailable
from heroimg.logs import short
from heroimg.stores.base import Claimed, Clock, ImageStore

log = logging.getLogger(__name__)

_BLOCK_BYTES = 256 * 1024

# How many unbuffered readers each process serves at a time. Each takes a thread for as long as it reads. Together with
# the calls that wait for Stripe (payments/stripe_http.py) they must not take all of gunicorn's (gunicorn_conf.py).
MAX_UNBUFFERED = 6


class HandOvers:
    """All hand-overs of one process."""

    def __init__(self, store: ImageStore, clock: Clock, claim_seconds: int) -> None:
        self.store = store
        self.clock = clock
        self.claim_seconds = claim_seconds
        self.unbuffered = threading.BoundedSemaphore(MAX_UNBUFFERED)
        self.running = set[HandOver]()

    def renew_claims(self) -> None:
        """Renew the claims of slow readers. A thread does this, because a blocked write lets no other code run."""
        for hand_over in self.running.copy():
            hand_over.renew_if_due()


class HandOver:
    """An iterator over the bytes of a claimed picture.

    For one use, `confirm` is called once the server has taken the last block and asks for more. If the server closes
    the iterator before that, as it does when the connection breaks, the claim is given back. This is a class, not a
    generator: closing a generator that never started skips its `finally`.

    A proxy that buffers the whole picture hides a slow reader's broken connection. So nginx is asked not to buffer, as
    long as there are threads to spare. A reader with a claim needs no such care: its picture waits until it confirms.
    https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering

    :param confirm: for one use, removes the picture; None if its reader confirms by itself.
    """

    def __init__(self, hand_overs: HandOvers, claimed: Claimed, token: str, confirm: Callable[[], None] | None) -> None:
        self._all = hand_overs
        self.image, self._stream = claimed
        self._token = token
        self._confirm = confirm
        self._renewing = threading.Lock()
        self._lost: ImageClaimed | ImageNotFound | None = None
        self._set_next_renewal()
        self.is_unbuffered = confirm is not None and hand_overs.unbuffered.acquire(blocking=False)
        hand_overs.running.add(self)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if block := self._stream.read(_BLOCK_BYTES):
            self.keep_claim()
            return block
        if self._confirm:
            confirm, self._confirm = self._confirm, None
            confirm()
        raise StopIteration

    def close(self) -> None:
        """Release everything. Give the claim back if the picture was for one use and its reader did not get it."""
        self._all.running.discard(self)
        if self.is_unbuffered:
            self.is_unbuffered = False
            self._all.unbuffered.release()
        self._stream.close()
        if self._confirm:
            self._confirm = None
            self._all.store.release(self.image.id, self._token)
            log.info("connection broke, gave back %s", short(self.image.id))

    def keep_claim(self) -> None:
        """Renew the claim if that is due.

        :raises ImageClaimed: or ImageNotFound; the claim lapsed, and another reader has the picture.
        """
        self.renew_if_due()
        if self._lost:
            raise self._lost

    def renew_if_due(self) -> None:
        """Renew the claim if half of it has passed."""
        with self._renewing:
            if self._renew_at <= self._all.clock():
                self._renew()

    def _renew(self) -> None:
        try:
            self._all.store.renew(self.image.id, self._token)
            self._set_next_renewal()
        except StoreUnavailable:
            pass  # no other reader can claim the picture either; the next block tries again
        except (ImageClaimed, ImageNotFound) as error:
            self._renew_at = math.inf
            # A picture that expired meanwhile belongs to its reader; one that another reader got does not.
            if isinstance(error, ImageClaimed) or self._all.clock() < self.image.expires:
                self._lost = error

    def _set_next_renewal(self) -> None:
        self._renew_at = self._all.clock() + self._all.claim_seconds / 2
