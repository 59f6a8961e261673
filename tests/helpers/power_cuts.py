"""Every state in which a power cut can leave a folder, derived from the steps of a process that wrote into it.

A disk keeps everything that was fsynced. A file that was not fsynced can be whole, cut short, empty, or as it was at
its last fsync; if it was overwritten in place, any part of it can be old and the rest new. A name that was made,
moved or removed since the last fsync of its folder can be in the old or the new state. Names change independently of
each other, but the changes of one name or one file keep their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import PurePosixPath

from tests.helpers.system_calls import Look, Step

Content = tuple[bytes | None, int]
State = frozenset[tuple[str, bytes | None, int]]


# Positions at which a file that is overwritten may be cut: in its first sectors, in the middle, and just after it.
_CUTS = (100, 512, 2048, 2148)


@dataclass
class File:
    """A file: its contents one after another, and the last one that was synced."""

    written: list[Content]
    is_synced: bool = False
    synced: Content | None = None
    written_before_sync: int = 0

    def may_be(self) -> set[Content]:
        content, modified = self.written[-1]
        if content is None or self.is_synced:
            return {self.written[-1]}
        if self.synced and self.synced[0] == content:
            return {self.synced, self.written[-1]}
        if self.synced and self._is_written_over():
            before = self.synced[0] or b""
            parts = [0, *_CUTS, len(content)]
            mixed = {content[:cut] + before[cut:] for cut in parts} | {before[:cut] + content[cut:] for cut in parts}
            return {(part, when) for part in mixed for when in (self.synced[1], modified)}
        torn = {(part, when) for part in (b"", content[: len(content) // 2], content) for when in (modified, 0)}
        return torn | ({self.synced} if self.synced else set())

    def _is_written_over(self) -> bool:
        """Return whether the file has kept its length since it was synced, so that no block of it can be missing."""
        since = self.written[self.written_before_sync - 1 :]
        return len({len(content or b"") for content, _ in since}) == 1


@dataclass(eq=False)
class Change:
    """A change of the names in one folder, made by one system call."""

    folder: str
    gone: dict[str, File]
    come: dict[str, File]
    is_synced: bool = False

    def touches(self, other: Change) -> bool:
        files = {id(file) for change in (self.gone, self.come) for file in change.values()}
        others = {id(file) for change in (other.gone, other.come) for file in change.values()}
        return bool((self.gone.keys() | self.come.keys()) & (other.gone.keys() | other.come.keys()) or files & others)


@dataclass
class Disk:
    """Everything that was written, and the part that is on stable storage. It starts with only the root folder."""

    look: Look = field(default_factory=dict)
    names: dict[str, File] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    def follow(self, step: Step) -> None:
        if step.synced is None:
            self._change(step.look)
        else:
            file = self.names[step.synced]
            file.is_synced, file.synced, file.written_before_sync = True, file.written[-1], len(file.written)
            for change in self.changes:
                change.is_synced |= change.folder == step.synced

    def _change(self, look: Look) -> None:
        before = {entry.inode: self.names[path] for path, entry in self.look.items()}
        names = dict[str, File]()
        for path, entry in look.items():
            # A file that keeps its inode is the same file; an inode may be used again once its file has no name.
            file = names[path] = before.get(entry.inode) or File([])
            written = (entry.content, entry.modified)
            if not file.written or file.written[-1] != written:
                file.written.append(written)
                file.is_synced = False
        gone = {path: file for path, file in self.names.items() if names.get(path) is not file}
        come = {path: file for path, file in names.items() if self.names.get(path) is not file}
        folders = {str(PurePosixPath(path).parent) for path in (*gone, *come) if path != "."}
        self.changes += [Change(folder, _within(folder, gone), _within(folder, come)) for folder in sorted(folders)]
        self.look, self.names = look, names

    def states(self) -> Iterator[State]:
        """Yield every state in which a power cut can leave the disk now."""
        pending = [change for change in self.changes if not change.is_synced]
        for count in range(len(pending) + 1):
            for done in combinations(pending, count):
                if _is_in_order(done, pending):
                    yield from _contents(self._names_after(done))

    def _names_after(self, done: Sequence[Change]) -> dict[str, File]:
        names = dict[str, File]()
        for change in self.changes:
            if change.is_synced or change in done:
                for path in change.gone:
                    names.pop(path, None)
                names.update(change.come)
        return {path: file for path, file in names.items() if _has_its_folder(path, names)}


def _within(folder: str, names: dict[str, File]) -> dict[str, File]:
    return {path: file for path, file in names.items() if path != "." and str(PurePosixPath(path).parent) == folder}


def _has_its_folder(path: str, names: dict[str, File]) -> bool:
    folder = str(PurePosixPath(path).parent)
    return folder == "." or folder in names


def _is_in_order(done: Sequence[Change], pending: Sequence[Change]) -> bool:
    """Check that every change is preceded by the earlier changes of the same name or file."""
    return all(
        earlier in done or not earlier.touches(change)
        for change in done
        for earlier in pending[: pending.index(change)]
    )


def _contents(names: dict[str, File]) -> Iterator[State]:
    for contents in product(*(file.may_be() for file in names.values())):
        yield frozenset((path, *content) for path, content in zip(names, contents, strict=True))
