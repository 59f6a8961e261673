"""Health: /healthz tells whether pictures can be kept and read, /readyz also whether everything else is in order."""

from __future__ import annotations

from contextlib import suppress

from flask import Blueprint
from flask.typing import ResponseReturnValue

from heroimg.api.services import services
from heroimg.errors import NotReady, StoreFull
from heroimg.operations.sweep import seconds_overdue

bp = Blueprint("health", __name__)


@bp.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Fail where the store cannot be written. One with too little room for more pictures still hands pictures back."""
    with suppress(StoreFull):
        services().store.check()
    return {"status": "ok"}


@bp.get("/readyz")
def readyz() -> ResponseReturnValue:
    """Fail where an operator has something to mend: the store, its room, or the sweep."""
    try:
        services().store.check()
    except StoreFull as error:
        raise NotReady(
            "Uploads are refused: less room is left than HEROIMG_MIN_FREE_BYTES, or Redis has reached its maxmemory."
        ) from error.__cause__
    if overdue := seconds_overdue(services()):
        raise NotReady(
            f"Nobody has swept for {overdue} seconds; HEROIMG_SWEEP_SECONDS is {services().config.sweep_seconds}. "
            "Restart the server, or run `flask --app wsgi sweep` by cron."
        )
    warnings = services().store.warnings()
    return {"status": "ok", "warnings": warnings} if warnings else {"status": "ok"}
