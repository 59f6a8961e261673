"""What Stripe says, whatever was asked: answers, refusals, failures, and first answers said again."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

Json = dict[str, Any]

MAX_IDEMPOTENCY_KEY_CHARS = 255


@dataclass(frozen=True)
class ApiRequest:
    """What Stripe was asked. Parameters stay flat, named as they were sent: ``metadata[imageId]``."""

    method: str
    path: str
    idempotency_key: str | None
    params: dict[str, str]


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def with_header(self, name: str, value: str) -> Answer:
        return replace(self, headers={**self.headers, name: value})


class Silence(Enum):
    """What a client gets instead of an answer."""

    HANG_UP = "the connection closes"
    UNTIL_CLIENT_LEAVES = "nothing, for as long as the client waits"


class Refusal(Exception):
    """Something that Stripe refuses, in the words and the shape that Stripe gives it.

    :param code: Stripe's word for it, see https://docs.stripe.com/error-codes; many refusals have none.
    :param param: the parameter at fault, named as it was sent.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param

    def answer(self) -> Answer:
        error = {"type": self.type, "code": self.code, "message": self.message, "param": self.param}
        # Stripe leaves out what it has nothing to say about.
        return json_answer(self.status, {"error": {name: error[name] for name in error if error[name] is not None}})


def json_answer(status: int, content: Json) -> Answer:
    return Answer(status, (json.dumps(content, indent=2) + "\n").encode(), {"Content-Type": "application/json"})


def new_id(prefix: str, length: int) -> str:
    """An id as Stripe makes them: ``new_id("evt", 24)`` is ``evt_`` and 24 letters and digits."""
    return f"{prefix}_{''.join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))}"


# Failures on command, by where the request is: before the endpoint begins, and nothing is saved under its idempotency
# key; inside it, and the failure is saved, as Stripe does; after it, and everything is saved but the answer is lost.
FAILURES_BEFORE: dict[str, Answer | Silence] = {
    "401": Refusal(401, "Expired API Key provided.", code="api_key_expired").answer(),
    "403": Refusal(403, "The provided key does not have the required permissions.").answer(),
    "429": Refusal(429, "Request rate limit exceeded.", code="rate_limit").answer(),
    "not_json": Answer(502, b"<html><h1>502 Bad Gateway</h1></html>", {"Content-Type": "text/html"}),
    "disconnect": Silence.HANG_UP,
    "timeout": Silence.UNTIL_CLIENT_LEAVES,
}
FAILURES_INSIDE = {"500": Refusal(500, "An unknown error occurred.", type="api_error").answer()}
FAILURES_AFTER = {"lost_answer": Silence.HANG_UP}
FAILURES = (*FAILURES_BEFORE, *FAILURES_INSIDE, *FAILURES_AFTER)


class SavedAnswers:
    """The first answer to each idempotency key, to be said again (https://docs.stripe.com/api/idempotent_requests).

    Not thread-safe by itself.
    """

    def __init__(self) -> None:
        self._saved: dict[str, tuple[ApiRequest, Answer | None]] = {}

    def begin(self, request: ApiRequest) -> Answer | None:
        """Take the request's key, unless it has been answered before.

        :returns: the saved answer, or None: the key is now in use until :meth:`end`.
        :raises Refusal: the key is too long, in use, or belongs to another request.
        """
        key = request.idempotency_key
        if key is None:
            return None
        if len(key) > MAX_IDEMPOTENCY_KEY_CHARS:
            raise Refusal(400, f"Idempotency-Key must be at most {MAX_IDEMPOTENCY_KEY_CHARS} characters long.")
        first, answer = self._saved.setdefault(key, (request, None))
        if first is request:
            return None
        return self._again(first, answer, request)

    def end(self, request: ApiRequest, answer: Answer | None) -> None:
        """Save the answer, or free the key if there is none because the endpoint never began."""
        if request.idempotency_key is None:
            return
        if answer is None:
            del self._saved[request.idempotency_key]
        else:
            self._saved[request.idempotency_key] = (request, answer)

    def _again(self, first: ApiRequest, answer: Answer | None, request: ApiRequest) -> Answer:
        key = request.idempotency_key
        if answer is None:
            raise Refusal(
                409,
                f"There is currently another in-progress request using this Idempotent Key: {key}.",
                type="idempotency_error",
                code="idempotency_key_in_use",
            )
        if first != request:
            raise Refusal(
                400,
                "Keys for idempotent requests can only be used with the same parameters and endpoint they were "
                f"first used with. Try using a key other than '{key}' if you meant a different request.",
                type="idempotency_error",
            )
        return answer.with_header("Idempotent-Replayed", "true")
