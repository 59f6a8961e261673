"""The rule of the checkout: one payable Checkout Session for each picture, which ends before the picture does.

A session ends HEROIMG_RETURN_SECONDS before its picture, or before the picture is handed over as unpaid. A picture
whose checkout is complete gets no second session.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

from stripe.checkout import Session

from heroimg.config import MIN_CHECKOUT_SECONDS, Config
from heroimg.errors import (
    CheckoutComplete,
    CheckoutNotConfigured,
    ClockWrong,
    ImageClaimed,
    ImageNotFound,
    SessionNotFound,
    StoreFull,
    StoreUnavailable,
    StripeFailed,
    StripeUnreachable,
)
from heroimg.logs import short
from heroimg.payments.stripe_sessions import StripeSessions, image_id_of
from heroimg.stores.base import Clock, ImageStore, StoredImage

log = logging.getLogger(__name__)

# An open session that leaves the customer this long to pay is used again.
_MIN_REUSE_SECONDS = 15 * 60

# If the clock is off, a session must still end this long before its picture.
_MIN_RETURN_SECONDS = 60

_PAID_EVENTS = ("checkout.session.completed", "checkout.session.async_payment_succeeded")


class Checkout:
    """Opens, reuses and ends the Checkout Sessions of pictures, and keeps pictures that were paid for.

    Every method that asks Stripe may raise StripeUnreachable, StripeFailed or CheckoutNotConfigured.

    :param on_complete: called once for each picture that becomes known to have been paid for.
    """

    def __init__(
        self,
        config: Config,
        store: ImageStore,
        sessions: StripeSessions,
        clock: Clock,
        on_complete: Callable[[], None],
    ) -> None:
        self._config = config
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._on_complete = on_complete

    def open(self, image_id: str, claim: str | None = None) -> Session:
        """Return an open session for a picture: the one it has, or a new one.

        :param claim: the token of the page that asks, if it holds the picture's claim.
        :raises ImageNotFound: there is no picture to pay for.
        :raises ImageClaimed: another reader is being handed the picture, so it cannot be sold.
        :raises ClockWrong: the session would outlive its picture by Stripe's clock.
        :raises CheckoutComplete: the picture has been paid for, or will be by a delayed payment method.
        """
        image = self._store.get(image_id)
        image.refuse_others(claim, self._now())
        if image.checkout_complete:
            raise CheckoutComplete
        needed = self._now() + MIN_CHECKOUT_SECONDS + self._config.return_seconds
        if image.checkout_session and (earlier := self._earlier(image.checkout_session)):
            if earlier.status == "open":
                self._refuse_to_outlive(image, earlier)
                return earlier
            # Change expires_at, or the idempotency key replays the ended session.
            needed = max(needed, earlier.expires_at + self._config.return_seconds + 1)
        image = self._store.pin(image_id, needed, renewed=self._now() + self._config.image_seconds)
        session = self._create(image)
        try:
            self._refuse_to_outlive(image, session)
            self._note_opened(image, session, claim)
        except (ClockWrong, ImageClaimed, ImageNotFound):  # the last two: handed over while Stripe was asked
            self._sessions.expire(session)
            raise
        log.info("opened checkout %s for %s", short(session.id), short(image_id))
        return session

    def end(self, image: StoredImage) -> None:
        """Make the picture's session unpayable, unless its checkout is complete.

        :raises StripeUnreachable: or StripeFailed; the session may still be open.
        """
        if image.checkout_session and not image.checkout_complete:
            try:
                self._sessions.expire(self._sessions.retrieve(image.checkout_session))
            except (SessionNotFound, CheckoutNotConfigured):
                log.warning("checkout %s is not of this Stripe account", short(image.checkout_session))

    def try_to_end(self, image: StoredImage) -> None:
        """End the picture's session, but let the picture be handed over even if Stripe does not answer."""
        try:
            self.end(image)
        except (StripeFailed, StripeUnreachable) as error:
            log.error(
                "%s is handed over, its checkout %s may still be open (%s): expire it in Stripe's dashboard, or "
                "refund it", short(image.id), short(image.checkout_session or ""), error.code,
            )  # fmt: skip

    def status(self, session_id: str) -> Session:
        """Retrieve a session, and note with its picture if it is complete: the page asks before it fetches.

        :raises SessionNotFound: Stripe has no such session.
        :raises SessionIdMalformed: this is not the id of a session.
        """
        session = self._sessions.retrieve(session_id)
        image_id = image_id_of(session)
        if session.status == "complete" and image_id:
            # Best effort: a status request never fails because of this note.
            with suppress(ImageNotFound, StoreFull, StoreUnavailable):
                if not self._store.get(image_id).checkout_complete:
                    self._note_complete(image_id)
        return session

    def handle_event(self, payload: bytes, signature: str | None) -> None:
        """Keep the picture of a complete checkout for HEROIMG_PAID_SECONDS, also while a delayed payment is pending.

        :raises SignatureInvalid: the event was not signed with STRIPE_WEBHOOK_SECRET.
        """
        kind, session_id = self._sessions.read_event(payload, signature)
        if kind in _PAID_EVENTS:
            # The event's copy of the session may be old, and in another API version, so retrieve the session.
            self._keep(self._sessions.retrieve(session_id))

    def warnings(self) -> list[str]:
        """Return what an operator should know, in sentences."""
        return [warning] if (warning := self._sessions.clock_warning()) else []

    def _keep(self, session: Session) -> None:
        image_id = image_id_of(session)
        if session.status != "complete" or not image_id:
            return
        try:
            self._note_complete(image_id)
            self._store.pin(image_id, self._now() + self._config.paid_seconds)
            log.info("checkout complete for %s (%s), kept for its owner", short(image_id), session.payment_status)
        except ImageNotFound:
            log.info(
                "checkout %s is complete (%s); %s was handed over already, or has expired",
                short(session.id), session.payment_status, short(image_id),
            )  # fmt: skip

    def _now(self) -> int:
        return int(self._clock())

    def _earlier(self, session_id: str) -> Session | None:
        """Retrieve the picture's session, and end it if it leaves the customer too little time to pay."""
        try:
            session = self._sessions.retrieve(session_id)
        except SessionNotFound:  # another Stripe account, or another mode, was configured since
            return None
        if session.expires_at < self._now() + _MIN_REUSE_SECONDS:
            session = self._sessions.expire(session)
        if session.status == "complete":
            raise CheckoutComplete
        return session

    def _create(self, image: StoredImage) -> Session:
        try:
            return self._sessions.create(image.id, image.expires - self._config.return_seconds)
        except StripeFailed as error:
            # Stripe replays a failure for a day to the same parameters, so the next request must have others.
            self._store.pin(image.id, image.expires + 1)
            if self._sessions.clock_warning():
                raise ClockWrong from error
            raise

    def _refuse_to_outlive(self, image: StoredImage, session: Session) -> None:
        """Compare by Stripe's clock, which decides when a session ends."""
        if session.expires_at + self._sessions.seconds_ahead > image.expires - _MIN_RETURN_SECONDS:
            raise ClockWrong from RuntimeError(
                f"{self._sessions.clock_warning()} The checkout would be payable when its picture is gone."
            )

    def _note_opened(self, image: StoredImage, session: Session, claim: str | None) -> None:
        replaced = self._store.note_checkout(image.id, session.id)
        replaced.refuse_others(claim, self._now())
        if replaced.checkout_session not in (image.checkout_session, session.id):  # noted by a concurrent request
            self.end(replaced)

    def _note_complete(self, image_id: str) -> None:
        if not self._store.note_checkout(image_id, complete=True).checkout_complete:
            self._on_complete()
