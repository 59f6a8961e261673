"""The parameters of a new Checkout Session, and the checks that Stripe makes.

The table has the parameters that heroimg sends; others are refused as unknown, although Stripe takes many more.
Source: https://docs.stripe.com/api/checkout/sessions/create, as of 2026-10-28.endive.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from demo.stripe_stand_in.answers import Refusal

ID_PLACEHOLDER = "{CHECKOUT_SESSION_ID}"
MIN_SECONDS_TO_LIVE = 30 * 60
MAX_SECONDS_TO_LIVE = 24 * 60 * 60

# In the currency's smallest unit: https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts
MIN_CHARGE = {
    "aed": 200, "ars": 50, "aud": 50, "brl": 50, "cad": 50, "chf": 50, "cop": 50, "czk": 1500, "dkk": 250, "eur": 50,
    "gbp": 30, "hkd": 400, "huf": 17500, "idr": 50, "ils": 50, "inr": 50, "jpy": 50, "krw": 50, "mxn": 1000, "myr": 200,
    "nok": 300, "nzd": 50, "php": 50, "pln": 200, "ron": 200, "rub": 50, "sek": 300, "sgd": 50, "thb": 1000, "usd": 50,
    "zar": 50,
}  # fmt: skip

QUANTITY = "line_items[0][quantity]"
CURRENCY = "line_items[0][price_data][currency]"
AMOUNT = "line_items[0][price_data][unit_amount]"
NAME = "line_items[0][price_data][product_data][name]"
DESCRIPTION = "line_items[0][price_data][product_data][description]"

# The pattern of each value, and the sentence for a value that does not match.
_REQUIRED = {
    "mode": ("payment", "The stand-in supports mode=payment only."),
    "ui_mode": ("embedded_page", "Send ui_mode=embedded_page, which was called `embedded` before 2026-03-25.dahlia."),
    "return_url": (
        r"https?://[^\s/?#]\S*" + re.escape(ID_PLACEHOLDER) + r"\S*",
        f"The URL must begin with http:// or https:// and contain {ID_PLACEHOLDER}, with the braces not escaped.",
    ),
    "expires_at": ("[0-9]{1,12}", "Send Unix seconds."),
    QUANTITY: ("1", "The stand-in supports a quantity of 1 only."),
    CURRENCY: ("|".join(MIN_CHARGE), f"The stand-in knows these currencies: {', '.join(MIN_CHARGE)}."),
    AMOUNT: ("[0-9]{1,12}", "Send a whole number, in the currency's smallest unit."),
    NAME: (".+", "You passed an empty string."),
}
_OPTIONAL = {
    DESCRIPTION: (".+", "You passed an empty string."),
    "metadata[imageId]": (".{1,500}", "A value of metadata has 1 to 500 characters."),
}
PARAMETERS = _REQUIRED | _OPTIONAL


def check_parameters(params: Mapping[str, str], now: float) -> None:
    """Check the parameters of a new session.

    :param now: Unix seconds by Stripe's clock.
    :raises Refusal: 400, with the parameter at fault.
    """
    for name in params:
        if name not in PARAMETERS:
            raise Refusal(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
    for name in _REQUIRED:
        if name not in params:
            raise Refusal(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
    for name, value in params.items():
        pattern, sentence = PARAMETERS[name]
        if not re.fullmatch(pattern, value, re.DOTALL):
            raise Refusal(400, f"Invalid {name} '{value}'. {sentence}", param=name)
    least = MIN_CHARGE[params[CURRENCY]]
    if int(params[AMOUNT]) < least:
        message = f"The total must be at least {least} in the smallest unit of {params[CURRENCY]}."
        raise Refusal(400, message, code="amount_too_small", param=AMOUNT)
    seconds = int(params["expires_at"]) - now
    if not MIN_SECONDS_TO_LIVE <= seconds <= MAX_SECONDS_TO_LIVE:
        message = "The `expires_at` timestamp must be 30 minutes to 24 hours after Checkout Session creation."
        raise Refusal(400, message, param="expires_at")
