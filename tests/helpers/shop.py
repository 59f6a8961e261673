"""A served application together with its stand-in for Stripe, its clock and, for browsers, a proxy in front."""

from __future__ import annotations

from demo.stripe_stand_in import StandIn
from tests.helpers.api import Api
from tests.helpers.proxy import Proxy
from tests.helpers.serving import DrivenClock


def stripe_settings(stand_in: StandIn) -> dict[str, str]:
    """Return the settings of an application that pays with the stand-in."""
    return {
        "STRIPE_SECRET_KEY": "sk_test_standin",
        "STRIPE_PUBLISHABLE_KEY": "pk_test_standin",
        "STRIPE_WEBHOOK_SECRET": "whsec_standin",
        "STRIPE_API_BASE": stand_in.url,
    }


class Shop:
    """An application, a stand-in for Stripe that calls its webhook, and the clock of both."""

    def __init__(self, api: Api, stand_in: StandIn, clock: DrivenClock) -> None:
        self.api = api
        self.stand_in = stand_in
        self.clock = clock

    def clear(self) -> None:
        self.api.server.clear()
        self.stand_in.clear()
        self.stand_in.webhook_url = f"{self.api.server.url}/api/checkout/webhook"


class Site(Shop):
    """A shop with its page, which browsers reach through a proxy that can break."""

    def __init__(self, api: Api, stand_in: StandIn, clock: DrivenClock, proxy: Proxy) -> None:
        super().__init__(api, stand_in, clock)
        self.proxy = proxy
        self.url = f"{proxy.url}/hero-me"

    def clear(self) -> None:
        super().clear()
        self.proxy.clear()
