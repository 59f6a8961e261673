"""The rule of the checkout: each picture has at most one payable Checkout Session.

A session ends at least HEROIMG_RETURN_SECONDS before its picture expires. A session also ends before its picture is
removed; docs/promises.md describes the exception. A picture whose checkout is complete gets no second session.

notes.py notes a picture's sessions, and ending.py ends them. A customer gets the secret of a session only after
heroimg has noted the session and ended all earlier sessions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from stripe.checkout import Session

from heroimg.config import MIN_CHECKOUT_SECONDS, MIN_RETURN_SECONDS, Config
from heroimg.errors import (
    CheckoutComplete,
    ClockWrong,
    HeroimgError,
    ImageNotFound,
    SessionNotFound,
    StoreUnavailable,
    StripeFailed,
    StripeUnreachable,
)
from heroimg.logs import short
from heroimg.payments import notes
from heroimg.payments.ending import SessionEnder
from heroimg.payments.stripe_sessions import StripeSessions, image_id_of
from heroimg.stores.base import Clock, ImageStore
from heroimg.stores.image import StoredImage

log = logging.getLogger(__name__)

# An open session is used again if it leaves the customer at least this long to pay.
_MIN_REUSE_SECONDS = 15 * 60

# Stripe may return a session that has ended. A request then asks for a new session, at most this many times.
_MOST_REPEATS = 5


class Checkout:
    """Opens the Checkout Sessions of pictures, uses open sessions again, and reports their state.

    Most methods ask Stripe, and may raise StripeUnreachable, StripeFailed or CheckoutNotConfigured.
    """

    def __init__(
        self,
        config: Config,
        store: ImageStore,
        sessions: StripeSessions,
        checkout_notes: notes.CheckoutNotes,
        ender: SessionEnder,
        clock: Clock,
    ) -> None:
        self._config = config
        self._store = store
        self._sessions = sessions
        self._notes = checkout_notes
        self._ender = ender
        self._clock = clock

    def open(self, image_id: str, claim: str | None = None) -> Session:
        """Return a picture's open session, or open a new session.

        :param claim: the claim token that the page sent, if there is one.
        :raises ImageNotFound: there is no picture to pay for.
        :raises ImageClaimed: another reader is fetching the picture, so it cannot be sold.
        :raises CheckoutComplete: the picture was paid for, or a delayed payment is pending.
        :raises ClockWrong: the session would end too late, or Stripe refused it, because this machine's clock is wrong.
        """
        image = self._store.get(image_id)
        image.refuse_others(claim, self._now())
        image = self._ender.end_others(image)
        if image.checkout_complete:
            raise CheckoutComplete
        needed = self._now() + MIN_CHECKOUT_SECONDS + self._config.return_seconds
        if image.checkout_session and (session := self._reusable(image, image.checkout_session)):
            # Write the note again. The request that opened the session may have failed before its note was on stable
            # storage.
            self._note_open(image, session, claim, lambda seen: seen)
            return session
        last_session = image.checkout_session
        image = self._store.pin(image_id, needed, renewed=self._now() + self._config.image_seconds)
        session = self._create(image, last_session)
        try:
            self._refuse_to_outlive(image, session)
            self._note_open(image, session, claim, partial(notes.opened, session_id=session.id))
        except HeroimgError:
            self._expire_unused(session)
            raise
        log.info("opened checkout %s for %s", short(session.id), short(image_id))
        return session

    def status(self, session_id: str) -> Session:
        """Retrieve a session. If the session is complete, note this with its picture.

        :raises SessionNotFound: Stripe has no such session.
        :raises SessionIdMalformed: this is not the id of a session.
        """
        session = self._sessions.retrieve(session_id)
        image_id = image_id_of(session)
        if session.status == "complete" and image_id:
            # Best effort: a status request does not fail if the note fails.
            with suppress(ImageNotFound, StoreUnavailable):
                image = self._store.get(image_id)
                if not image.checkout_complete or (image.payment_pending and session.payment_status != "unpaid"):
                    self._notes.write(image_id, notes.completion(session))
        return session

    def session_state(self, session_id: str) -> tuple[str, str | None]:
        """Ask Stripe for the state of a session, such as "complete, paid", and for its picture's id.

        :raises SessionNotFound: Stripe has no such session.
        """
        session = self._sessions.retrieve(session_id)
        return f"{session.status}, {session.payment_status}", image_id_of(session)

    @property
    def clock_seconds_ahead(self) -> float:
        """The seconds by which this machine's clock was ahead of Stripe's at this process's last call."""
        return self._sessions.seconds_ahead

    def warnings(self) -> list[str]:
        """Return what an operator should know, in sentences."""
        return [warning] if (warning := self._sessions.clock_warning()) else []

    def _now(self) -> int:
        return int(self._clock())

    def _reusable(self, image: StoredImage, session_id: str) -> Session | None:
        """Return the picture's session if it is open and leaves enough time to pay. Otherwise end the session."""
        if image.checkout_ended:
            return None
        with suppress(SessionNotFound):  # if the settings now name another Stripe account or mode
            session = self._sessions.retrieve(session_id)
            if session.expires_at < self._now() + _MIN_REUSE_SECONDS:
                session = self._sessions.expire(session)
            if session.status == "complete":
                self._notes.write(image.id, notes.completion(session))
                raise CheckoutComplete
            if session.status == "open":
                self._refuse_to_outlive(image, session)
                return session
        self._notes.write(image.id, partial(notes.ended, session_id=session_id))
        return None

    def _create(self, image: StoredImage, last_session: str | None) -> Session:
        # After a failed delayed payment, the picture may be kept for longer than Stripe lets a session run. So `ends`
        # counts from `image.expires` or `latest`, whichever is earlier. `latest` is in whole minutes, so that
        # concurrent requests have the same `ends`, and get one session.
        latest = (self._now() // 60 + 1) * 60 + self._config.image_seconds
        ends = min(image.expires, latest) - self._config.return_seconds
        try:
            session = self._sessions.create(image.id, ends, after=last_session)
            # An earlier request may have created this session, and expired it after a failure.
            for _ in range(_MOST_REPEATS):
                if session.status == "expired":
                    session = self._sessions.create(image.id, ends, after=session.id)
            if session.status == "expired":
                self._store.pin(image.id, image.expires + 1)
                raise StripeUnreachable(retry_after=1)
        except StripeFailed as error:
            # For a day, Stripe repeats its answer to the same parameters (idempotency). So the next request needs
            # another `ends`: `pin` moves `expires`, and `latest` moves with time.
            self._store.pin(image.id, image.expires + 1)
            if self._sessions.clock_warning():
                raise ClockWrong from error
            raise
        if session.status == "complete":
            self._notes.write(image.id, notes.completion(session))
            raise CheckoutComplete
        return session

    def _refuse_to_outlive(self, image: StoredImage, session: Session) -> None:
        """Raise ClockWrong if, by Stripe's clock, the session would end too late."""
        ahead = self._sessions.seconds_ahead
        # By Stripe's clock, the picture must expire at least `margin` seconds after the session ends. The margin is
        # short, so that no checkout is refused if the clock is only slightly ahead.
        margin = min(MIN_RETURN_SECONDS, self._config.return_seconds / 2)
        if session.expires_at + ahead > image.expires - margin:
            raise ClockWrong from RuntimeError(
                f"This machine's clock is {ahead:.1f} seconds ahead of Stripe's: synchronise it. The checkout "
                "could be paid too late for its picture."
            )

    def _note_open(
        self,
        image: StoredImage,
        session: Session,
        claim: str | None,
        change: Callable[[StoredImage], StoredImage],
    ) -> None:
        """Note an open session, and end the sessions that it replaces. After an error, no customer may get the session.

        :raises CheckoutComplete: the picture has been paid for in the meantime.
        :raises ImageClaimed: another reader has claimed the picture.
        :raises ImageNotFound: the picture was handed over.
        :raises StripeUnreachable: a concurrent request has ended or replaced the session, or an earlier session may
            still be open.
        :raises StripeFailed: an earlier session may still be open.
        :raises StoreUnavailable: the note may get lost.
        """
        image = self._notes.write(image.id, change)
        image.refuse_others(claim, self._now())
        image = self._ender.end_others(image)
        if image.checkout_complete:
            raise CheckoutComplete
        if image.checkout_session != session.id or image.checkout_ended:
            raise StripeUnreachable(retry_after=1)

    def _expire_unused(self, session: Session) -> None:
        """Expire a session that this request does not give out.

        If a concurrent request has given the session to its customer, the customer must open another checkout.
        """
        try:
            self._sessions.expire(self._sessions.retrieve(session.id))
        except (StripeFailed, StripeUnreachable) as error:
            log.warning("checkout %s may still be open (%s); it was not given out", short(session.id), error.code)
