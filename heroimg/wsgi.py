"""The entry point: reads the environment, and `.env` in the current folder; logs; sweeps. Servers look for `app`."""

from __future__ import annotations

import logging
import os

from heroimg import create_app
from heroimg.config import Config
from heroimg.env_file import read_env_file
from heroimg.logs import configure_logging
from heroimg.operations.sweep import start_sweeping

configure_logging()
for _name, _value in read_env_file().items():
    os.environ.setdefault(_name, _value)
_config = Config.from_env(os.environ)
app = create_app(_config)
start_sweeping(app)
logging.getLogger(__name__).info(
    "ready: pictures wait in %s; checkout with %s", _config.storage_location, _config.stripe_mode
)
