"""Two gunicorns that work as two machines over one Redis."""

from __future__ import annotations

from collections.abc import Callable

from demo.stripe_stand_in import StandIn
from tests.helpers.api import Api
from tests.helpers.serving import DrivenClock


class Machines:
    """Two gunicorns with folders of their own, over one Redis, one stand-in for Stripe and one clock."""

    def __init__(self, apis: list[Api], stand_in: StandIn, clock: DrivenClock) -> None:
        self.one, self.two = apis
        self.stand_in = stand_in
        self.clock = clock


OpenMachines = Callable[..., Machines]
