"""The verb preview: rows as the trainer will see them, and the statistics of all."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loracook.cli.options import recipe_argument, set_option
from loracook.cli.screen import noise_to
from loracook.errors import clean
from loracook.machine.memory import infrequent_gc
from loracook.recipe.recipe import load

if TYPE_CHECKING:
    from loracook.data.preview import Preview
    from loracook.recipe.recipe import Recipe


@click.command(short_help="Show rows as the trainer will see them.")
@recipe_argument
@set_option
@click.option("--rows", default=3, show_default=True, type=click.IntRange(0, 1000), help="Rows to show.")
@click.option("--source", type=click.IntRange(1), help="Show rows of this source, counted from 1.")
@click.option("--format", "kind", type=click.Choice(["text", "json", "html"]), default="text")
def command(recipe: Path, overrides: tuple[str, ...], rows: int, source: int | None, kind: str) -> None:
    """Show what the rows of RECIPE train: their tokens, learned or only read, and the statistics of all.

    Needs the tokenizer and the data, never the weights.
    """
    with noise_to(Path(os.devnull)), infrequent_gc():
        shown = _preview(load(recipe, overrides), rows, source)
    click.echo(_written(shown, kind), nl=False, color=True)


def _preview(recipe: Recipe, rows: int, source: int | None) -> Preview:
    from loracook import model
    from loracook.data import with_template
    from loracook.data.preview import preview
    from loracook.store.folders import default_cache

    cache = default_cache()
    tokenizer = model.load_tokenizer(recipe, model.fetch_tokenizer(recipe, cache))
    return preview(recipe, with_template(recipe, tokenizer), cache, rows=rows, source=source)


def _written(shown: Preview, kind: str) -> str:
    from loracook.data.preview import as_json
    from loracook.views.preview_html import as_html
    from loracook.views.preview_text import as_text

    if kind == "html":
        return as_html(shown)
    if kind == "json":
        written = json.dumps(as_json(shown), indent=1)  # in ASCII: nothing in it can move a terminal's cursor
        return "\n".join(map(clean, written.split("\n"))) + "\n"
    wanted = sys.stdout.isatty() or "FORCE_COLOR" in os.environ
    return as_text(shown, colour=wanted and "NO_COLOR" not in os.environ)
