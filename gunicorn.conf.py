"""Found by `gunicorn` by itself, so that it alone serves the application."""

from heroimg.gunicorn_conf import *  # noqa: F403
