"""A Checkout Session, from creation to its end.

    open ---- pay --------> complete, paid
     |  ----- pay_later --> complete, unpaid ---- settle --> complete, paid
     |                                       ---- decline -> complete, unpaid for good
     |  ----- decline ----> open: the customer may try another card
     +------- expire -----> expired, as when `expires_at` is reached

Not thread-safe by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from demo.currencies import decimals
from demo.stripe_stand_in.answers import Json, Refusal, new_id
from demo.stripe_stand_in.parameters import AMOUNT, CURRENCY, DESCRIPTION, ID_PLACEHOLDER, NAME


@dataclass
class CheckoutSession:
    """A session whose parameters `check_parameters` has checked.

    The methods that change it return the type of the event that Stripe sends, if it sends one. They raise Refusal, with
    status 409 or Stripe's own 400, if the session is in the wrong state.
    """

    params: Mapping[str, str]
    created: int
    id: str = field(default_factory=lambda: new_id("cs_test", 58))
    secret: str = field(default_factory=lambda: new_id("secret", 58))
    status: str = "open"
    payment_status: str = "unpaid"
    is_payment_pending: bool = False

    def pay(self) -> str:
        """Pay by a card."""
        self._complete()
        self.payment_status = "paid"
        return "checkout.session.completed"

    def pay_later(self) -> str:
        """Pay by a method that takes days, such as a bank debit."""
        self._complete()
        self.is_payment_pending = True
        return "checkout.session.completed"

    def settle(self) -> str:
        """Let a pending payment arrive."""
        self._end_pending_payment()
        self.payment_status = "paid"
        return "checkout.session.async_payment_succeeded"

    def decline(self) -> str | None:
        """Decline the card of an open session, or a pending payment."""
        if self.status == "open":
            return None
        self._end_pending_payment()
        return "checkout.session.async_payment_failed"

    def expire(self) -> str:
        """End an open session before its time."""
        if self.status != "open":
            message = (
                f'Only sessions with a status in ["open"] can be expired. This one has a status of `{self.status}`.'
            )
            raise Refusal(400, message)
        self.status = "expired"
        return "checkout.session.expired"

    def update(self, now: float) -> None:
        """Expire the session if `expires_at` has been reached."""
        if self.status == "open" and now >= int(self.params["expires_at"]):
            self.status = "expired"

    def as_json(self) -> Json:
        """Return the session as Stripe's API shows it, with the fields that matter to heroimg."""
        return {
            "id": self.id,
            "object": "checkout.session",
            "amount_total": int(self.params[AMOUNT]),
            "client_secret": f"{self.id}_{self.secret}" if self.status == "open" else None,
            "created": self.created,
            "currency": self.params[CURRENCY],
            "customer_details": {"email": "jenny.rosen@example.com"} if self.status == "complete" else None,
            "expires_at": int(self.params["expires_at"]),
            "metadata": {"imageId": self.params["metadata[imageId]"]} if "metadata[imageId]" in self.params else {},
            "payment_status": self.payment_status,
            "status": self.status,
        }

    def as_page(self) -> Json:
        """Return what the checkout shows to the customer."""
        return {
            "name": self.params[NAME],
            "description": self.params.get(DESCRIPTION, ""),
            "amount": int(self.params[AMOUNT]),
            "currency": self.params[CURRENCY],
            "decimals": decimals(self.params[CURRENCY]),
            "status": self.status,
        }

    def outcome(self) -> Json:
        """Return the session's state, and the URL that Stripe sends a customer to after the payment."""
        return_url = self.params["return_url"].replace(ID_PLACEHOLDER, self.id)
        return {
            "id": self.id,
            "status": self.status,
            "payment_status": self.payment_status,
            "return_url": return_url if self.status == "complete" else None,
        }

    def _complete(self) -> None:
        if self.status != "open":
            raise Refusal(409, f"The session is {self.status}; only an open one can be paid.", code="session_not_open")
        self.status = "complete"

    def _end_pending_payment(self) -> None:
        if not self.is_payment_pending:
            message = f"The session is {self.status}, {self.payment_status}; no payment is pending."
            raise Refusal(409, message, code="no_payment_pending")
        self.is_payment_pending = False
