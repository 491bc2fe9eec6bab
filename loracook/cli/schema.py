"""`loracook schema`: the JSON Schema of recipes, for editors and other checkers."""

import json

import click

from loracook.recipe.schema import schema


@click.command()
def command() -> None:
    """Print the JSON Schema that recipes are checked against."""
    click.echo(json.dumps(schema(), indent=2))
