"""Handing a claimed picture to its reader, block by block."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

from heroimg.logs import short
from heroimg.stores.base import Claimed, Clock, ImageStore

log = logging.getLogger(__name__)

_BLOCK_BYTES = 256 * 1024

# How many unbuffered readers each process serves at a time. Each takes a thread for as long as it reads. Together with
# the calls that wait for Stripe (payments/stripe_http.py) they must not take all of gunicorn's (gunicorn_conf.py).
_MAX_UNBUFFERED = 6
_unbuffered_slots = threading.BoundedSemaphore(_MAX_UNBUFFERED)


class HandOver:
    """An iterator over the bytes of a claimed picture. It renews the claim until its reader has them.

    For one use, `confirm` is called once the server has taken the last block and asks for more. If the server closes
    the iterator before that, as it does when the connection breaks, the claim is given back. This is a class, not a
    generator: closing a generator that never started skips its `finally`.

    A proxy that buffers the whole picture hides a slow reader's broken connection. So nginx is asked not to buffer, as
    long as there are threads to spare. A reader with a claim needs no such care: its picture waits until it confirms.
    https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering

    :param confirm: for one use, removes the picture; None if its reader confirms by itself.
    """

    def __init__(
        self,
        store: ImageStore,
        claimed: Claimed,
        token: str,
        *,
        clock: Clock,
        claim_seconds: int,
        confirm: Callable[[], None] | None,
    ) -> None:
        self._store = store
        self.image, self._stream = claimed
        self._token = token
        self._clock = clock
        self._claim_seconds = claim_seconds
        self._confirm = confirm
        self._renew_at = clock() + claim_seconds // 2
        self.is_unbuffered = confirm is not None and _unbuffered_slots.acquire(blocking=False)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if block := self._stream.read(_BLOCK_BYTES):
            self._renew()
            return block
        if self._confirm:
            confirm, self._confirm = self._confirm, None
            confirm()
        raise StopIteration

    def close(self) -> None:
        """Release everything. Give the claim back if the picture was for one use and its reader did not get it."""
        if self.is_unbuffered:
            self.is_unbuffered = False
            _unbuffered_slots.release()
        self._stream.close()
        if self._confirm:
            self._confirm = None
            self._store.release(self.image.id, self._token)
            log.info("connection broke, gave back %s", short(self.image.id))

    def _renew(self) -> None:
        """Renew the claim when half of it has passed.

        :raises ImageClaimed: the reader was so slow that the claim lapsed, and another reader has the picture.
        :raises ImageNotFound: the other reader has confirmed already.
        """
        if self._renew_at <= self._clock() < self.image.expires:
            self._store.renew(self.image.id, self._token)
            self._renew_at = self._clock() + self._claim_seconds // 2
