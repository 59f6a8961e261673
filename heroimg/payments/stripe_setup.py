"""Checks of the Stripe account, for the command `check`: the key, its permissions, and the webhook endpoint."""

from __future__ import annotations

from collections.abc import Iterator

import stripe
from stripe import StripeClient

from heroimg.config import MIN_CHECKOUT_SECONDS, Config
from heroimg.errors import HeroimgError
from heroimg.findings import Finding, fault, ok, warning
from heroimg.payments.events import HANDLED_EVENTS
from heroimg.payments.stripe_sessions import StripeSessions
from heroimg.stores.base import Clock
from heroimg.stores.image import new_image_id

_SUBJECT = "stripe"
_WEBHOOK_PATH = "/api/checkout/webhook"
_KEYS = "Developers > API keys in Stripe's dashboard"


class StripeSetup:
    """Looks at the Stripe account that STRIPE_SECRET_KEY belongs to."""

    def __init__(self, config: Config, sessions: StripeSessions, clock: Clock) -> None:
        self._config = config
        self._sessions = sessions
        self._clock = clock

    def check(self, url: str | None) -> Iterator[Finding]:
        """Open and end a Checkout Session that belongs to no picture. Then read the account and its webhook endpoints.

        :param url: the public address of heroimg, if it is known.
        """
        client = self._sessions.client
        if client is None:
            yield warning(_SUBJECT, "checkouts get 503: set STRIPE_SECRET_KEY, for example to rk_live_...")
            yield warning("clock", "it is not compared with Stripe's, because STRIPE_SECRET_KEY is not set")
            return
        try:
            session = self._sessions.create(new_image_id(), int(self._clock()) + MIN_CHECKOUT_SECONDS)
            self._sessions.expire(session)
        except HeroimgError as error:
            yield self._refusal(error)
            return
        yield ok(_SUBJECT, f"the key may open and end Checkout Sessions ({self._config.stripe_mode})")
        if wrong := self._sessions.clock_warning():
            yield fault("clock", wrong)
        else:
            yield ok("clock", "it agrees with Stripe's to within a minute")
        yield self._account(client)
        yield from self._webhook(client, url)

    def _refusal(self, error: HeroimgError) -> Finding:
        cause = error.__cause__
        answer = _reason(cause) if isinstance(cause, stripe.StripeError) else error.sentence
        if isinstance(cause, stripe.AuthenticationError):
            return fault(_SUBJECT, f"Stripe refuses the key: set STRIPE_SECRET_KEY to one under {_KEYS}. {answer}")
        if isinstance(cause, stripe.PermissionError):
            return fault(
                _SUBJECT,
                f"the key may not write Checkout Sessions: give it that permission under {_KEYS}, or set "
                f"STRIPE_SECRET_KEY to one that has it. {answer}",
            )
        if isinstance(cause, stripe.APIConnectionError):
            address = self._config.stripe_api_base or "https://api.stripe.com"
            return fault(_SUBJECT, f"{address} cannot be reached ({answer}): let the firewall allow connections to it")
        if wrong := self._sessions.clock_warning():
            return fault("clock", f"{wrong} {answer}")
        return fault(
            _SUBJECT,
            f"Stripe refuses a checkout: correct the settings of the product, such as HEROIMG_UNIT_AMOUNT. {answer}",
        )

    def _account(self, client: StripeClient) -> Finding:
        try:
            account = client.v1.accounts.retrieve_current()
        except stripe.PermissionError:
            return ok(_SUBJECT, "the key may not read the account's name, and heroimg does not need it")
        except stripe.StripeError as error:
            return warning(_SUBJECT, f"the account cannot be read: {_reason(error)}")
        answered = account.last_response.headers.get("Stripe-Version") if account.last_response else None
        if answered != stripe.api_version:
            return warning(
                _SUBJECT,
                f"Stripe answers in its API version {answered}, and heroimg uses {stripe.api_version}: upgrade heroimg",
            )
        settings = account.to_dict().get("settings") or {}
        name = (settings.get("dashboard") or {}).get("display_name") or "without a name"
        return ok(_SUBJECT, f"the account is {name} ({account.id}), and Stripe answers in API version {answered}")

    def _webhook(self, client: StripeClient, url: str | None) -> Iterator[Finding]:
        advice = _webhook_advice(url)
        if not self._config.stripe_webhook_secret:
            yield warning(
                _SUBJECT,
                "a picture whose owner pays and closes the page is deleted when it expires: set STRIPE_WEBHOOK_SECRET "
                f"to the secret of a webhook endpoint, such as whsec_...; {advice}",
            )
            return
        try:
            endpoints = client.v1.webhook_endpoints.list(params={"limit": 100}).data
        except stripe.PermissionError:
            yield warning(_SUBJECT, f"the key may not read webhook endpoints: check them yourself; {advice}")
            return
        except stripe.StripeError as error:
            yield warning(_SUBJECT, f"webhook endpoints cannot be read ({_reason(error)}): check them; {advice}")
            return
        path = f"{url}{_WEBHOOK_PATH}" if url else _WEBHOOK_PATH
        yield from _check_endpoints([each for each in endpoints if each.url.endswith(path)], advice)


def _reason(error: stripe.StripeError) -> str:
    """Give Stripe's answer. For a failed connection, give the system's reason, such as "Connection refused".

    For this case, the library's own text has several lines and asks the reader to write to Stripe.
    """
    reason, cause = error.user_message or str(error), error.__cause__
    while cause and isinstance(error, stripe.APIConnectionError):
        reason = getattr(cause, "strerror", None) or str(cause) or reason
        cause = cause.__cause__ or cause.__context__
    return " ".join(reason.split())


def _webhook_advice(url: str | None) -> str:
    return (
        f"under Developers > Webhooks in Stripe's dashboard, an enabled endpoint "
        f"{url or 'https://heroimg.example.com'}{_WEBHOOK_PATH} must get {', '.join(HANDLED_EVENTS)}"
    )


def _check_endpoints(endpoints: list[stripe.WebhookEndpoint], advice: str) -> Iterator[Finding]:
    """Check the webhook endpoints for our address."""
    enabled = [each for each in endpoints if each.status == "enabled"]
    if not enabled:
        state = "is disabled" if endpoints else "is missing"
        yield fault(_SUBJECT, f"the webhook endpoint for this address {state}: {advice}")
    for each in enabled:
        missing = set() if "*" in each.enabled_events else set(HANDLED_EVENTS) - set(each.enabled_events)
        if missing:
            yield fault(_SUBJECT, f"the webhook endpoint does not get {', '.join(sorted(missing))}: {advice}")
        else:
            yield ok(_SUBJECT, f"the webhook endpoint {each.url} gets the events that heroimg needs")
