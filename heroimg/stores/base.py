"""The contract that every store keeps, stated once. The stores do not repeat it.

A picture is *staged* while it arrives, *kept* once it is whole and checked, *claimed* by whoever fetches it, and
*removed* when that reader has it or its time is over. Unknown, expired and half-deleted pictures look the same.

Instants are whole Unix seconds. A picture whose `expires` has come is gone, whether or not a sweep ran.
"""

from __future__ import annotations

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from hmac import compare_digest
from typing import BinaryIO, NamedTuple, Protocol

from heroimg.errors import ImageClaimed

Clock = Callable[[], float]


@dataclass(frozen=True)
class Claim:
    """The right of one token to a picture, until it lapses."""

    token: str
    until: int


@dataclass(frozen=True)
class StoredImage:
    """What is known of a picture without reading it.

    :param size: bytes.
    :param checkout_session: the id of the Checkout Session opened for it last, if any.
    :param checkout_complete: whether a checkout for it is known to be complete.
    :param claim: who fetches it now; one that has lapsed is no claim, and None here.
    :param claim_lapsed: whether the last claim has ended without being confirmed or given back.
    """

    id: str
    media_type: str
    size: int
    stored: int
    expires: int
    checkout_session: str | None = None
    checkout_complete: bool = False
    claim: Claim | None = None
    claim_lapsed: bool = False

    def refuse_others(self, token: str | None, now: int) -> None:
        """Let the claim's holder pass, and everybody where there is no claim.

        :raises ImageClaimed: another token holds it; carries the seconds until that lapses.
        """
        if self.claim and not compare_digest(self.claim.token, token or ""):
            seconds = self.claim.until - now
            raise ImageClaimed(
                f"Another page is fetching this picture just now. Please try again in {seconds} seconds.",
                retry_after=seconds,
            )


class Claimed(NamedTuple):
    """What a claim gives. The stream is open at its start; the caller closes it."""

    image: StoredImage
    stream: BinaryIO


class Held(NamedTuple):
    """What a store holds, for the operator. `oldest` is when the oldest picture was stored; None where none is held."""

    images: int
    size: int
    oldest: int | None


class Swept(NamedTuple):
    """What a sweep removed: pictures past their time, and names that a crash left behind.

    :param unclaimed: the expired pictures that nobody came for.
    :param unfetched: those of them that had been paid for.
    :param lapsed: the expired pictures that somebody claimed, and never confirmed.
    :param unseen: how many that may be due it did not get to look at in its time.
    """

    expired: int = 0
    leftovers: int = 0
    unclaimed: int = 0
    unfetched: int = 0
    lapsed: int = 0
    unseen: int = 0


class Staged(Protocol):
    """A picture as it arrives, already where it will live. Closed without having been kept, it leaves nothing."""

    def write(self, data: bytes, /) -> int: ...
    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def close(self) -> None: ...


class ImageStore(ABC):
    """Where pictures wait."""

    # Whether nothing needs to be swept.
    expires_by_itself = False

    @abstractmethod
    def stage(self) -> Staged:
        """Open a new picture for writing.

        :raises StoreFull: there is too little room for more; writing may raise it too.
        """

    @abstractmethod
    def keep(self, staged: Staged, media_type: str) -> StoredImage:
        """Make a staged picture visible, whole or not at all, for HEROIMG_IMAGE_SECONDS.

        :raises StoreFull: there was no room for it; nothing is left of it.
        """

    @abstractmethod
    def get(self, image_id: str) -> StoredImage:
        """Look a picture up.

        :raises ImageNotFound: also for an id of the wrong form.
        """

    @abstractmethod
    def pin(self, image_id: str, until: int, renewed: int = 0) -> StoredImage:
        """Put a picture on stable storage, and keep it at least until then.

        Where it would expire before `until`, it expires at the later of `until` and `renewed` instead; where not,
        nothing changes. So of several at once, all get the same answer.

        :raises ImageNotFound: there is nothing to pin.
        """

    @abstractmethod
    def note_checkout(self, image_id: str, session_id: str | None = None, *, complete: bool = False) -> StoredImage:
        """Note with a picture the session that was opened for it, or that its checkout is complete.

        :returns: the picture as it was before; so of several at once, each learns whose note it has replaced. To a
            session that is the one noted already, a store may repeat what it answered the first time.
        :raises ImageNotFound: there is nothing to note it with.
        """

    @abstractmethod
    def claim(self, image_id: str, token: str) -> Claimed:
        """Give the picture to this token, and to nobody else for HEROIMG_CLAIM_SECONDS. It may claim again.

        :raises ImageNotFound: unknown, expired or removed already.
        :raises ImageClaimed: another token holds it; carries the seconds to wait.
        """

    def renew(self, image_id: str, token: str) -> None:
        """Claim again for a reader who has the stream already.

        :raises ImageNotFound: or ImageClaimed, as :meth:`claim` does.
        """
        self.claim(image_id, token).stream.close()

    @abstractmethod
    def release(self, image_id: str, token: str) -> None:
        """Give a claim back. No error if there is none, or no picture, or another token holds it."""

    @abstractmethod
    def remove(self, image_id: str, token: str | None = None) -> StoredImage | None:
        """Make the picture gone, and return what was removed; None if it was gone already.

        :raises ImageClaimed: another token holds it; nothing is removed.
        """

    @abstractmethod
    def sweep(self, seconds: float | None = None) -> Swept:
        """Remove everything past its time, and every leftover of a crash.

        :param seconds: stop after so long, once all names are read; the next sweep looks at others first.
        """

    @abstractmethod
    def held(self) -> Held:
        """Count what can be retrieved now."""

    @abstractmethod
    def check(self) -> None:
        """Find out whether pictures can be kept.

        :raises StoreUnavailable: the cause says what an operator can mend.
        :raises StoreFull: there is too little room for more.
        """

    def warnings(self) -> list[str]:
        """Say what works, and should be mended all the same, in sentences for the operator."""
        return []


def new_image_id() -> str:
    """Make an id that nobody can guess: 128 bits from the system's random source, 32 hexadecimal digits."""
    return secrets.token_hex(16)


def is_image_id(text: str) -> bool:
    """Tell whether this could be an id, before it becomes part of a path or a key."""
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None


def is_claim_token(text: str) -> bool:
    """Tell whether this is 16 to 64 URL-safe characters."""
    return re.fullmatch(r"[A-Za-z0-9_-]{16,64}", text) is not None
