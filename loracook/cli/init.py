"""`loracook init`: write a commented recipe to start from."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from loracook.cli.options import allow_options
from loracook.cli.screen import noise_to
from loracook.data.first_look import first_look
from loracook.errors import LoracookError, RecipeError, clean, quote
from loracook.recipe.allowed import Allowed
from loracook.recipe.locations import FILE_LIKE, URL, is_local, is_pattern
from loracook.recipe.recipe import load
from loracook.recipe.schema import part_at
from loracook.recipe.schema_errors import check
from loracook.recipe.starter import starter
from loracook.store.files import write_new
from loracook.store.folders import SCHEME, default_cache

QUESTIONS = {"model": "Base model (organization/name)", "data": "Data set (organization/name or ./file)"}


@click.command()
@click.argument("name")
@click.option("--model", metavar="ID", help="The base model: a hub id, or a path starting with './'.")
@click.option("--data", metavar="PATH", help="The data set: a hub id, or a local file or folder.")
@allow_options
def command(*, name: str, model: str | None, data: str | None, allowed: Allowed) -> None:
    """Write NAME.yaml to the current folder; on a terminal, asks for a missing model or data set.

    The tokenizer and the first rows decide format, columns, template and length, where they can be reached.
    """
    if any(check(name, part_at(("name",)) or {}, ())):
        raise LoracookError(f"{quote(name)} is not a valid run name; use a name such as 'my-recipe'")
    text = partial(starter, name, model=_local(_answer(model, "model")), data=_local(_answer(data, "data")))
    file = Path(f"{name}.yaml")
    write_new(file, text())
    with _removed_on_failure(file):
        recipe = load(file, (), allowed)
        with noise_to(Path(os.devnull)):
            seen = first_look(recipe, default_cache())
        file.write_text(text(choices=seen.choices), encoding="utf-8")
        load(file, (), allowed)
    for note in seen.notes:
        click.echo(clean(note))
    paths = click.get_current_context().params["allow_paths"]
    check_it = shlex.join(["loracook", "validate", str(file), *(f"--allow-path={path}" for path in paths)])
    click.echo(f"wrote {clean(str(file))}; next: {clean(check_it)}")


def _answer(value: str | None, option: str) -> str:
    if value:
        return value
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise LoracookError(f"--{option} is required where there is no terminal to ask on")
    return str(click.prompt(QUESTIONS[option]))


def _local(place: str) -> str:
    """A model or a data set, with './' added where it is a path in the current folder."""
    path = Path(place)
    is_file = place.startswith(("./", "../", "/")) or (FILE_LIKE.fullmatch(place) and not URL.match(place))
    if is_file and not path.exists() and not is_pattern(place) and not place.startswith(SCHEME):
        raise LoracookError(f"{quote(place)} does not exist; check the path")
    exists = path.exists() and not path.is_absolute() and not is_local({"path": place})
    return f"./{place}" if exists else place


@contextmanager
def _removed_on_failure(file: Path) -> Iterator[None]:
    """Leave no recipe that does not work, nor point at a line of it."""
    try:
        yield
    except RecipeError as error:
        file.unlink()
        raise LoracookError("; ".join(problem.message for problem in error.problems)) from error
    except BaseException:
        file.unlink()
        raise
