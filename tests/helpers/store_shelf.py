"""A store with a settable clock and the names of the files or keys in it, and the constants of the stores' tests."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from heroimg.stores.base import ImageStore
from heroimg.stores.image import StoredImage

HOUR = 3600
START = 2_100_000_000  # in the future, because Redis removes expired pictures; before 2038, for all file systems
TOKEN = "the-token-of-one"
OTHER_TOKEN = "the-token-of-two"
UNKNOWN = "0123456789abcdef" * 2


@dataclass
class Clock:
    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class Shelf:
    """A store, its clock, and the names of the files or keys that it has written."""

    store: ImageStore
    clock: Clock
    names: Callable[[], list[str]]

    def keep(self, content: bytes = b"picture") -> StoredImage:
        staged = self.store.stage()
        staged.write(content)
        image = self.store.keep(staged, "image/png")
        staged.close()
        return image

    def read(self, image_id: str, token: str = TOKEN) -> bytes:
        _, stream = self.store.claim(image_id, token)
        with stream:
            return stream.read()


def noted(**fields: Any) -> Callable[[StoredImage], StoredImage]:
    """Return a change for `ImageStore.note` that sets these fields of the checkout."""
    return lambda image: replace(image, **fields)


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Let this process find no room beyond so many bytes of a file (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
