"""/metrics, in Prometheus' format, for all workers together. Off unless HEROIMG_METRICS=1."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Blueprint, Flask, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from heroimg.api.services import Services, services
from heroimg.operations.counters import counters, counters_dir
from heroimg.operations.sweep import last_swept

bp = Blueprint("metrics", __name__)


def add_metrics(app: Flask) -> None:
    """Serve /metrics, and count every refusal."""
    app.register_blueprint(bp)
    app.after_request(_count_refusal)


@bp.get("/metrics")
def metrics() -> Response:
    """Add up what all workers have counted, and look at what is held."""
    found = services()
    counters()  # so that there are figures before anything has happened
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(counters_dir(found.config)))  # type: ignore[no-untyped-call]
    if not found.store.is_shared:  # Redis has better figures of its own, without a look at every key
        registry.register(_Held(found))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class _Held(Collector):
    """What the folder holds now, and when it was swept."""

    def __init__(self, found: Services) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        held, now = self._found.store.held(), self._found.now()
        figures = {
            "held_images": ("Pictures that can be retrieved.", held.images),
            "held_bytes": ("Their bytes.", held.size),
            "oldest_age_seconds": ("The age of the oldest of them; 0 without any.", now - (held.oldest or now)),
            "last_sweep_timestamp_seconds": ("When the last sweep ended.", last_swept(self._found.config)),
        }
        for name, (text, value) in figures.items():
            yield GaugeMetricFamily(f"heroimg_{name}", text, value=value)


def _count_refusal(response: Response) -> Response:
    if response.status_code >= 400 and response.is_json:
        services().count("refusals", code=response.get_json()["code"])
    return response
