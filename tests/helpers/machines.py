"""Two gunicorns that share a Redis, as two machines do."""

from __future__ import annotations

from collections.abc import Callable

from demo.stripe_stand_in import StandIn
from tests.helpers.api import Api
from tests.helpers.serving import DrivenClock


class Machines:
    """Two gunicorns with separate folders. They share a Redis, a stand-in for Stripe and a clock."""

    def __init__(self, apis: list[Api], stand_in: StandIn, clock: DrivenClock) -> None:
        self.one, self.two = apis
        self.stand_in = stand_in
        self.clock = clock


OpenMachines = Callable[..., Machines]
