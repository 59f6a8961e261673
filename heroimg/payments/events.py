"""Handles Stripe's events about checkouts. A picture that was paid for is kept for its owner."""

from __future__ import annotations

import logging
from functools import partial

from stripe.checkout import Session

from heroimg.config import Config
from heroimg.errors import ImageNotFound, SessionNotFound
from heroimg.logs import short
from heroimg.payments import notes
from heroimg.payments.stripe_sessions import StripeSessions, image_id_of
from heroimg.stores.base import Clock, ImageStore

log = logging.getLogger(__name__)

_PAID_EVENTS = ("checkout.session.completed", "checkout.session.async_payment_succeeded")
_FAILED_EVENT = "checkout.session.async_payment_failed"
HANDLED_EVENTS = (*_PAID_EVENTS, _FAILED_EVENT)


class PaymentEvents:
    """Handles the events that the webhook receives."""

    def __init__(
        self,
        config: Config,
        store: ImageStore,
        sessions: StripeSessions,
        checkout_notes: notes.CheckoutNotes,
        clock: Clock,
    ) -> None:
        self._config = config
        self._store = store
        self._sessions = sessions
        self._notes = checkout_notes
        self._clock = clock

    def handle(self, payload: bytes, signature: str | None) -> None:
        """Keep the picture of a complete checkout for HEROIMG_PAID_SECONDS, even while a delayed payment is pending.

        :raises SignatureInvalid: the event is not signed with STRIPE_WEBHOOK_SECRET, or is too old.
        """
        kind, session_id = self._sessions.read_event(payload, signature)
        if kind not in HANDLED_EVENTS:
            return
        # Retrieve the session, because the event's copy may be old, or in another API version.
        try:
            session = self._sessions.retrieve(session_id)
        except SessionNotFound:  # do not refuse the event: Stripe would repeat it for days
            log.warning(
                "ignored an event about checkout %s, which is not in this Stripe account and mode", short(session_id)
            )
            return
        # Check the event's age only now, because the call above has compared the clocks.
        self._sessions.refuse_old_event(payload, signature)
        if session.status == "complete" and (image_id := image_id_of(session)):
            try:
                if kind != _FAILED_EVENT:
                    self._keep(image_id, session)
                elif session.payment_status == "unpaid":
                    self._note_failed(image_id, session)
            except ImageNotFound:
                log.info(
                    "checkout %s is complete (%s); %s was handed over already, or has expired",
                    short(session.id), "payment failed" if kind == _FAILED_EVENT else session.payment_status,
                    short(image_id),
                )  # fmt: skip

    def _keep(self, image_id: str, session: Session) -> None:
        image = self._notes.write(image_id, notes.completion(session))
        if not image.checkout_complete:
            return
        if image.checkout_session != session.id:
            if session.payment_status == "unpaid":  # its payment failed or is pending, and another session is complete
                return
            log.error(
                "%s was paid for twice, with checkouts %s and %s: refund one in Stripe's dashboard",
                short(image_id), short(image.checkout_session or ""), short(session.id),
            )  # fmt: skip
        self._store.pin(image_id, int(self._clock()) + self._config.paid_seconds)
        log.info("checkout complete for %s (%s), kept for its owner", short(image_id), session.payment_status)

    def _note_failed(self, image_id: str, session: Session) -> None:
        self._notes.write(image_id, partial(notes.ended, session_id=session.id))
        log.info("the payment of checkout %s failed; %s can be paid for again", short(session.id), short(image_id))
