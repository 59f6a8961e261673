"""The entry point: reads the environment, and `.env` in the current folder; logs; sweeps. Servers look for `app`."""

from __future__ import annotations

import logging
import os

from dotenv import load_dotenv

from heroimg import create_app
from heroimg.api.services import services
from heroimg.config import Config
from heroimg.logs import configure_logging

configure_logging()
load_dotenv(".env")
_config = Config.from_env(os.environ)
app = create_app(_config)
services(app).start_jobs()
logging.getLogger(__name__).info(
    "ready: pictures wait in %s; checkout with %s", _config.storage_location, _config.stripe_mode
)
