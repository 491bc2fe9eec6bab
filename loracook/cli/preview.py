"""The command preview: rows as the trainer sees them, and the statistics of all rows."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loracook.cli.options import allow_options, recipe_argument, set_option
from loracook.cli.screen import noise_to, screen, wants_color
from loracook.errors import clean_lines
from loracook.machine.memory import infrequent_gc
from loracook.progress import Progress, Silent
from loracook.recipe.allowed import Allowed
from loracook.recipe.recipe import load

if TYPE_CHECKING:
    from loracook.data.preview import Preview
    from loracook.recipe.recipe import Recipe


@click.command()
@recipe_argument
@set_option
@allow_options
@click.option("--rows", default=3, show_default=True, type=click.IntRange(0, 1000), help="Rows to show.")
@click.option("--source", type=click.IntRange(1), help="Show rows of this source, counted from 1.")
@click.option("--format", "kind", type=click.Choice(["text", "json", "html"]), default="text")
def command(
    *, recipe: Path, overrides: tuple[str, ...], allowed: Allowed, rows: int, source: int | None, kind: str
) -> int:
    """Show rows of RECIPE token by token, trained or masked, and the statistics of all rows.

    Needs the tokenizer and the data, not the weights. Rows over a limit, which stop a run, end with 2.
    """
    with _progress() as progress, noise_to(Path(os.devnull)), infrequent_gc():
        result = _preview(load(recipe, overrides, allowed), rows=rows, source=source, progress=progress)
    click.echo(_render(result, kind), nl=False, color=True)
    return 2 if result.over else 0


@contextmanager
def _progress() -> Iterator[Progress]:
    """Progress on standard error if it is a terminal, so that standard output holds the preview only."""
    if not sys.stderr.isatty():
        yield Silent()
        return
    with os.fdopen(os.dup(2), "w", encoding="utf-8") as terminal, screen(terminal) as progress:
        yield progress


def _preview(recipe: Recipe, *, rows: int, source: int | None, progress: Progress) -> Preview:
    from loracook import model
    from loracook.data import with_template
    from loracook.data.preview import preview
    from loracook.store.folders import default_cache

    cache = default_cache()
    tokenizer = with_template(recipe, model.load_tokenizer(recipe, model.fetch_tokenizer(recipe, cache)))
    return preview(recipe, tokenizer, cache, progress=progress, rows=rows, source=source)


def _render(result: Preview, kind: str) -> str:
    from loracook.views.preview import as_html, as_text

    if kind == "html":
        return as_html(result)
    if kind == "json":
        # in ASCII: nothing in it can move a terminal's cursor
        return clean_lines(json.dumps(asdict(result), indent=1)) + "\n"
    return as_text(result, colour=wants_color(sys.stdout))
