"""gunicorn's settings. In a checkout it finds them by itself; elsewhere, `gunicorn -c python:heroimg.gunicorn_conf`."""

from __future__ import annotations

import os
import sys
import time

from dotenv import load_dotenv

from .config import Config, ConfigError
from .stores import open_store
from .sweep import prepare_sweeping

wsgi_app = "heroimg.wsgi:app"
bind = "127.0.0.1:3000"
worker_class = "gthread"
workers = max(2, os.cpu_count() or 1)
threads = 4

# A worker that gives no sign of life for so long is replaced. Above what a call to Stripe may take (payments.py).
timeout = 60
graceful_timeout = 30
keepalive = 5

# The workers' heartbeat is a file; on a disk a slow write would get a worker killed.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None

# Nothing here is managed through it, and it would put a file into the home of the user.
control_socket_disable = True


def on_starting(_server: object) -> None:
    """Check the settings and the folders once, before there are workers, so that the message stands there once."""
    load_dotenv(".env")
    try:
        config = Config.from_env(os.environ)
        prepare_sweeping(config, open_store(config, time.time))
    except ConfigError as error:
        sys.exit(str(error))
