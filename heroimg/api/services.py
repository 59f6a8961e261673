"""The objects that the views of one application share."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask, current_app

from heroimg.config import Config
from heroimg.operations.counters import Counters
from heroimg.operations.sweep import Sweeper
from heroimg.payments.checkout import Checkout
from heroimg.stores.base import Clock, ImageStore


@dataclass(frozen=True)
class Services:
    """Made once by create_app."""

    config: Config
    store: ImageStore
    checkout: Checkout
    sweeper: Sweeper
    counters: Counters
    clock: Clock

    def now(self) -> int:
        """Return the current time in whole Unix seconds."""
        return int(self.clock())


def services(app: Flask | None = None) -> Services:
    """Return the services of this application, by default of the one that answers the current request."""
    shared: Services = (app or current_app).extensions["heroimg"]
    return shared
