"""What one application works with, made once by create_app and found by its views."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask, current_app

from heroimg.config import Config
from heroimg.operations.counters import Counters
from heroimg.payments.stripe_client import Payments
from heroimg.stores.base import Clock, ImageStore


@dataclass(frozen=True)
class Services:
    """What one application works with.

    :param started: when it was made, in Unix seconds.
    """

    config: Config
    store: ImageStore
    payments: Payments
    counters: Counters
    clock: Clock
    started: int

    def now(self) -> int:
        """Give the instant in whole Unix seconds."""
        return int(self.clock())


def services(app: Flask | None = None) -> Services:
    """Find the services of this application, by default of the one that answers the current request."""
    found: Services = (app or current_app).extensions["heroimg"]
    return found
