"""`loracook validate`: every problem of every recipe, without running anything."""

import sys
from collections.abc import Sequence
from itertools import chain, filterfalse

import click

from loracook.cli.options import allow_options, set_option
from loracook.cli.screen import wants_color
from loracook.errors import Problem
from loracook.recipe.allowed import Allowed
from loracook.recipe.recipe import load
from loracook.recipe.validate import checked, recipes, refused, strict
from loracook.sweep import file as sweep
from loracook.views.problems import FORMATS
from loracook.views.snippets import COLOURED, as_snippets


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="RECIPE…")
@set_option
@allow_options
@click.option(
    "--format",
    "kind",
    type=click.Choice(list(FORMATS)),
    default="text",
    help="Output format.",
    show_default=True,
)
@click.option("--strict", "warnings", flag_value="errors", help="Treat warnings as errors.")
@click.option("--locked", is_flag=True, help="Refuse what differs from RECIPE.lock.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def command(
    *,
    names: tuple[str, ...],
    overrides: tuple[str, ...],
    allowed: Allowed,
    kind: str,
    warnings: str | None,
    locked: bool,
    quiet: bool,
) -> int:
    """Check recipes and sweeps: files, folders or glob patterns.

    Prints one line per problem; errors exit with 2.
    """
    by_file = [_checked(file, overrides, allowed) for file in recipes(names, allowed)]
    by_file += [(problem,) for problem in refused(names, allowed)]
    if warnings == "errors":
        by_file = [strict(problems) for problems in by_file]
    if locked and not any(map(_is_error, chain.from_iterable(by_file))):
        for file in filterfalse(sweep.is_sweep, recipes(names, allowed)):
            _refuse_drift(file, overrides, allowed)
    invalid = sum(any(map(_is_error, problems)) for problems in by_file)
    shown = [problem for problems in by_file for problem in problems if _is_error(problem) or not quiet]
    _show(shown, kind)
    if kind in ("text", "github") and not quiet:
        click.echo(f"{len(by_file)} checked, {invalid} invalid", err=bool(invalid) or kind != "text")
    return 2 if invalid else 0


def _checked(file: str, overrides: tuple[str, ...], allowed: Allowed) -> tuple[Problem, ...]:
    """Every problem of a recipe, or of a sweep with all of its trials."""
    return sweep.problems_of(file, allowed) if sweep.is_sweep(file) else checked(file, overrides, allowed)


def _refuse_drift(file: str, overrides: tuple[str, ...], allowed: Allowed) -> None:
    from loracook.results.pinned import here, refuse_drift

    recipe = load(file, overrides, allowed)
    refuse_drift(recipe, here(recipe))


def _is_error(problem: Problem) -> bool:
    return problem.severity == "error"


def _show(problems: Sequence[Problem], kind: str) -> None:
    if kind != "text":
        click.echo(FORMATS[kind](problems), nl=bool(problems) or kind != "github")
    elif problems and sys.stderr.isatty() and wants_color(sys.stderr):
        click.echo(as_snippets(problems, COLOURED), err=True, color=True)
    elif problems:
        click.echo(as_snippets(problems) if sys.stderr.isatty() else FORMATS[kind](problems), err=True)
