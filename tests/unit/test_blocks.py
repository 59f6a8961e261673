"""The bytes of a picture on their way to Redis."""

from __future__ import annotations

import tracemalloc

from heroimg.stores.redis.blocks import BLOCK_BYTES, StagedBytes


def test_a_picture_that_arrived_is_read_and_split_without_a_copy() -> None:
    staged = StagedBytes()
    for _ in range(60):
        staged.write(bytes(512 * 1024))
    staged.seek(0)
    tracemalloc.start()
    try:
        data, blocks = staged.read(), staged.blocks()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # tracemalloc sees the buffer once, when it is cut to its length.
    assert peak < len(data) + BLOCK_BYTES
    assert b"".join(blocks) == data
