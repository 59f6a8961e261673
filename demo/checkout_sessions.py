"""A Checkout Session, from creation to its end.

    open ---- pay --------> complete, paid
     |  ----- pay_later --> complete, unpaid ---- settle --> complete, paid
     |                                       ---- decline -> complete, unpaid for good
     |  ----- decline ----> open, as before: the customer may try another card
     +------- expire -----> expired; so does time, when ``expires_at`` has come

Not thread-safe by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from demo import session_parameters
from demo.session_parameters import MAX_SECONDS_TO_LIVE, Parameters
from demo.stripe_answers import Json, Refusal, new_id

ID_PLACEHOLDER = "{CHECKOUT_SESSION_ID}"


@dataclass
class CheckoutSession:
    id: str
    client_secret: str
    created: int
    expires_at: int
    params: Parameters
    status: str = "open"
    payment_status: str = "unpaid"
    payment_intent: str | None = None
    is_money_under_way: bool = False

    @classmethod
    def create(cls, params: Parameters, now: float) -> CheckoutSession:
        """Open a session, for 24 hours unless told otherwise.

        :param params: checked by :func:`~demo.session_parameters.check_create`.
        """
        session_id = new_id("cs_test", 58)
        return cls(
            id=session_id,
            client_secret=f"{session_id}_{new_id('secret', 58)}",
            created=int(now),
            expires_at=int(params.get("expires_at", now + MAX_SECONDS_TO_LIVE)),
            params=params,
        )

    def pay(self) -> str:
        """Pay by a method that says at once that the money is there, such as a card.

        :returns: this and the others return the type of the event that Stripe sends for it, if there is one.
        :raises Refusal: 409, the session is in no state for that; likewise the others but :meth:`expire`.
        """
        self._complete()
        self.payment_status = "paid"
        return "checkout.session.completed"

    def pay_later(self) -> str:
        """Pay by a method that takes days, such as a bank debit: complete, and unpaid until the bank says so."""
        self._complete()
        self.is_money_under_way = True
        return "checkout.session.completed"

    def settle(self) -> str:
        """Let the money of a delayed payment arrive."""
        self._end_delay("settled")
        self.payment_status = "paid"
        return "checkout.session.async_payment_succeeded"

    def decline(self) -> str | None:
        """Let the bank refuse: a card on an open session, or the money of a delayed payment."""
        if self.status == "open":
            return None
        self._end_delay("declined")
        return "checkout.session.async_payment_failed"

    def expire(self) -> str:
        """End an open session before its time.

        :raises Refusal: 400 in Stripe's words, for this one is in Stripe's API.
        """
        if self.status != "open":
            raise Refusal(
                400,
                'Only Checkout Sessions with a status in ["open"] can be expired. '
                f"This Checkout Session has a status of `{self.status}`.",
            )
        self.status = "expired"
        return "checkout.session.expired"

    def let_time_pass(self, now: float) -> None:
        if self.status == "open" and now >= self.expires_at:
            self.status = "expired"

    def as_json(self) -> Json:
        """The session as the API shows it, as far as anyone here looks."""
        params = self.params
        return {
            "id": self.id,
            "object": "checkout.session",
            "amount_subtotal": session_parameters.total(params),
            "amount_total": session_parameters.total(params),
            "cancel_url": None,
            "client_reference_id": params.get("client_reference_id"),
            "client_secret": self.client_secret if self.status == "open" else None,
            "created": self.created,
            "currency": session_parameters.currency(params),
            "customer": None,
            "customer_details": self._customer_details(),
            "customer_email": params.get("customer_email"),
            "expires_at": self.expires_at,
            "livemode": False,
            "locale": params.get("locale"),
            "metadata": session_parameters.metadata(params),
            "mode": params["mode"],
            "payment_intent": self.payment_intent,
            "payment_method_types": ["card"],
            "payment_status": self.payment_status,
            "redirect_on_completion": params.get("redirect_on_completion", "always"),
            "return_url": params.get("return_url"),
            "status": self.status,
            "submit_type": params.get("submit_type"),
            "success_url": None,
            "ui_mode": params["ui_mode"],
            "url": None,
        }

    def as_page(self) -> Json:
        """What the checkout shows to the customer: what is sold, for how much, and whether it still can be paid."""
        item = session_parameters.line_items(self.params)[0]
        product = f"{item}[price_data][product_data]"
        return {
            "name": self.params[f"{product}[name]"],
            "description": self.params.get(f"{product}[description]", ""),
            "amount": session_parameters.total(self.params),
            "currency": session_parameters.currency(self.params),
            "decimals": session_parameters.decimals(session_parameters.currency(self.params)),
            "status": self.status,
        }

    def outcome(self) -> Json:
        """What became of the session, and where Stripe sends the browser of a customer who is done."""
        return {
            "id": self.id,
            "status": self.status,
            "payment_status": self.payment_status,
            "return_url": self._filled_return_url() if self.status == "complete" else None,
        }

    def _filled_return_url(self) -> str | None:
        # Stripe replaces the braces as they are; %7BCHECKOUT_SESSION_ID%7D stays.
        return_url = self.params.get("return_url")
        return return_url and return_url.replace(ID_PLACEHOLDER, self.id)

    def _customer_details(self) -> Json | None:
        if self.status != "complete":
            return None
        return {"email": self.params.get("customer_email", "jenny.rosen@example.com"), "name": "Jenny Rosen"}

    def _complete(self) -> None:
        if self.status != "open":
            message = f"The session is {self.status}; only an open one can be paid."
            raise Refusal(409, message, code="session_not_open")
        self.status = "complete"
        self.payment_intent = new_id("pi", 24)

    def _end_delay(self, participle: str) -> None:
        if not self.is_money_under_way:
            message = f"The session is {self.status}, {self.payment_status}; no payment under way can be {participle}."
            raise Refusal(409, message, code="no_payment_under_way")
        self.is_money_under_way = False
