"""The check of the whole set-up, for the command `check`. It reports faults before a customer meets them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator

import click

from heroimg.config import Config, ConfigError
from heroimg.errors import HeroimgError
from heroimg.findings import Check, Finding, fault, ok
from heroimg.operations.instance import check_instance_folder
from heroimg.operations.public_check import check_public_side
from heroimg.stores.base import ImageStore

_TOKEN = "a-trial-of-the-check"


class SetupCheck:
    """All checks, in the order of the report.

    :param check_payments: checks the Stripe account.
    :param check_rates: counts a trial request, and raises StoreUnavailable if counting fails.
    """

    def __init__(
        self, config: Config, store: ImageStore, check_payments: Check, check_rates: Callable[[], None]
    ) -> None:
        self._config = config
        self._store = store
        self._check_payments = check_payments
        self._check_rates = check_rates

    def run(self, url: str | None = None) -> Iterator[Finding]:
        """Check everything. With a public address, such as https://heroimg.example.com, also check the public side."""
        yield ok("settings", "every HEROIMG_ variable is a setting, and the settings go together")
        yield self._check_threads()
        yield check_instance_folder(self._config)
        yield from self._check_store()
        yield from self._check_payments(url)
        if url:
            yield from check_public_side(url, self._config)

    def _check_store(self) -> Iterator[Finding]:
        try:
            yield from self._store.check_setup()
            yield from self._try_store()
        except HeroimgError as error:
            yield fault("store", str(error.__cause__ or error.sentence))

    def _check_threads(self) -> Finding:
        try:
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()
        except RuntimeError:
            if self._config.sweep_seconds:
                return fault(
                    "threads",
                    "this host allows none: set HEROIMG_SWEEP_SECONDS to 0, so that heroimg sweeps after requests",
                )
            return ok("threads", "this host allows none, and HEROIMG_SWEEP_SECONDS is 0")
        return ok("threads", "this host allows them")

    def _try_store(self) -> Iterator[Finding]:
        """Keep a trial picture, change it and remove it. In Redis, this also tests the user's permissions."""
        self._store.check()
        staged = self._store.stage()
        try:
            staged.write(b"trial")
            image = self._store.keep(staged, "image/png")
        finally:
            staged.close()
        try:
            self._store.pin(image.id, image.expires)
            self._store.note(image.id, lambda noted: noted)
            self._store.claim(image.id, _TOKEN).stream.close()
            self._store.renew(image.id, _TOKEN)
            self._store.release(image.id, _TOKEN)
            self._check_rates()
        finally:
            self._store.remove(image.id)
        self._store.held()
        yield ok("store", f"a picture can be kept, claimed and removed in {self._config.storage_location}")


def report(findings: Iterable[Finding], *, as_json: bool) -> None:
    """Print a line for each finding, or all findings as a JSON array. Exit with status 1 if a finding is a fault."""
    seen = []
    for finding in findings:
        seen.append(finding)
        if not as_json:
            click.echo(f"{finding.state:7}  {finding.subject}: {finding.sentence}")
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in seen], indent=2))
    if any(finding.state == "fault" for finding in seen):
        raise click.exceptions.Exit(1)


def settings_findings(error: ConfigError) -> list[Finding]:
    """Report the faults of settings. Nothing else can be checked with such settings."""
    return [fault("settings", one) for one in error.faults]
