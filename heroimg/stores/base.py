"""The contract of every store. The stores do not repeat it.

A picture is *staged* while it arrives, *kept* once it is complete and checked, *claimed* by the reader that fetches it,
and *removed* when that reader has it. A picture that was not removed is *swept* after it has expired.

Unknown, expired and half-deleted pictures look the same. Instants are whole Unix seconds. From the instant `expires`
on, a picture cannot be retrieved, whether or not a sweep ran. A sweep returns expired pictures; heroimg/operations logs
and counts them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, Protocol

from heroimg.findings import Finding
from heroimg.stores.image import StoredImage

Clock = Callable[[], float]


class Claimed(NamedTuple):
    """The result of a claim. The stream is open, and the caller closes it."""

    image: StoredImage
    stream: BinaryIO


class Held(NamedTuple):
    """How much a store holds.

    :param images: the number of pictures.
    :param size: the number of bytes of all pictures.
    :param oldest: when the oldest picture was stored; None if there is no picture.
    """

    images: int
    size: int
    oldest: int | None


class Room(NamedTuple):
    """How much room the disk of a store has left. `inodes` is None if the file system does not limit inodes."""

    bytes: int
    inodes: int | None


class Swept(NamedTuple):
    """The result of a sweep.

    :param expired: the pictures that the sweep removed because they had expired.
    :param leftovers: how many ids had incomplete data from a crash; the sweep removed this data.
    :param with_sessions_to_end: the ids of pictures with `sessions_to_end`.
    :param failures: a text for each id that could not be swept: the shortened id and the reason.
    """

    expired: tuple[StoredImage, ...] = ()
    leftovers: int = 0
    with_sessions_to_end: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


class Staged(Protocol):
    """A picture while it arrives. If it is closed before it is kept, it is deleted."""

    def write(self, data: bytes, /) -> int: ...
    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def close(self) -> None: ...


class ImageStore(ABC):
    """The store of all pictures that wait for their owners."""

    # Whether machines share the store. A shared store removes expired pictures without a sweep.
    is_shared = False

    @abstractmethod
    def stage(self) -> Staged:
        """Open a new picture for writing.

        :raises StoreFull: there is too little room. Writing to the picture may also raise StoreFull.
        """

    @abstractmethod
    def keep(self, staged: Staged, media_type: str) -> StoredImage:
        """Make a staged picture retrievable for HEROIMG_IMAGE_SECONDS. This is atomic.

        :raises StoreFull: there is no room for the picture, so it is not kept.
        """

    @abstractmethod
    def get(self, image_id: str) -> StoredImage:
        """Look up a picture.

        :raises ImageNotFound: there is no such picture, or the id has the wrong form.
        """

    @abstractmethod
    def pin(self, image_id: str, until: int, renewed: int = 0) -> StoredImage:
        """Put a picture on stable storage, and make it expire no earlier than `until`.

        If it would expire before `until`, its expiry becomes `until`, or the instant `renewed` if that is later.

        :raises ImageNotFound: there is no such picture.
        """

    @abstractmethod
    def note(self, image_id: str, change: Callable[[StoredImage], StoredImage]) -> tuple[StoredImage, StoredImage]:
        """Change the notes about a picture's checkout, and put them on stable storage. This is atomic.

        :param change: returns the picture with new values in the fields of `StoredImage.checkout_fields`, or the same
            picture if it has these values already. The function may be called more than once.
        :returns: the picture before and after.
        :raises ImageNotFound: there is no such picture.
        :raises StoreUnavailable: the note may get lost, so nothing may rely on it.
        """

    @abstractmethod
    def claim(self, image_id: str, token: str) -> Claimed:
        """Give the picture to this token alone for HEROIMG_CLAIM_SECONDS. The same token may claim again.

        :param token: 16 to 64 URL-safe characters.
        :raises ImageNotFound: the picture is unknown, expired or removed.
        :raises ImageClaimed: another token holds the claim; `retry_after` is the number of seconds to wait.
        """

    @abstractmethod
    def renew(self, image_id: str, token: str) -> None:
        """Extend this token's claim to HEROIMG_CLAIM_SECONDS from now. This never creates a claim.

        A lapsed claim can be renewed until another token claims the picture.

        :raises ImageClaimed: another token holds the claim; `retry_after` is the number of seconds to wait.
        :raises ImageNotFound: there is no such picture, or it has no claim of this token, not even a lapsed claim.
        """

    @abstractmethod
    def release(self, image_id: str, token: str) -> None:
        """Give a claim back. If there is no such picture, or no such claim, this does nothing."""

    @abstractmethod
    def remove(self, image_id: str, token: str | None = None) -> StoredImage | None:
        """Remove a picture, and return it; None if there was nothing to remove.

        An expired picture is not removed, because the sweep has to report it.

        :raises ImageClaimed: another token holds the claim; nothing is removed.
        """

    @abstractmethod
    def sweep(self, seconds: float | None = None) -> Swept:
        """Remove all expired pictures, and all leftovers of crashes.

        At most one sweep reports an expired picture, even if several sweeps run at the same time. A shared store
        need not report an expired picture whose checkout is not complete.

        :param seconds: stop after this time. The rest waits for a later sweep.
        """

    @abstractmethod
    def held(self) -> Held:
        """Count the pictures that can be retrieved now."""

    @abstractmethod
    def images(self) -> Iterator[StoredImage]:
        """Read every picture that can be retrieved now. This takes long, so customers' requests must not use it."""

    def room(self) -> Room | None:
        """Return how much more fits; None if the store cannot tell."""
        return None

    @abstractmethod
    def check(self) -> None:
        """Check that pictures can be kept.

        :raises StoreUnavailable: pictures cannot be kept. The cause says what an operator can do.
        :raises StoreFull: there is too little room. The cause says what an operator can do.
        """

    def warnings(self) -> list[str]:
        """List risks that do not stop heroimg, as sentences for the operator."""
        return []

    @abstractmethod
    def check_setup(self) -> Iterator[Finding]:
        """Check everything about the folder or the Redis that holds the pictures. This may take seconds.

        :raises StoreUnavailable: the store does not work. The cause says what an operator can do.
        """
