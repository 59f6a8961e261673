"""heroimg keeps an uploaded picture safe while its owner pays, and hands it back exactly once.

Importing this package starts nothing and reads no environment. The entry point is `heroimg.wsgi`.
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
from heroimg.api.request_id import identify_requests
from heroimg.api.services import Services
from heroimg.api.temp_images import bp as temp_images_bp
from heroimg.config import Config, ConfigError
from heroimg.operations.commands import commands_without_settings, operator_commands
from heroimg.operations.counters import open_counters
from heroimg.operations.lookup import Lookup
from heroimg.operations.setup_check import SetupCheck
from heroimg.operations.sweep import Sweeper
from heroimg.payments.checkout import Checkout
from heroimg.payments.ending import SessionEnder
from heroimg.payments.events import PaymentEvents
from heroimg.payments.notes import CheckoutNotes
from heroimg.payments.stripe_sessions import StripeSessions
from heroimg.payments.stripe_setup import StripeSetup
from heroimg.pictures.hand_over import HandOvers
from heroimg.stores import open_store
from heroimg.stores.base import Clock

__all__ = ["create_app"]


def create_app(config: Config, clock: Clock = time.time) -> Flask:
    """Make the application.

    :param clock: returns the current time in Unix seconds.
    :raises ConfigError: heroimg cannot work with these settings, or cannot write to the folders that they name.
    """
    store = open_store(config, clock)
    counters = open_counters(config)
    sessions = StripeSessions(config, clock, on_call=counters.stripe_seconds.observe)
    notes = CheckoutNotes(store, on_complete=counters.checkouts_complete.inc)
    ender = SessionEnder(store, sessions, notes)
    checkout = Checkout(config, store, sessions, notes, ender, clock)
    payment_events = PaymentEvents(config, store, sessions, notes, clock)
    sweeper = Sweeper(config, store, counters, clock, ender.end_replaced)
    hand_overs = HandOvers(store, clock, config.claim_seconds, ender, on_removed=counters.confirmations.inc)
    rates = Rates(config)

    app = Flask(__name__)
    app.url_map.merge_slashes = False  # otherwise Werkzeug redirects /api//x, using the client's Host header
    services = Services(config, store, checkout, payment_events, hand_overs, rates, sweeper, counters, clock)
    app.extensions["heroimg"] = services
    limit_bodies(app)
    for bp in (temp_images_bp, checkout_bp, health_bp):
        app.register_blueprint(bp)
    app.before_request(rates.count_endpoint)
    shape_answers(app, config)
    if config.metrics:
        # Not before open_counters, because prometheus_client reads PROMETHEUS_MULTIPROC_DIR when it is imported.
        from heroimg.api.metrics import add_metrics  # noqa: PLC0415

        add_metrics(app)
    _add_commands(app, services, ender)
    wsgi_app = hide_late_errors(sweeper.sweep_between_requests(app.wsgi_app))
    app.wsgi_app = identify_requests(wsgi_app)  # type: ignore[assignment, method-assign]
    if config.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=config.trusted_proxies, x_proto=0)  # type: ignore[method-assign]
    return app


def _add_commands(app: Flask, services: Services, ender: SessionEnder) -> None:
    config, store, clock = services.config, services.store, services.clock
    lookup = Lookup(store, clock, ender.end, services.checkout.session_state)
    # If `check` timed its calls to Stripe, each run would leave counter files.
    untimed = StripeSessions(config, clock)
    setup = SetupCheck(config, store, StripeSetup(config, untimed, clock).check, services.rates.check)
    for command in operator_commands(store, services.sweeper, clock, lookup, setup):
        app.cli.add_command(command)


def create_app_without_settings(error: ConfigError) -> Flask:
    """Make an application that only has the operator's commands. `check` reports the error."""
    app = Flask(__name__)
    for command in commands_without_settings(error):
        app.cli.add_command(command)
    return app
