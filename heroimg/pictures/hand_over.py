"""Hands claimed pictures to their readers, block by block, and renews their claims.

A reader with a claim token may fetch the picture several times. When the reader confirms, heroimg ends the picture's
checkout and then removes the picture. So no customer pays for a picture that is gone.

A reader without a token gets the picture only one time (`is_for_one_use`). heroimg first tries to end the checkout,
then sends the picture, and then removes it.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from heroimg.errors import ImageClaimed, ImageNotFound, StoreUnavailable
from heroimg.logs import short
from heroimg.stores.base import Claimed, Clock, ImageStore
from heroimg.stores.image import StoredImage

log = logging.getLogger(__name__)

# heroimg sends blocks, and does not use sendfile, so that it can stop when the claim is lost.
_BLOCK_BYTES = 256 * 1024

# Each process serves at most this many unbuffered readers at a time. These readers and the calls to Stripe
# (payments/stripe_http.py) leave some of gunicorn's threads (gunicorn_conf.py) free for other requests.
MAX_UNBUFFERED = 6


class EndsSessions(Protocol):
    """The methods of heroimg/payments/ending.py that this module uses."""

    def end(self, image: StoredImage) -> None: ...
    def end_before_hand_over(self, image: StoredImage) -> None: ...
    def try_to_end(self, image: StoredImage) -> None: ...


class HandOvers:
    """All hand-overs of one process.

    :param on_removed: called with `paid="true"` or `paid="false"` for each picture that was removed.
    :ivar renewal_seconds: the seconds between two runs of `renew_claims`.
    """

    def __init__(
        self,
        store: ImageStore,
        clock: Clock,
        claim_seconds: int,
        ender: EndsSessions,
        on_removed: Callable[..., None],
    ) -> None:
        self.store = store
        self.clock = clock
        self.claim_seconds = claim_seconds
        self.renewal_seconds = claim_seconds / 4
        self.unbuffered = threading.BoundedSemaphore(MAX_UNBUFFERED)
        self.running = set[HandOver]()
        self._ender = ender
        self._on_removed = on_removed

    def start(self, image_id: str, token: str | None, before_stripe: Callable[[], None]) -> HandOver:
        """Claim a picture, and return its hand-over. Without a token, the hand-over is for one use.

        :param before_stripe: called before Stripe is asked to end a session. If `before_stripe` raises an error,
            nothing is handed over.
        :raises ImageNotFound: unknown, expired or removed already.
        :raises ImageClaimed: another token holds it.
        :raises StripeUnreachable, StripeFailed: the checkout is not complete, and a session in `sessions_to_end` may
            be open.
        """
        if token:
            claimed = self.store.claim(image_id, token)
            log.info("claimed %s", short(image_id))
            return HandOver(self, claimed, token, is_for_one_use=False)
        token = secrets.token_urlsafe(24)
        claimed = self.store.claim(image_id, token)
        log.info("handing over %s for one use", short(image_id))
        hand_over = HandOver(self, claimed, token, is_for_one_use=True)
        try:
            if claimed.image.payable_sessions:
                before_stripe()
            self._ender.end_before_hand_over(claimed.image)
            hand_over.keep_claim()  # Stripe may have taken longer than a claim lasts
        except BaseException:
            hand_over.close()
            raise
        return hand_over

    def confirm(self, image_id: str, token: str | None, before_stripe: Callable[[], None]) -> None:
        """Remove a picture, because its reader confirms the receipt.

        :param before_stripe: called before Stripe is asked to end a session. If `before_stripe` raises an error,
            nothing is removed.
        :raises ImageNotFound: unknown, expired or removed already.
        :raises ImageClaimed: another token holds it.
        :raises StripeUnreachable, StripeFailed: a session may still be open.
        """
        image = self.store.get(image_id)
        image.refuse_others(token, int(self.clock()))
        if image.payable_sessions:
            before_stripe()
        self._ender.end(image)
        if self.remove(image, token):
            log.info("confirmed %s", short(image_id))

    def remove(self, image: StoredImage, token: str | None) -> bool:
        """Remove a picture whose sessions the caller has tried to end. Return False if the picture was gone already."""
        removed = self.store.remove(image.id, token)
        if removed is None:
            return False
        self._on_removed(paid=str(removed.checkout_complete).lower())
        if removed.checkout_session != image.checkout_session or removed.sessions_to_end:  # a session may be open
            self._ender.try_to_end(removed)
        return True

    def renew_claims(self) -> None:
        """Renew the claims of slow readers. A background thread does this, because a reader's thread may be blocked."""
        for hand_over in self.running.copy():
            hand_over.renew_if_due()


class HandOver:
    """An iterator over the bytes of a claimed picture.

    A hand-over for one use removes the picture when the server asks for more after the last block. If the connection
    breaks earlier, the server closes the iterator, and the claim is given back. This is a class, because closing a
    generator that never started skips its `finally`.

    A proxy that buffers the whole picture hides a broken connection. So heroimg asks nginx not to buffer for readers
    without a token, for at most MAX_UNBUFFERED readers at a time. A reader with a token can fetch its picture again.
    https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering
    """

    def __init__(self, hand_overs: HandOvers, claimed: Claimed, token: str, *, is_for_one_use: bool) -> None:
        self._all = hand_overs
        self.image, self._stream = claimed
        self._token = token
        self._must_remove = is_for_one_use
        self._renewing = threading.Lock()
        self._lost: ImageClaimed | ImageNotFound | None = None
        self._set_next_renewal()
        self.is_unbuffered = is_for_one_use and hand_overs.unbuffered.acquire(blocking=False)
        hand_overs.running.add(self)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if block := self._stream.read(_BLOCK_BYTES):
            self.keep_claim()
            return block
        if self._must_remove:
            self._must_remove = False
            if self._all.remove(self.image, self._token):
                log.info("handed over %s", short(self.image.id))
        raise StopIteration

    def close(self) -> None:
        """Close the picture. If a hand-over for one use was not complete, give the claim back."""
        self._all.running.discard(self)
        if self.is_unbuffered:
            self.is_unbuffered = False
            self._all.unbuffered.release()
        self._stream.close()
        if self._must_remove:
            self._must_remove = False
            self._all.store.release(self.image.id, self._token)
            log.info("gave back %s, not all of it was sent", short(self.image.id))

    def keep_claim(self) -> None:
        """Renew the claim if a renewal is due.

        :raises ImageClaimed: the claim lapsed, and another reader holds the picture now.
        :raises ImageNotFound: the picture was removed. Or this claim lapsed, and another reader claimed and released
            the picture.
        """
        self.renew_if_due()
        if self._lost:
            raise self._lost

    def renew_if_due(self) -> None:
        """Renew the claim if half of its time has passed."""
        with self._renewing:
            if self._renew_at <= self._all.clock():
                self._renew()

    def _renew(self) -> None:
        try:
            self._all.store.renew(self.image.id, self._token)
            self._set_next_renewal()
        except StoreUnavailable:
            pass  # probably no other reader can claim the picture either; a later call tries again
        except (ImageClaimed, ImageNotFound) as error:
            self._renew_at = math.inf
            # If the picture has expired, no other reader can get it, so this reader gets the rest.
            if isinstance(error, ImageClaimed) or self._all.clock() < self.image.expires:
                self._lost = error

    def _set_next_renewal(self) -> None:
        self._renew_at = self._all.clock() + self._all.claim_seconds / 2
