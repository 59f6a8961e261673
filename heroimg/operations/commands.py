"""Commands for the operator: `flask --app wsgi sweep` and `flask --app wsgi held`."""

from __future__ import annotations

import click
from flask import Flask

from heroimg.api.services import services
from heroimg.operations.sweep import sweep


def add_commands(app: Flask) -> None:
    """Add the commands to `flask --app wsgi`."""
    app.cli.add_command(sweep_command)
    app.cli.add_command(held_command)


@click.command("sweep")
def sweep_command() -> None:
    """Remove expired pictures and what crashes left behind, once: for cron, where threads are not allowed."""
    swept = sweep(services())
    if swept is None:
        click.echo("Another process is sweeping just now.")
    else:
        click.echo(f"Swept {len(swept.expired)} expired pictures and {swept.leftovers} leftovers.")


@click.command("held")
def held_command() -> None:
    """Say how many pictures are held, how many bytes, and how old the oldest is."""
    held = services().store.held()
    if held.oldest is None:
        click.echo("No pictures are held.")
    else:
        age = services().now() - held.oldest
        click.echo(f"Pictures held: {held.images}, {held.size} bytes; the oldest is {age} seconds old.")
