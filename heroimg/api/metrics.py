"""/metrics, in Prometheus' format, for all workers together. Off unless HEROIMG_METRICS=1."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from flask import Blueprint, Flask, Response
from prometheus_client import CONTENT_TYPE_LATEST, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from heroimg.api.services import services
from heroimg.logs import error_once
from heroimg.operations.counters import counters_dir, open_process_counters

log = logging.getLogger(__name__)

bp = Blueprint("metrics", __name__)


def add_metrics(app: Flask) -> None:
    """Serve /metrics, and count every refusal."""
    app.register_blueprint(bp)
    app.after_request(_count_refusal)


@bp.get("/metrics")
def metrics() -> Response:
    """Return the sums of all workers' counters, and figures about the pictures that are held."""
    return Response(generate_latest(_Figures()), content_type=CONTENT_TYPE_LATEST)


class _Figures(Collector):
    def collect(self) -> Iterator[Metric]:
        folder = counters_dir(services().config)
        open_process_counters(folder)
        yield from MultiProcessCollector.merge(filter(_is_readable, folder.glob("*.db")))  # type: ignore[no-untyped-call]
        ahead = services().checkout.clock_seconds_ahead
        yield GaugeMetricFamily("heroimg_clock_ahead_seconds", "How far the clock is ahead of Stripe's.", value=ahead)
        if services().store.is_shared:  # counting would read every key of Redis
            return
        held, now = services().store.held(), services().now()
        figures = {
            "held_images": ("Pictures that can be retrieved.", held.images),
            "held_bytes": ("Bytes of the pictures that can be retrieved.", held.size),
            "oldest_age_seconds": ("The age of the oldest picture; 0 if there is none.", now - (held.oldest or now)),
            "last_sweep_timestamp_seconds": ("When the last sweep ended.", services().sweeper.last_swept()),
        }
        if room := services().store.room():
            figures["free_bytes"] = ("Free bytes on the disk of the pictures.", room.bytes)
            if room.inodes is not None:
                figures["free_inodes"] = ("Free inodes on the disk of the pictures.", room.inodes)
        for name, (text, value) in figures.items():
            yield GaugeMetricFamily(f"heroimg_{name}", text, value=value)


def _is_readable(file: Path) -> bool:
    """Return False for a damaged file. The library raises errors of many kinds for it."""
    try:
        MultiProcessCollector.merge([file])  # type: ignore[no-untyped-call]
    except Exception as error:
        error_once(log, "cannot read %s for /metrics: %r", file, error, key=(file, repr(error)))
        return False
    return True


def _count_refusal(response: Response) -> Response:
    if response.status_code >= 400 and response.is_json:
        services().counters.refusals.inc(code=response.get_json()["code"])
    return response
