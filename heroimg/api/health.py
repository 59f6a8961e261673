"""/healthz shows whether the store works. /readyz also shows whether an operator must act."""

from __future__ import annotations

from contextlib import suppress

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from heroimg.api.services import services
from heroimg.errors import NotReady, StoreFull
from heroimg.operations.public_check import MARK

bp = Blueprint("health", __name__)


@bp.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Fail if the store cannot be written. Too little room for uploads is no failure: pictures can be retrieved."""
    with suppress(StoreFull):
        services().store.check()
    return {"status": "ok"}


@bp.get("/readyz")
def readyz() -> ResponseReturnValue:
    """Fail if the store does not work, has too little room for uploads, or is not swept."""
    try:
        services().store.check()
    except StoreFull as error:
        raise NotReady(
            "Uploads are refused: the disk has too few inodes, or less room than HEROIMG_MIN_FREE_BYTES, or Redis has "
            "reached its maxmemory. The log says more."
        ) from error.__cause__
    if overdue := services().sweeper.seconds_overdue():
        raise NotReady(
            f"No sweep has run for {overdue} seconds; HEROIMG_SWEEP_SECONDS is {services().config.sweep_seconds}. "
            "Look for `cannot sweep` and `cannot lock` in the log, restart the server, or run "
            "`flask --app heroimg.wsgi sweep` by cron."
        )
    warnings = services().store.warnings() + services().checkout.warnings() + _proxy_warnings()
    return {"status": "ok", "warnings": warnings} if warnings else {"status": "ok"}


def _proxy_warnings() -> list[str]:
    """Compare HEROIMG_TRUSTED_PROXIES with the number of addresses that proxies have added to X-Forwarded-For.

    A request that passed no proxy, such as a monitor's on this machine, gets no warning. `check --url` sends MARK as an
    address in X-Forwarded-For. Proxies add addresses after MARK, or replace it.
    """
    addresses = [one.strip() for one in ",".join(request.headers.getlist("X-Forwarded-For")).split(",") if one.strip()]
    if not addresses:
        return []
    added = addresses[::-1].index(MARK) if MARK in addresses else len(addresses)
    trusted = services().config.trusted_proxies
    if added == trusted:
        return []
    counted = "all customers count as one address" if trusted < added else "customers can claim any address"
    return [
        f"{added} proxies add to X-Forwarded-For, so {counted}: set HEROIMG_TRUSTED_PROXIES to {added}, not {trusted}."
    ]
