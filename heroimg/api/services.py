"""The objects that the views of one application share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flask import Flask, current_app

from heroimg.api.rates import Rates
from heroimg.config import Config, ConfigError
from heroimg.operations.counters import Counters
from heroimg.operations.schedule import run_in_background
from heroimg.operations.sweep import Sweeper
from heroimg.payments.checkout import Checkout
from heroimg.payments.events import PaymentEvents
from heroimg.pictures.hand_over import HandOvers
from heroimg.stores.base import Clock, ImageStore


@dataclass(frozen=True)
class Services:
    """The objects that create_app makes for an application."""

    config: Config
    store: ImageStore
    checkout: Checkout
    payment_events: PaymentEvents
    hand_overs: HandOvers
    rates: Rates
    sweeper: Sweeper
    counters: Counters
    clock: Clock

    def start_jobs(self) -> None:
        """Start the background jobs: renewing slow readers' claims, and sweeping unless HEROIMG_SWEEP_SECONDS=0.

        :raises ConfigError: this host does not allow threads, and HEROIMG_SWEEP_SECONDS is not 0.
        """
        jobs: dict[Callable[[], object], float] = {self.hand_overs.renew_claims: self.hand_overs.renewal_seconds}
        if self.config.sweep_seconds:
            jobs[self.sweeper.sweep_if_due] = self.config.sweep_seconds
        try:
            run_in_background(jobs)
        except RuntimeError as error:  # without threads, claims are renewed only between a picture's blocks
            if self.config.sweep_seconds:
                fault = f"HEROIMG_SWEEP_SECONDS is not 0, and this host allows no threads ({error})"
                raise ConfigError([f"{fault}: set it to 0, so that heroimg sweeps after requests"]) from error

    def now(self) -> int:
        """Return the current time in whole Unix seconds."""
        return int(self.clock())


def services(app: Flask | None = None) -> Services:
    """Return the application's services. The default is the application that answers the current request."""
    shared: Services = (app or current_app).extensions["heroimg"]
    return shared
