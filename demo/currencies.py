"""Stripe's currencies: https://docs.stripe.com/currencies."""

_ZERO_DECIMALS = (
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf",
)  # fmt: skip
_THREE_DECIMALS = ("bhd", "jod", "kwd", "omr", "tnd")


def decimals(currency: str) -> int:
    """Return the number of decimals that a currency has at Stripe.

    Browsers follow ISO 4217, which differs for some currencies.
    """
    if currency in _ZERO_DECIMALS:
        return 0
    return 3 if currency in _THREE_DECIMALS else 2
