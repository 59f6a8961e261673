"""The notes about a picture's Checkout Sessions, and how each event changes these notes.

A picture has one current session, `checkout_session`. `sessions_to_end` lists other sessions that might still be paid.
`opened`, `completed` and `ended` return the picture as it must be stored. Repeating a call changes nothing.
The current session is in one of four states:

- open: no flag is set
- ended unpaid, or its delayed payment failed: `checkout_ended`
- complete, and its delayed payment has not arrived yet: `checkout_complete` and `payment_pending`
- paid: `checkout_complete`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from stripe.checkout import Session

from heroimg.stores.base import ImageStore
from heroimg.stores.image import StoredImage


class CheckoutNotes:
    """Writes notes to the store.

    :param on_complete: called when a picture's checkout becomes known to be complete.
    """

    def __init__(self, store: ImageStore, on_complete: Callable[[], None]) -> None:
        self._store = store
        self._on_complete = on_complete

    def write(self, image_id: str, change: Callable[[StoredImage], StoredImage]) -> StoredImage:
        """Apply one of the changes below, and return the picture as it is then."""
        before, after = self._store.note(image_id, change)
        if after.checkout_complete and not before.checkout_complete:
            self._on_complete()
        return after


def opened(image: StoredImage, session_id: str) -> StoredImage:
    """Note a new session. If the picture's checkout is complete already, the session goes into `sessions_to_end`."""
    if session_id == image.checkout_session or session_id in image.sessions_to_end:
        return image
    if image.checkout_complete:
        return replace(image, sessions_to_end=(*image.sessions_to_end, session_id))
    return replace(image, checkout_session=session_id, checkout_ended=False, sessions_to_end=_others(image, session_id))


def completed(image: StoredImage, session_id: str, *, is_paid: bool) -> StoredImage:
    """Note that a session is complete.

    Stripe's events may come twice, or in the wrong order, such as `async_payment_failed` before `completed`. So an
    ended session becomes complete only if it is paid.

    :param is_paid: False while a delayed payment is pending, and after it has failed.
    """
    if not is_paid and not image.checkout_complete and session_id not in image.payable_sessions:
        return image
    awaited_payment = image.payment_pending or not image.checkout_complete
    if session_id != image.checkout_session and image.checkout_complete and not (is_paid and awaited_payment):
        return replace(image, sessions_to_end=_without(image, session_id))
    return replace(
        image,
        checkout_session=session_id,
        checkout_complete=True,
        payment_pending=not is_paid and awaited_payment,
        checkout_ended=False,
        sessions_to_end=_others(image, session_id),
    )


def completion(session: Session) -> Callable[[StoredImage], StoredImage]:
    """Return the change that a complete session makes."""
    return partial(completed, session_id=session.id, is_paid=session.payment_status != "unpaid")


def ended(image: StoredImage, session_id: str) -> StoredImage:
    """Note that a session cannot be paid any more: it expired, or its delayed payment failed."""
    image = replace(image, sessions_to_end=_without(image, session_id))
    if session_id != image.checkout_session:
        return image
    return replace(image, checkout_complete=False, payment_pending=False, checkout_ended=True)


def _others(image: StoredImage, session_id: str) -> tuple[str, ...]:
    """List the other sessions that might still be paid."""
    others, current = _without(image, session_id), image.checkout_session
    if not current or current in (session_id, *others) or image.checkout_ended:
        return others
    return (*others, current)


def _without(image: StoredImage, session_id: str) -> tuple[str, ...]:
    return tuple(one for one in image.sessions_to_end if one != session_id)
