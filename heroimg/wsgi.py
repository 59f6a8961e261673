"""The entry point: reads the environment and `.env`, logs, sweeps. `app` is what gunicorn and Flask look for."""

from __future__ import annotations

import os

from dotenv import find_dotenv, load_dotenv

from . import create_app
from .config import Config
from .logs import configure_logging
from .sweep import start_sweeping

configure_logging()
load_dotenv(find_dotenv(usecwd=True))
app = create_app(Config.from_env(os.environ))
start_sweeping(app)
