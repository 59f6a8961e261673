"""What creating a Checkout Session takes, and what Stripe refuses about it.

Parameters are checked under the flat names they are sent by: ``line_items[0][price_data][currency]``. The table
below writes ``[]`` for any index and ``[*]`` for any key of metadata.

Source: https://docs.stripe.com/api/checkout/sessions/create and the changelog, up to 2026-10-28.endive. Stripe takes
more than the table: what an embedded one-time checkout does without is refused here as unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from demo.stripe_answers import Refusal

Parameters = Mapping[str, str]

MIN_SECONDS_TO_LIVE = 30 * 60
MAX_SECONDS_TO_LIVE = 24 * 60 * 60
MAX_METADATA_KEYS = 50
MAX_METADATA_KEY_CHARS = 40
MAX_METADATA_VALUE_CHARS = 500

# The least that can be charged, in the currency's smallest unit, where Stripe publishes it
# (https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts). The stand-in knows no other currencies.
MIN_CHARGE = {
    "aed": 200, "ars": 50, "aud": 50, "brl": 50, "cad": 50, "chf": 50, "cop": 50, "czk": 1500, "dkk": 250, "eur": 50,
    "gbp": 30, "hkd": 400, "huf": 17500, "idr": 50, "ils": 50, "inr": 50, "jpy": 50, "krw": 50, "mxn": 1000, "myr": 200,
    "nok": 300, "nzd": 50, "php": 50, "pln": 200, "ron": 200, "sek": 300, "sgd": 50, "thb": 1000, "usd": 50, "zar": 50,
}  # fmt: skip
_ZERO_DECIMALS = [
    "bif",
    "clp",
    "djf",
    "gnf",
    "jpy",
    "kmf",
    "krw",
    "mga",
    "pyg",
    "rwf",
    "vnd",
    "vuv",
    "xaf",
    "xof",
    "xpf",
]
_THREE_DECIMALS = ["bhd", "jod", "kwd", "omr", "tnd"]
LOCALES = (
    "auto", "bg", "cs", "da", "de", "el", "en", "en-GB", "es", "es-419", "et", "fi", "fil", "fr", "fr-CA", "hi-IN",
    "hr", "hu", "id", "it", "ja", "ko", "lt", "lv", "ms", "mt", "nb", "nl", "pl", "pt", "pt-BR", "ro", "ru", "sk", "sl",
    "sv", "th", "tr", "vi", "zh", "zh-HK", "zh-TW",
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """What a value looks like, and what Stripe says of one that does not; ``{}`` is the value."""

    pattern: str
    sentence: str = ""
    code: str | None = None

    def check(self, name: str, value: str) -> None:
        if not re.fullmatch(self.pattern, value, re.DOTALL):
            raise Refusal(400, self.sentence.format(value), code=self.code, param=name)


def one_of(*words: str, hint: str = "") -> Kind:
    return Kind("|".join(words), f"Invalid value '{{}}': must be one of {', '.join(words)}.{hint}")


def never(sentence: str, code: str | None = None) -> Kind:
    return Kind("(?!)", sentence, code)


TEXT = Kind(".+")
WHOLE = Kind("[0-9]{1,12}", "Invalid non-negative integer: {}", "parameter_invalid_integer")
POSITIVE = Kind("[1-9][0-9]{0,11}", "Invalid positive integer: {}", "parameter_invalid_integer")
URL = Kind(r"https?://[^\s/?#]+\S*", "Not a valid URL: it must begin with http:// or https://.", "url_invalid")
EMAIL = Kind(r"[^\s@]+@[^\s@]+", "Invalid email address: {}", "email_invalid")
CURRENCY = Kind(f"(?i:{'|'.join(MIN_CHARGE)})", f"Invalid currency: {{}}. The stand-in knows {', '.join(MIN_CHARGE)}.")
NOT_EMBEDDED = never("success_url and cancel_url are not supported with 'ui_mode: embedded_page'; send return_url.")

CREATE_PARAMETERS: dict[str, Kind] = {
    "mode": one_of("payment", "setup", "subscription"),
    "ui_mode": one_of(
        "elements", "embedded_page", "form", "hosted_page",
        hint=" `embedded` was renamed `embedded_page` in 2026-03-25.dahlia.",
    ),
    "line_items[][quantity]": POSITIVE,
    "line_items[][price_data][currency]": CURRENCY,
    "line_items[][price_data][unit_amount]": WHOLE,
    "line_items[][price_data][product_data][name]": TEXT,
    "line_items[][price_data][product_data][description]": TEXT,
    "line_items[][price_data][product_data][images][]": URL,
    "return_url": URL,
    "success_url": NOT_EMBEDDED,
    "cancel_url": NOT_EMBEDDED,
    "redirect_on_completion": one_of("always", "if_required", "never"),
    "expires_at": WHOLE,
    "metadata[*]": TEXT,
    "payment_intent_data[metadata][*]": TEXT,
    "payment_intent_data[description]": TEXT,
    "customer_email": EMAIL,
    "client_reference_id": Kind(".{1,200}", "client_reference_id must be at most 200 characters long."),
    "locale": one_of(*LOCALES),
    "submit_type": one_of("auto", "book", "donate", "pay", "subscribe"),
    "allowed_payment_method_types[]": TEXT,
    "payment_method_types[]": never(
        "payment_method_types was removed in 2026-09-30.endive; see allowed_payment_method_types.", "parameter_unknown"
    ),
}  # fmt: skip
COVERED = {"mode": "payment", "ui_mode": "embedded_page"}
REQUIRED_OF_EACH_ITEM = (
    "[quantity]",
    "[price_data][currency]",
    "[price_data][unit_amount]",
    "[price_data][product_data][name]",
)


def check_create(params: Parameters, now: float) -> None:
    """Refuse what Stripe would not make a session of.

    :raises Refusal: 400, and the parameter at fault.
    """
    check_names_and_values(params, CREATE_PARAMETERS)
    _check_covered(params)
    _check_line_items(params)
    _check_return(params)
    _check_expiry(params, now)
    _check_metadata(metadata(params), "metadata")
    _check_metadata(metadata(params, "payment_intent_data[metadata]"), "payment_intent_data[metadata]")


def check_names_and_values(params: Parameters, table: Mapping[str, Kind]) -> None:
    """Refuse every parameter without a row in the table, and every value that is not of its row's kind."""
    for name, value in params.items():
        row = _row(name)
        if row not in table:
            raise Refusal(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
        if value:
            table[row].check(name, value)
        elif not row.endswith("[*]"):  # an empty value unsets a key of metadata
            raise Refusal(400, f"You passed an empty string for '{name}'.", code="parameter_invalid_empty", param=name)


def line_items(params: Parameters) -> list[str]:
    """The items by the beginnings of their names: ``["line_items[0]", "line_items[1]"]``."""
    return sorted({item[0] for name in params if (item := re.match(r"line_items\[\d*\]", name))})


def total(params: Parameters) -> int:
    """What the line items cost together, in the currency's smallest unit."""
    return sum(
        int(params[f"{item}[price_data][unit_amount]"]) * int(params[f"{item}[quantity]"])
        for item in line_items(params)
    )


def currency(params: Parameters) -> str:
    return next(_currencies(params))


def decimals(currency: str) -> int:
    """How many decimals a currency's amounts have, by https://docs.stripe.com/currencies#zero-decimal."""
    if currency in _ZERO_DECIMALS:
        return 0
    return 3 if currency in _THREE_DECIMALS else 2


def metadata(params: Parameters, parent: str = "metadata") -> dict[str, str]:
    """The pairs that were given a value."""
    start = f"{parent}["
    return {name[len(start) : -1]: value for name, value in params.items() if name.startswith(start) and value}


def _row(name: str) -> str:
    """The table's name for a parameter: of ``metadata[imageId]``, ``metadata[*]``."""
    name = re.sub(r"(^|\[)(metadata\]?)\[[^\[\]]+\]$", r"\1\2[*]", name)
    return re.sub(r"\[\d*\]", "[]", name)


def _check_covered(params: Parameters) -> None:
    _require("mode", params)
    for name, value in COVERED.items():
        if params.get(name) != value:
            raise Refusal(400, f"The stand-in covers {name}={value} only.", param=name)


def _check_line_items(params: Parameters) -> None:
    items = line_items(params)
    if not items:
        raise _missing("line_items")
    for item in items:
        for name in REQUIRED_OF_EACH_ITEM:
            _require(f"{item}{name}", params)
    if len(set(_currencies(params))) > 1:
        raise Refusal(400, "All line items must have the same currency.", param="line_items")
    least = MIN_CHARGE[currency(params)]
    if total(params) < least:
        message = f"The total amount due must add up to at least {least} in the smallest unit of {currency(params)}."
        raise Refusal(400, message, code="amount_too_small", param="line_items")


def _check_return(params: Parameters) -> None:
    if params.get("redirect_on_completion") != "never":
        _require("return_url", params)
    elif "return_url" in params:
        raise Refusal(400, "return_url cannot be set if redirect_on_completion is never.", param="return_url")


def _check_expiry(params: Parameters, now: float) -> None:
    if "expires_at" not in params:
        return
    seconds = int(params["expires_at"]) - now
    if seconds < MIN_SECONDS_TO_LIVE:
        message = "The `expires_at` timestamp must be at least 30 minutes from Checkout Session creation."
        raise Refusal(400, message, param="expires_at")
    if seconds > MAX_SECONDS_TO_LIVE:
        message = "The `expires_at` timestamp must be less than 24 hours from Checkout Session creation."
        raise Refusal(400, message, param="expires_at")


def _check_metadata(pairs: Mapping[str, str], parent: str) -> None:
    if len(pairs) > MAX_METADATA_KEYS:
        message = f"Metadata can have up to {MAX_METADATA_KEYS} keys, you passed in {len(pairs)}."
        raise Refusal(400, message, param=parent)
    for key, value in pairs.items():
        _check_length("keys", key, MAX_METADATA_KEY_CHARS, f"{parent}[{key}]")
        _check_length("values", value, MAX_METADATA_VALUE_CHARS, f"{parent}[{key}]")


def _check_length(what: str, text: str, limit: int, name: str) -> None:
    if len(text) > limit:
        message = f"Metadata {what} can have up to {limit} characters, but you passed in one of {len(text)}."
        raise Refusal(400, message, param=name)


def _currencies(params: Parameters) -> Iterator[str]:
    return (params[f"{item}[price_data][currency]"].lower() for item in line_items(params))


def _require(name: str, params: Parameters) -> None:
    if name not in params:
        raise _missing(name)


def _missing(name: str) -> Refusal:
    return Refusal(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
