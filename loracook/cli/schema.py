"""`loracook schema`: the JSON Schema of recipes, for editors."""

import json

import click

from loracook.views.editor_schema import editor_schema


@click.command()
def command() -> None:
    """Print the JSON Schema of recipes, for editors and other tools that read one file at a time."""
    click.echo(json.dumps(editor_schema(), indent=2))
