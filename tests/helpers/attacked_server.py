"""A server for attacks: one worker, whose CPU time and memory are measured, and a stand-in for Stripe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.stripe_stand_in import StandIn
from tests.helpers.api import Api
from tests.helpers.process_usage import MOST_BYTES, costs_little, peak_bytes
from tests.helpers.serving import serving, wait_for
from tests.helpers.shop import stripe_settings


@contextmanager
def serving_attacked(folder: Path) -> Iterator[Api]:
    """Serve during the block; fail if the worker has used too much memory by its end."""
    with StandIn() as stand_in, serving(folder, stripe_settings(stand_in), workers=1) as server:
        yield Api(server)
        assert peak_bytes(server.workers()[0]) < MOST_BYTES


@contextmanager
def unharmed(api: Api) -> Iterator[None]:
    """Fail if the block costs too much, leaves anything but whole pictures, or ends or breaks the worker."""
    server = api.server
    (worker,) = server.workers()
    with costs_little(worker):
        yield
        assert api.request("GET", "/healthz").status_code == 200
    assert server.workers() == [worker]
    wait_for(lambda: _is_tidy(server.names()), "the folder to hold whole pictures alone")
    assert "Traceback" not in server.log()


def _is_tidy(names: list[str]) -> bool:
    kept = {name for name in names if "." not in name}
    return set(names) == kept | {f"{name}.json" for name in kept}
