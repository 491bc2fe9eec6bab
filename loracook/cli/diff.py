"""The verb diff: two recipes compared in meaning."""

from __future__ import annotations

from pathlib import Path

import click

from loracook.cli.options import set_option
from loracook.recipe.recipe import load
from loracook.views.diff import diff


@click.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@set_option
def command(before: Path, after: Path, overrides: tuple[str, ...]) -> None:
    """Say what AFTER changes of BEFORE, who decided either, and what follows; --set changes AFTER."""
    click.echo(diff(load(before), load(after, overrides)))
