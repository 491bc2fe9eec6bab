"""`loracook migrate`: rewrite other tools' keys in a recipe as ours."""

from pathlib import Path

import click

from loracook.errors import MachineError, clean, quote
from loracook.recipe.allowed import allowed
from loracook.recipe.migrate import migrated, moves
from loracook.recipe.text import text_of
from loracook.recipe.validate import problems_of
from loracook.store.files import write_atomic


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Rewrite FILE with loracook's keys and values; prints each change and how many problems are left."""
    text = text_of(str(file))
    planned, conflicts = moves(text, str(file))
    if planned:
        _write(file, migrated(text, planned, str(file)))
    for line in (*planned, *conflicts):
        click.echo(clean(str(line)))
    left = len(problems_of(str(file), (), allowed()))
    then = f"; next: loracook validate {clean(str(file))}" if left else ""
    click.echo(f"{len(planned)} changed, {left} left to fix{then}")


def _write(file: Path, text: str) -> None:
    try:
        write_atomic(file.resolve(), text)
    except OSError as error:
        raise MachineError(f"cannot write {quote(file)}: {error.strerror}; the file is unchanged") from error
