"""The verb validate: every problem of every recipe, without running anything."""

from __future__ import annotations

from pathlib import Path

import click

from loracook.cli.options import set_option
from loracook.errors import RecipeError
from loracook.recipe import load


@click.command(short_help="Check recipes without running anything.")
@click.argument("recipes", nargs=-1, required=True, type=click.Path(path_type=Path))
@set_option
def command(recipes: tuple[Path, ...], overrides: tuple[str, ...]) -> int:
    """Check recipes: files, or folders of .yaml files; prints a line for each problem and exits 2 if there is one."""
    files = [file for path in recipes for file in (sorted(path.glob("*.y*ml")) if path.is_dir() else [path])]
    wrong = [file for file in files if not _valid(file, overrides)]
    click.echo(f"{len(files)} checked, {len(wrong)} wrong", err=bool(wrong))
    return 2 if wrong else 0


def _valid(file: Path, overrides: tuple[str, ...]) -> bool:
    try:
        problems = load(file, overrides).warnings
    except RecipeError as error:
        problems = error.problems
    for problem in problems:
        click.echo(str(problem), err=True)
    return not any(problem.severity == "error" for problem in problems)
