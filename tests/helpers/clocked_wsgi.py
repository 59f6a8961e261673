"""The application as `heroimg.wsgi` makes it, with the demo's page, by a clock that a test drives."""

import logging
import os
import time
from pathlib import Path

from demo.hero_me import add_page
from heroimg import create_app
from heroimg.api.services import services
from heroimg.config import Config
from heroimg.logs import configure_logging

_offset = Path(os.environ["TEST_CLOCK"])


def _now() -> float:
    return time.time() + float(_offset.read_text())


configure_logging()
app = create_app(Config.from_env(os.environ), _now)
add_page(app)
services(app).start_jobs()
logging.getLogger(__name__).info("ready: by a driven clock")
