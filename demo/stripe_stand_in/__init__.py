"""A stand-in for Stripe on this machine. Stripe's own SDK talks to it over HTTP.

    with StandIn() as stand_in:
        client = stripe.StripeClient("sk_test_standin", base_addresses={"api": stand_in.url})

It keeps everything in memory and answers under two paths:

``/v1`` is Stripe's API: create, retrieve and expire a Checkout Session, with the parameters that heroimg sends; read
the account and its webhook endpoint. It refuses requests that Stripe would refuse.

``/stand-in`` has the files that a browser loads from Stripe, and acts as the customer, the bank or the network::

    curl $URL/stand-in/sessions
    curl -X POST $URL/stand-in/sessions/cs_test_.../pay     or pay-later, settle, decline, expire
    curl -X POST $URL/stand-in/fail -d mode=429 -d times=2  any mode in answers.FAILURES
"""

from demo.stripe_stand_in.answers import Answer, ApiRequest, Refusal, Silence
from demo.stripe_stand_in.server import StandIn

__all__ = ["Answer", "ApiRequest", "Refusal", "Silence", "StandIn"]
