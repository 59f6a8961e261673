"""The settings for `gunicorn` without arguments: it looks for a file of this name in the working folder."""

from heroimg.gunicorn_conf import *  # noqa: F403
