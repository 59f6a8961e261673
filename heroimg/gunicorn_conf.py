"""gunicorn's settings.

In the project's folder, gunicorn reads these settings by itself, because gunicorn.conf.py imports them. Elsewhere, run
`gunicorn -c python:heroimg.gunicorn_conf`.

The address `bind` is not used if `--bind` is given, or if systemd passes a socket.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from heroimg import create_app
from heroimg.config import Config, ConfigError
from heroimg.env_file import give_to_workers, read_env_file
from heroimg.operations.counters import begin_at_zero

# The most memory that one worker needs, with Redis and 16 arriving pictures (docs/promises.md).
_WORKER_BYTES = 400_000_000

_CGROUPS = Path("/sys/fs/cgroup")

# glibc's numbers of these parameters, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def _workers() -> int:
    """Return how many workers to start: one for each core, but only as many as fit into half of the memory.

    The minimum is two workers, or one worker if two do not fit into the whole memory. In a container, the container's
    limits of cores and memory apply.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    core_limit, memory_limit = _container_limits()
    cores, memory = min(cores, math.ceil(core_limit)), min(memory, memory_limit)
    least = max(1, min(2, memory // _WORKER_BYTES))
    return max(least, min(cores, memory // 2 // _WORKER_BYTES))


def _container_limits() -> tuple[float, int]:
    """Return the cores and the bytes of memory that cgroup v2 allows this process.

    Each parent of the process's group can have lower limits. In a container the path of the group may be a path on the
    host, which the container does not have. Then the root of the tree has the container's limits.
    https://docs.kernel.org/admin-guide/cgroup-v2.html#interface-files
    """
    cores, memory = float(sys.maxsize), sys.maxsize
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        own = next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
        for group in (_CGROUPS / own, *(_CGROUPS / parent for parent in Path(own).parents)):
            with suppress(OSError, ValueError):  # ValueError: "max", which is no limit
                quota, period = map(int, (group / "cpu.max").read_text().split())
                cores = min(cores, quota / period)
            with suppress(OSError, ValueError):
                memory = min(memory, int((group / "memory.max").read_text()))
    return cores, memory


def settle_allocator() -> None:
    """Let glibc use the memory of one picture for the next picture. Without glibc, do nothing.

    By default, glibc returns the memory of most pictures to the kernel, and later takes memory again page by page. By
    default, every thread also has its own heap.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)
    # Take blocks of up to 8 MB, such as a picture of 5 MB, from the heap. Keep up to 64 MB of free memory
    # for the next pictures.
    mallopt(_M_MMAP_THRESHOLD, 8 * 1024 * 1024)
    mallopt(_M_TRIM_THRESHOLD, 64 * 1024 * 1024)
    mallopt(_M_ARENA_MAX, 2)


wsgi_app = "heroimg.wsgi:app"
worker_class = "gthread"

# Most hosting platforms set PORT, and some set WEB_CONCURRENCY.
bind = f"0.0.0.0:{os.environ['PORT']}" if os.environ.get("PORT") else "127.0.0.1:3000"
workers = int(os.environ.get("WEB_CONCURRENCY") or _workers())

# Some threads wait for Stripe (MAX_CALLS_AT_ONCE in payments/stripe_http.py), or for readers without a claim
# (MAX_UNBUFFERED in pictures/hand_over.py).
threads = 16

# A stopping worker gets this many seconds to finish its requests. A call to Stripe takes less time (DEADLINE_SECONDS in
# payments/stripe_http.py). TimeoutStopSec= in deploy/heroimg.service is longer. A request with several slow calls may
# be cut off, but the client can repeat it.
graceful_timeout = 30

# gunicorn replaces a worker that sent no heartbeat for this many seconds. proxy_read_timeout in deploy/nginx.conf is
# longer.
timeout = 60
keepalive = 5

# The workers' heartbeats are files. On a slow disk, a healthy worker could miss its heartbeat and be killed.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None

# nginx's limit is lower (large_client_header_buffers in deploy/nginx.conf), so nginx refuses long lines first, in JSON.
limit_request_line = 8190

# On a unix socket gunicorn would trust headers about the scheme and the path. heroimg needs neither.
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}

# We do not use the control socket, and it would create a file in the user's home.
control_socket_disable = True


def on_starting(_server: object) -> None:
    """Check the settings before workers start, so that a wrong setting is reported only once."""
    settle_allocator()
    try:
        begin_at_zero(_check_settings())
    except ConfigError as error:
        sys.exit(str(error))
    gc.freeze()  # otherwise the garbage collector would write to the memory that all workers share


def on_reload(server: Any) -> None:
    """Check the changed settings. If one is wrong, the new workers get the old settings."""
    try:
        _check_settings()
    except ConfigError as error:
        server.log.error("the new settings are not used: %s", error)


def _check_settings() -> Config:
    values = read_env_file()
    config = Config.from_env(values | os.environ)
    create_app(config)
    give_to_workers(values)
    return config
