"""The entry point: it reads the environment and `.env`, sets up logging and starts the jobs. Servers look for `app`."""

from __future__ import annotations

import logging
import os

import click
from click.core import ParameterSource

from heroimg import create_app, create_app_without_settings
from heroimg.api.services import services
from heroimg.config import Config, ConfigError
from heroimg.env_file import env_file_values, forget_flasks_reading
from heroimg.logs import configure_logging

# Commands such as `flask held` import this module too, but serve nothing.
_command = click.get_current_context(silent=True)
_is_server = _command is None or _command.info_name == "run"

configure_logging()
# Forget what flask has read from .env, unless the operator named the file (`flask -e FILE`).
if _command is not None and _command.find_root().get_parameter_source("env_file") not in {
    ParameterSource.COMMANDLINE,
    ParameterSource.ENVIRONMENT,
}:
    forget_flasks_reading(os.environ)
try:
    for _name, _value in env_file_values().items():
        os.environ.setdefault(_name, _value)
    _config = Config.from_env(os.environ)
    app = create_app(_config)
except ConfigError as _error:
    if _is_server:
        raise
    app = create_app_without_settings(_error)

if _is_server:
    services(app).start_jobs()
    logging.getLogger(__name__).info(
        "ready: pictures wait in %s; checkout with %s", _config.storage_location, _config.stripe_mode
    )
