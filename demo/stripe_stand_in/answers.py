"""The shapes of Stripe's requests, answers and refusals, and the failures that tests can ask for."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class ApiRequest:
    """A request to Stripe's API. Parameters keep the flat names of the form: ``metadata[imageId]``."""

    method: str
    path: str
    idempotency_key: str | None
    params: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    media_type: str = "application/json"
    is_replayed: bool = False


class Silence(Enum):
    """Failures without an answer."""

    HANG_UP = "the connection closes"
    UNTIL_CLIENT_LEAVES = "nothing, for as long as the client waits"


class Refusal(Exception):
    """An error that Stripe answers with.

    :param type: see https://docs.stripe.com/api/errors.
    :param code: see https://docs.stripe.com/error-codes; many errors have none.
    :param param: the name of the parameter at fault, as it was sent.
    """

    def __init__(
        self, status: int, message: str, *, type: str = "invalid_request_error", code: str = "", param: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param

    def answer(self) -> Answer:
        error = {"type": self.type, "code": self.code, "message": self.message, "param": self.param}
        return json_answer(self.status, {"error": {name: value for name, value in error.items() if value}})


def json_answer(status: int, content: Json) -> Answer:
    return Answer(status, (json.dumps(content, indent=2) + "\n").encode())


def new_id(prefix: str, length: int) -> str:
    """Make an id like Stripe's: ``new_id("evt", 24)`` gives ``evt_`` and 24 letters and digits."""
    return f"{prefix}_{''.join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))}"


# The API fails before it reads the request: the idempotency key stays unused.
FAILURES_BEFORE: dict[str, Answer | Silence] = {
    "401": Refusal(401, "Expired API Key provided.", code="api_key_expired").answer(),
    "403": Refusal(403, "The provided key does not have the required permissions.").answer(),
    "429": Refusal(429, "Request rate limit exceeded.", code="rate_limit").answer(),
    "not_json": Answer(502, b"<html><h1>502 Bad Gateway</h1></html>", "text/html"),
    "disconnect": Silence.HANG_UP,
    "timeout": Silence.UNTIL_CLIENT_LEAVES,
}
# The API fails while it works, and replays the failure for the same idempotency key, as Stripe does.
FAILURES_INSIDE = {"500": Refusal(500, "An unknown error occurred.", type="api_error").answer()}
# The work is done, but the answer does not arrive.
FAILURES_AFTER = {"lost_answer": Silence.HANG_UP}
FAILURES = (*FAILURES_BEFORE, *FAILURES_INSIDE, *FAILURES_AFTER)
