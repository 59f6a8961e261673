"""The fields that a store keeps about a picture, and the forms of picture ids and claim tokens.

StoredImage is the one declaration of what is stored: both stores write and read its fields by name.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from hmac import compare_digest
from typing import Any, Self

from heroimg.errors import ImageClaimed

# The clocks of machines that share a store may differ by this much. If the clock was ahead by more than this when a
# picture was kept, the picture's times are corrected (`seconds_stored_ahead`).
MAX_AHEAD_SECONDS = 60


@dataclass(frozen=True)
class Claim:
    """The right of one token to a picture. The claim lapses at the instant `until`."""

    token: str
    until: int


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _stored_as(name: str, read: Callable[[Any], Any]) -> dict[str, Any]:
    return {"name": name, "read": read}


@dataclass(frozen=True)
class StoredImage:
    """Everything that a store knows about a picture except its bytes.

    A field with metadata is stored under a name, in the sidecar or in the Redis hash. The metadata has this name, and
    the function that reads the value. Empty values (None, False, an empty tuple) are not stored. `mimetype` must stay
    the first stored name (files/admission.py). Names that start with `claim_` are reserved for the claim.

    To store another field, add it here. If every new picture has the field, set it in `new_record`. If the field is
    about the checkout, set it in `checkout_fields` and in payments/notes.py.

    :param size: bytes.
    :param checkout_session: the id of its current Checkout Session; None if none was opened.
    :param checkout_complete: whether that session is known to be complete.
    :param payment_pending: whether its delayed payment has not arrived yet.
    :param checkout_ended: whether that session is known to have ended without a payment.
    :param sessions_to_end: the ids of other sessions that might still be paid, and must be ended.
    :param stored: when it was kept.
    :param expires: the instant from which it cannot be retrieved.
    :param claim: its current claim; None if there is no claim, or if the claim has lapsed.
    :param claim_lapsed: whether the last claim has lapsed.
    """

    id: str
    media_type: str = field(metadata=_stored_as("mimetype", str))
    size: int = field(metadata=_stored_as("size", int))
    stored: int = field(metadata=_stored_as("timestamp", int))
    expires: int = field(metadata=_stored_as("expires", int))
    checkout_session: str | None = field(default=None, metadata=_stored_as("checkout_session", str))
    checkout_complete: bool = field(default=False, metadata=_stored_as("checkout_complete", bool))
    payment_pending: bool = field(default=False, metadata=_stored_as("payment_pending", bool))
    checkout_ended: bool = field(default=False, metadata=_stored_as("checkout_ended", bool))
    sessions_to_end: tuple[str, ...] = field(default=(), metadata=_stored_as("sessions_to_end", _words))
    claim: Claim | None = None  # stored as claim_token and claim_until
    claim_lapsed: bool = False

    @classmethod
    def from_fields(cls, image_id: str, stored: Mapping[str, Any], now: int) -> Self:
        """Read what a store has written, by name.

        :raises Exception: `stored` is not valid. The error is a ValueError, TypeError, AttributeError, LookupError or
            ArithmeticError.
        """
        values = {name: read(stored[key]) for name, key, read in _READERS if stored.get(key) is not None}
        token = stored.get("claim_token")
        last = Claim(str(token), int(stored["claim_until"])) if token is not None else None
        is_current = last is not None and last.until > now
        return cls(image_id, **values, claim=last if is_current else None, claim_lapsed=bool(last and not is_current))

    @property
    def is_paid(self) -> bool:
        """Whether it was paid for, as far as heroimg knows."""
        return self.checkout_complete and not self.payment_pending

    @property
    def was_claimed(self) -> bool:
        """Whether a reader has claimed it, and has not given the claim back."""
        return self.claim is not None or self.claim_lapsed

    @property
    def payable_sessions(self) -> tuple[str, ...]:
        """The ids of its sessions that might still be paid."""
        if not self.checkout_session or self.checkout_complete or self.checkout_ended:
            return self.sessions_to_end
        return (self.checkout_session, *self.sessions_to_end)

    def seconds_stored_ahead(self, now: int) -> int:
        """Return by how many seconds the picture's times must be moved back, because the clock was ahead.

        The result is 0 while a session might still be paid, because the picture must outlive that session. The result
        is also 0 after a complete checkout, because a paid picture's time must not become shorter.
        The script PIN (redis/scripts.py) repeats this rule.
        """
        ahead = self.stored - now
        return 0 if ahead <= MAX_AHEAD_SECONDS or self.payable_sessions or self.checkout_complete else ahead

    def checkout_fields(self) -> dict[str, str | int]:
        """Return the fields about the checkout as they are stored. An empty text means that a field is not stored."""
        return {
            "checkout_session": self.checkout_session or "",
            "checkout_complete": 1 if self.checkout_complete else "",
            "payment_pending": 1 if self.payment_pending else "",
            "checkout_ended": 1 if self.checkout_ended else "",
            "sessions_to_end": " ".join(self.sessions_to_end),
        }

    def refuse_others(self, token: str | None, now: int) -> None:
        """Raise an error if another token holds the claim.

        :raises ImageClaimed: `retry_after` is the number of seconds until the claim lapses.
        """
        if self.claim and not compare_digest(self.claim.token, token or ""):
            seconds = self.claim.until - now
            raise ImageClaimed(
                f"Another page is fetching this picture just now. Please try again in {seconds} seconds.",
                retry_after=seconds,
            )


_READERS = [(each.name, each.metadata["name"], each.metadata["read"]) for each in fields(StoredImage) if each.metadata]


def new_record(media_type: str, size: int, now: int, image_seconds: int) -> dict[str, Any]:
    """Return the fields of a new picture by their stored names."""
    return {"mimetype": media_type, "timestamp": now, "size": size, "expires": now + image_seconds}


# The names under which every store writes a picture's fields.
FIELD_NAMES = (*(key for _, key, _ in _READERS), "claim_token", "claim_until")


def new_image_id() -> str:
    """Make an id that cannot be guessed: 128 bits from the system's random source, as 32 hexadecimal digits."""
    return secrets.token_hex(16)


def is_image_id(text: str) -> bool:
    """Return whether a text has the form of an id. Only such a text may become part of a path or a key."""
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None


def is_claim_token(text: str) -> bool:
    """Return whether a text is 16 to 64 URL-safe characters."""
    return re.fullmatch(r"[A-Za-z0-9_-]{16,64}", text) is not None
