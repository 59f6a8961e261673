"""gunicorn's settings. In a checkout it finds them by itself; elsewhere, `gunicorn -c python:heroimg.gunicorn_conf`.

It listens where `--bind` says, be it `unix:/run/heroimg.sock`, or on the socket that systemd hands it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys

from dotenv import dotenv_values

from heroimg import create_app
from heroimg.config import Config, ConfigError
from heroimg.operations.counters import begin_at_zero

# What one worker may need at once, when it decodes the costliest picture that is taken: docs/promises.md.
_WORKER_BYTES = 300_000_000

# glibc's, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def _workers() -> int:
    """As many as there are cores for, and half of the memory: decoding is the work."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(2, min(cores, memory // 2 // _WORKER_BYTES))


def settle_allocator() -> None:
    """Let glibc keep the memory that a picture took for the next one; elsewhere, do nothing.

    By default glibc returns megabytes to the kernel after most pictures and takes them again page by page, and it has a
    heap for every thread.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)
    # A picture's 5 MB, and room; what is larger costs a picture's time anyway.
    mallopt(_M_MMAP_THRESHOLD, 8 * 1024 * 1024)
    mallopt(_M_TRIM_THRESHOLD, 64 * 1024 * 1024)
    mallopt(_M_ARENA_MAX, 2)


wsgi_app = "heroimg.wsgi:app"
bind = "127.0.0.1:3000"
worker_class = "gthread"
workers = _workers()

# Some threads wait for Stripe (MAX_CALLS_AT_ONCE in payments/stripe_http.py), or for readers without a claim
# (MAX_UNBUFFERED in pictures/hand_over.py).
threads = 16

# A stopping worker completes its requests. This is more than one call to Stripe takes (DEADLINE_SECONDS in
# payments/stripe_http.py; a request with several slow calls is broken off and can be repeated), and less than
# TimeoutStopSec= in deploy/heroimg.service.
graceful_timeout = 30

# A worker that gives no sign of life for so long is replaced. Below proxy_read_timeout in deploy/nginx.conf.
timeout = 60
keepalive = 5

# The workers' heartbeat is a file; on a disk a slow write would get a worker killed.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None

# As long as nginx lets them be (large_client_header_buffers), so that it is nginx that refuses a longer one, as JSON.
limit_request_line = 8190

# The scheme and the path are of no use from a client's headers, and these would be believed on a unix socket.
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}

# Nothing here is managed through it, and it would put a file into the home of the user.
control_socket_disable = True


def on_starting(_server: object) -> None:
    """Make the application once before there are workers, so that a wrong setting is reported once."""
    settle_allocator()
    # Not load_dotenv: workers that start later would inherit the variables, and not read a file that has changed.
    settings = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    try:
        config = Config.from_env(settings | os.environ)
        begin_at_zero(config)
        create_app(config)
    except ConfigError as error:
        sys.exit(str(error))
    gc.freeze()  # otherwise the garbage collector would write to the memory that all workers share
