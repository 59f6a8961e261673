"""The bytes of a picture on their way to and from Redis. The application never has a whole picture in memory twice."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Sequence

# Redis' allocator (jemalloc) has sizes of 1 MiB and 1.25 MiB, and nothing between them. A string has a header of up to
# 17 bytes, so a block of exactly 1 MiB would take 1.25 MiB.
BLOCK_BYTES = 1024 * 1024 - 64


class StagedBytes(io.BytesIO):
    """A picture while it arrives, in memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        # Unlike super().read(), getvalue() does not copy the picture.
        return self.getvalue() if size in (-1, None) and self.tell() == 0 else super().read(size)

    def blocks(self) -> list[memoryview]:
        """Split the picture into blocks, without a copy."""
        view = memoryview(self.getvalue())
        return [view[start : start + BLOCK_BYTES] for start in range(0, len(view), BLOCK_BYTES)]


class BlocksReader(io.RawIOBase):
    """A picture's bytes, block by block. Each block is freed as soon as it has been read."""

    def __init__(self, blocks: Sequence[bytes]) -> None:
        self._blocks = deque(memoryview(block) for block in blocks)

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return self.readall()  # this makes a second copy, so the application always gives a size
        if not self._blocks:
            return b""
        block = self._blocks.popleft()
        if len(block) > size:
            self._blocks.appendleft(block[size:])
        return bytes(block[:size])
