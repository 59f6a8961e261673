"""Ends a picture's Checkout Sessions when a new session replaces them, and before the picture is removed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from heroimg.errors import (
    CheckoutNotConfigured,
    ImageNotFound,
    SessionNotFound,
    StoreUnavailable,
    StripeFailed,
    StripeUnreachable,
)
from heroimg.logs import short
from heroimg.payments import notes
from heroimg.payments.stripe_sessions import StripeSessions
from heroimg.stores.base import ImageStore
from heroimg.stores.image import StoredImage

log = logging.getLogger(__name__)

# A sweep stops asking Stripe after this many failures, because slow failures would delay the next sweep.
_MOST_FAILURES = 3


class SessionEnder:
    """Ends sessions that might still be paid. An ended session is noted, so that later requests do not ask Stripe."""

    def __init__(self, store: ImageStore, sessions: StripeSessions, checkout_notes: notes.CheckoutNotes) -> None:
        self._store = store
        self._sessions = sessions
        self._notes = checkout_notes

    def end(self, image: StoredImage) -> None:
        """End all sessions of a picture that might still be paid.

        :raises StripeUnreachable, StripeFailed: a session may still be open.
        """
        image = self.end_others(image)
        for session_id in image.payable_sessions:
            image = self._end_one(image, session_id)

    def end_before_hand_over(self, image: StoredImage) -> None:
        """End the picture's sessions. If the current session cannot be ended, the picture is handed over anyway.

        :raises StripeUnreachable, StripeFailed: the checkout is not complete, and a session in `sessions_to_end` may
            be open.
        """
        if not image.checkout_complete:
            image = self.end_others(image)
        self.try_to_end(image)

    def try_to_end(self, image: StoredImage) -> None:
        """Try to end a picture's sessions. A failure is only logged, because the reader gets the picture anyway."""
        try:
            self.end(image)
        except (StripeFailed, StripeUnreachable) as error:
            log.error(
                "%s is handed over, but its checkout %s may still be open (%s): expire it in Stripe's dashboard, or "
                "refund its payment", short(image.id), " or ".join(map(short, image.payable_sessions)), error.code,
            )  # fmt: skip

    def end_replaced(self, image_ids: Iterable[str]) -> None:
        """Try again to end the `sessions_to_end` of these pictures. The sweep calls this."""
        failures = 0
        for image_id in image_ids:
            try:
                self.end_others(self._store.get(image_id))
            except ImageNotFound:
                pass
            except (StripeFailed, StripeUnreachable) as error:
                log.warning("cannot end all replaced checkouts (%s); the next sweep tries again", error.code)
                failures += 1
                if failures == _MOST_FAILURES:
                    return

    def end_others(self, image: StoredImage) -> StoredImage:
        """End the sessions in `sessions_to_end`, and return the picture as it is then."""
        for session_id in image.sessions_to_end:
            image = self._end_one(image, session_id)
        return image

    def _end_one(self, image: StoredImage, session_id: str) -> StoredImage:
        """Expire a session, and note its end with the picture."""
        change: Callable[[StoredImage], StoredImage] = partial(notes.ended, session_id=session_id)
        try:
            session = self._sessions.expire(self._sessions.retrieve(session_id))
            if session.status == "complete":
                change = notes.completion(session)
        except (SessionNotFound, CheckoutNotConfigured):
            log.warning("checkout %s is not in this Stripe account, or STRIPE_SECRET_KEY is not set", short(session_id))
        with suppress(ImageNotFound, StoreUnavailable):
            return self._notes.write(image.id, change)
        return change(image)
