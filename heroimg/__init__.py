"""heroimg keeps an uploaded picture safe while its owner pays, and hands it back exactly once.

Importing it starts nothing and reads no environment; `heroimg.wsgi` is the entry point that does.
"""

from __future__ import annotations

import re
import time

from flask import Flask, Response
from flask_cors import CORS
from werkzeug.middleware.proxy_fix import ProxyFix

from heroimg.api import checkout, health, temp_images
from heroimg.api.form import accept_uploads
from heroimg.api.rates import limit_rates
from heroimg.api.services import Services
from heroimg.config import Config
from heroimg.errors import register_errors
from heroimg.operations.commands import add_commands
from heroimg.operations.counters import open_counters
from heroimg.operations.sweep import prepare_sweeping, sweep_between_requests
from heroimg.payments.stripe_client import Payments
from heroimg.stores import open_store
from heroimg.stores.base import Clock

__all__ = ["create_app"]


def create_app(config: Config, clock: Clock = time.time) -> Flask:
    """Make the application.

    :param clock: what time it is, in Unix seconds.
    :raises ConfigError: the settings cannot work, or their folders cannot be written.
    """
    app = Flask(__name__)
    app.url_map.merge_slashes = False  # or /api//x were led to /api/x, at whatever host the request names
    store = open_store(config, clock)
    prepare_sweeping(config, store)
    count = open_counters(config)
    app.extensions["heroimg"] = Services(config, store, Payments(config), count, clock, started=int(clock()))
    accept_uploads(app)
    for blueprint in (temp_images.bp, checkout.bp, health.bp):
        app.register_blueprint(blueprint)
    register_errors(app)
    limit_rates(app, config)
    app.after_request(_keep_private)
    _admit_front_end(app, config)
    add_commands(app)
    if config.metrics:
        from heroimg.api.metrics import add_metrics  # noqa: PLC0415 (its library is to be imported after open_counters)

        add_metrics(app)
    sweep_between_requests(app)
    if config.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=config.trusted_proxies, x_proto=0)  # type: ignore[method-assign]
    return app


def _admit_front_end(app: Flask, config: Config) -> None:
    CORS(
        app,
        resources=[r"/api/*", r"/static/*"],
        # Flask-CORS takes what looks like a regular expression for one, as an IPv6 address does.
        origins=[re.compile(re.escape(origin) + r"\Z") for origin in config.frontend_origins],
        methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers=["Content-Type"],
        expose_headers=["Image-Size", "Retry-After"],
        max_age=86400,
    )


def _keep_private(response: Response) -> Response:
    """Let nobody on the way keep an answer, or guess that it is something else.

    Who may read it depends on the origin even where there is none, and Flask-CORS says so only where there is.
    """
    response.headers.setdefault("Vary", "Origin")
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response
