"""The prices that Stripe accepts.

Amounts are in the currency's smallest unit. For currencies without decimals, such as the yen, that is the currency
itself.
"""

from __future__ import annotations

# The minimums of the currencies that have one.
# https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts
_MIN_AMOUNTS = {
    "aed": 200, "ars": 50, "aud": 50, "brl": 50, "cad": 50, "chf": 50, "cop": 50, "czk": 1500, "dkk": 250, "eur": 50,
    "gbp": 30, "hkd": 400, "huf": 17500, "idr": 50, "ils": 50, "inr": 50, "jpy": 50, "krw": 50, "mxn": 1000, "myr": 200,
    "nok": 300, "nzd": 50, "php": 50, "pln": 200, "ron": 200, "rub": 50, "sek": 300, "sgd": 50, "thb": 1000, "usd": 50,
    "zar": 50,
}  # fmt: skip

# Amounts must be multiples of these. ISK and UGX have no decimals, but Stripe counts them in hundredths. The others
# have three decimals, and the last must be 0.
# https://docs.stripe.com/currencies#special-cases
_AMOUNT_STEPS = {"isk": 100, "ugx": 100, "bhd": 10, "jod": 10, "kwd": 10, "omr": 10, "tnd": 10}


def price_fault(amount: int, currency: str) -> str | None:
    """Return the reason, as a phrase, why Stripe would refuse a price; None if no reason is known."""
    least, step = _MIN_AMOUNTS.get(currency, 1), _AMOUNT_STEPS.get(currency, 1)
    if amount < least:
        return f"is {amount}, but Stripe's minimum for {currency} is {least}; for example {4 * least}"
    if amount % step:
        return f"is {amount}, but for {currency} Stripe accepts only multiples of {step}; for example {100 * step}"
    return None
