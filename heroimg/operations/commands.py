"""Commands for the operator: `flask --app wsgi sweep` and `flask --app wsgi held`."""

from __future__ import annotations

import click

from heroimg.operations.sweep import Sweeper
from heroimg.stores.base import Clock, ImageStore


def operator_commands(store: ImageStore, sweeper: Sweeper, clock: Clock) -> list[click.Command]:
    """Make the commands that `flask --app wsgi` offers."""

    @click.command("sweep")
    def sweep() -> None:
        """Remove expired pictures and leftovers of crashes once: for cron, if threads are forbidden."""
        swept = sweeper.sweep()
        if swept is None:
            click.echo("Another process is sweeping.")
        else:
            click.echo(f"Swept {len(swept.expired)} expired pictures and {swept.leftovers} leftovers.")

    @click.command("held")
    def held() -> None:
        """Show how many pictures are held, how many bytes, and how old the oldest is."""
        pictures = store.held()
        if pictures.oldest is None:
            click.echo("No pictures are held.")
        else:
            age = int(clock()) - pictures.oldest
            click.echo(f"Pictures held: {pictures.images}, {pictures.size} bytes; the oldest is {age} seconds old.")

    return [sweep, held]
