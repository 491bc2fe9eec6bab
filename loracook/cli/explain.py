"""The verb explain: what a key means, what it may be, and where its value comes from."""

from __future__ import annotations

from pathlib import Path

import click

from loracook.cli.options import recipe_argument, set_option
from loracook.recipe.recipe import load
from loracook.views.explain import explain


@click.command()
@recipe_argument
@click.argument("key")
@set_option
def command(recipe: Path, key: str, overrides: tuple[str, ...]) -> None:
    """Say what KEY (such as lora.r) means in RECIPE, its bounds, its origin, and the argument it becomes."""
    click.echo(explain(load(recipe, overrides), key))
