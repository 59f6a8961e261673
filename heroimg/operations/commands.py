"""Commands for the operator: `flask --app heroimg.wsgi sweep`, `held`, `check`, `show` and `forget`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from heroimg import parsers
from heroimg.config import ConfigError
from heroimg.errors import HeroimgError
from heroimg.logs import redacted
from heroimg.operations.lookup import Lookup
from heroimg.operations.setup_check import SetupCheck, report, settings_findings
from heroimg.operations.sweep import Sweeper
from heroimg.stores.base import Clock, ImageStore

_NEED_SETTINGS = ("sweep", "held", "show", "forget")


def operator_commands(
    store: ImageStore, sweeper: Sweeper, clock: Clock, lookup: Lookup, setup: SetupCheck
) -> list[click.Command]:
    """Make the commands that `flask --app heroimg.wsgi` offers."""

    @_check_command
    def check(url: str | None, as_json: bool) -> None:
        """Check the whole set-up, and exit with status 1 if something must be fixed."""
        report(setup.run(url), as_json=as_json)

    show = "Show what is known about a picture. ID is the beginning of its id or of its Checkout Session's id."
    forget = "Remove a picture at its owner's request, and end its checkout. ID is as in `show`."
    return [
        _sweep_command(sweeper),
        _held_command(store, clock),
        _picture_command("show", show, lookup.show),
        _picture_command("forget", forget, lookup.forget),
        check,
    ]


def commands_without_settings(error: ConfigError) -> list[click.Command]:
    """Make the commands for settings with faults. `check` reports each fault; every other command fails."""

    def refuse() -> None:
        raise error

    @_check_command
    def check(url: str | None, as_json: bool) -> None:  # noqa: ARG001 (no server runs with such settings)
        """Report what is wrong with the settings."""
        report(settings_findings(error), as_json=as_json)

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    others = [click.Command(name, callback=refuse, context_settings=anything) for name in _NEED_SETTINGS]
    return [check, *others]


class _Command(click.Command):
    """A command that prints a failure of the store or of Stripe as one sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HeroimgError as error:
            raise click.ClickException(redacted(str(error.__cause__ or error.sentence))) from error


def _sweep_command(sweeper: Sweeper) -> click.Command:
    @click.command("sweep", cls=_Command)
    def sweep() -> None:
        """Remove expired pictures and leftovers of crashes. If the host forbids threads, run this by cron."""
        swept = sweeper.sweep()
        if swept is None:
            click.echo("Another process is sweeping.")
        else:
            click.echo(f"Swept {len(swept.expired)} expired pictures and {swept.leftovers} leftovers.")

    return sweep


def _held_command(store: ImageStore, clock: Clock) -> click.Command:
    @click.command("held", cls=_Command)
    def held() -> None:
        """Show how many pictures are held, their size, and the age of the oldest picture."""
        pictures = store.held()
        if pictures.oldest is None:
            click.echo("No pictures are held.")
        else:
            age = int(clock()) - pictures.oldest
            click.echo(f"Pictures held: {pictures.images}, {pictures.size} bytes; the oldest is {age} seconds old.")

    return held


def _picture_command(name: str, text: str, lines_about: Callable[[str], Iterable[str]]) -> click.Command:
    @click.command(name, cls=_Command, help=text)
    @click.argument("id")
    def command(id: str) -> None:
        for line in lines_about(id):
            click.echo(line)

    return command


def _check_command(check: Callable[[str | None, bool], None]) -> click.Command:
    url = click.option("--url", type=_origin, help="The public address, such as https://heroimg.example.com.")
    as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
    return click.command("check")(url(as_json(check)))


def _origin(text: str) -> str:
    try:
        return parsers.origin(text)
    except parsers.BadValue as fault:
        raise click.BadParameter(f"it {fault.requirement}") from fault
