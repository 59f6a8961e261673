"""A child process that is stopped after each of its system calls, so that a test can look at the disk at that point.

The folder is compared with its earlier state after every call, so no list of the calls that change a disk is needed. If
it differs, the child has made a step. An fsync is a step, too.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

# sys/ptrace.h; fsync and fdatasync of each machine's unistd.h.
_TRACEME, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_TRACESYSGOOD, _EXITKILL = 1, 1 << 20
_ENTRY, _EXIT = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long
_SYNCS = {"x86_64": (74, 75), "aarch64": (82, 83)}.get(platform.machine(), ())

needs_ptrace = pytest.mark.skipif(
    sys.platform != "linux" or not _SYNCS, reason="needs Linux on x86_64 or aarch64, to stop a process at its calls"
)


class Entry(NamedTuple):
    """A file or a folder. A folder's content is None."""

    inode: int
    content: bytes | None
    modified: int


Look = dict[str, Entry]


class Step(NamedTuple):
    """The state of the folder after a step, and the path that the step has synced, if any."""

    look: Look
    synced: str | None = None


class _SyscallInfo(ctypes.Structure):
    _fields_ = (
        ("op", ctypes.c_uint8),
        ("arch", ctypes.c_uint32),
        ("pointers", ctypes.c_uint64 * 2),
        ("words", ctypes.c_uint64 * 8),  # the call's number and arguments at its entry, its result at its exit
    )


def look_at(folder: Path) -> Look:
    """Read all files and folders in a folder, and the folder itself under the name "."."""
    look: Look = {}
    for parent, _, names in os.walk(folder):
        look[os.path.relpath(parent, folder)] = Entry(os.stat(parent).st_ino, None, 0)
        for name in names:
            path = Path(parent, name)
            status = path.stat()
            look[os.path.relpath(path, folder)] = Entry(status.st_ino, path.read_bytes(), int(status.st_mtime))
    return look


def trace(
    folder: Path,
    act: Callable[[], object],
    *,
    end_after: int | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> list[Step]:
    """Run a function in a child process; return the steps by which it changed the folder.

    :param end_after: after this many steps kill the child, before its next system call.
    :param meanwhile: called while the child is stopped, after each system call.
    """
    steps = [Step(look_at(folder))]
    child = _start(act)
    _wait(child)
    _ptrace(_SETOPTIONS, child, 0, _TRACESYSGOOD | _EXITKILL)
    number, info, synced = 0, _SyscallInfo(), None
    while end_after is None or len(steps) <= end_after:
        _ptrace(_SYSCALL, child, 0, number)
        status = _wait(child)
        if not os.WIFSTOPPED(status):
            assert os.waitstatus_to_exitcode(status) == 0, "the child has failed; its error is above"
            assert end_after is None, "it has made fewer steps than the last time"
            return steps[1:]
        number = os.WSTOPSIG(status)
        if number != signal.SIGTRAP | 0x80:
            continue  # a signal: the next PTRACE_SYSCALL delivers it to the child
        number = 0
        _ptrace(_GET_SYSCALL_INFO, child, ctypes.sizeof(info), ctypes.byref(info))
        if info.op == _ENTRY:
            synced = os.stat(f"/proc/{child}/fd/{info.words[1]}").st_ino if info.words[0] in _SYNCS else None
        elif info.op == _EXIT:
            meanwhile()
            now = look_at(folder)
            if now != steps[-1].look:
                steps.append(Step(now))
            paths = [path for path, entry in now.items() if entry.inode == synced and not info.words[0]]
            steps.extend(Step(now, path) for path in paths)
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(_wait(child)) == signal.SIGKILL
    return steps[1:]


def _start(act: Callable[[], object]) -> int:
    with warnings.catch_warnings():
        # Python 3.12 and later warn if there are other threads, as with pytest-xdist. These hold none of our locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    try:
        _ptrace(_TRACEME, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        act()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _wait(child: int) -> int:
    return os.waitpid(child, 0)[1]


def _ptrace(request: int, child: int, address: int, data: Any) -> None:
    if _libc.ptrace(request, child, address, data) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")
