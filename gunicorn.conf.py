"""gunicorn's settings; it finds this file by itself, so `gunicorn` alone serves the application."""

import os
import sys
import time

from dotenv import find_dotenv, load_dotenv

from heroimg.config import Config, ConfigError
from heroimg.file_store import FileStore
from heroimg.sweep import prepare_sweeping

wsgi_app = "wsgi:app"
bind = "127.0.0.1:3000"
worker_class = "gthread"
workers = max(2, os.cpu_count() or 1)
threads = 4

# Above what a call to Stripe may take (payments.py), so that stopping cuts nobody off who is opening a checkout.
timeout = 60
graceful_timeout = 60
keepalive = 5

# The workers' heartbeat is a file; on a disk a slow write would get a worker killed.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None

# Nothing here is managed through it, and it would put a file into the home of the user.
control_socket_disable = True


def on_starting(_server):
    """Check the settings and the folders once, before there are workers, so that the message stands there once."""
    load_dotenv(find_dotenv(usecwd=True))
    try:
        config = Config.from_env(os.environ)
        FileStore(config, time.time)
        prepare_sweeping(config)
    except ConfigError as error:
        sys.exit(str(error))
