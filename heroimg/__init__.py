"""heroimg keeps an uploaded picture safe while its owner pays, and hands it back exactly once.

Importing it starts nothing and reads no environment; `heroimg.wsgi` is the entry point that does.
"""

from __future__ import annotations

import time

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from heroimg.api.answers import hide_late_errors, shape_answers
from heroimg.api.checkout import bp as checkout_bp
from heroimg.api.health import bp as health_bp
from heroimg.api.rates import Rates
from heroimg.api.request_body import limit_bodies
from heroimg.api.services import Services
from heroimg.api.temp_images import bp as temp_images_bp
from heroimg.config import Config
from heroimg.operations.commands import operator_commands
from heroimg.operations.counters import open_counters
from heroimg.operations.sweep import Sweeper
from heroimg.payments.checkout import Checkout
from heroimg.payments.stripe_sessions import StripeSessions
from heroimg.pictures.hand_over import HandOvers
from heroimg.stores import open_store
from heroimg.stores.base import Clock

__all__ = ["create_app"]


def create_app(config: Config, clock: Clock = time.time) -> Flask:
    """Make the application.

    :param clock: returns the current time in Unix seconds.
    :raises ConfigError: the settings cannot work, or their folders cannot be written.
    """
    store = open_store(config, clock)
    counters = open_counters(config)
    checkout = Checkout(
        config, store, StripeSessions(config, clock), clock, on_complete=counters.checkouts_complete.inc
    )
    sweeper = Sweeper(config, store, counters, clock, checkout.end_others)
    hand_overs = HandOvers(store, clock, config.claim_seconds, checkout, on_removed=counters.confirmations.inc)
    rates = Rates(config)

    app = Flask(__name__)
    app.url_map.merge_slashes = False  # otherwise Werkzeug redirects /api//x, using the client's Host header
    app.extensions["heroimg"] = Services(config, store, checkout, hand_overs, rates, sweeper, counters, clock)
    limit_bodies(app)
    for bp in (temp_images_bp, checkout_bp, health_bp):
        app.register_blueprint(bp)
    rates.limit_endpoints(app)
    shape_answers(app, config)
    if config.metrics:
        # prometheus_client reads the name of its folder when it is imported, and open_counters sets that name.
        from heroimg.api.metrics import add_metrics  # noqa: PLC0415

        add_metrics(app)
    for command in operator_commands(store, sweeper, clock):
        app.cli.add_command(command)
    app.wsgi_app = hide_late_errors(sweeper.sweep_between_requests(app.wsgi_app))  # type: ignore[assignment, method-assign]
    if config.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=config.trusted_proxies, x_proto=0)  # type: ignore[method-assign]
    return app
