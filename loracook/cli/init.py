"""The verb init: a commented recipe to start from."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from loracook.errors import LoracookError, RecipeError, clean, quote
from loracook.recipe.locations import is_local
from loracook.recipe.recipe import load
from loracook.recipe.schema import part_at
from loracook.recipe.schema_errors import check
from loracook.recipe.starter import starter

QUESTIONS = {"model": "Base model (organization/name)", "data": "Data (organization/name or ./file)"}


@click.command()
@click.argument("name")
@click.option("--model", metavar="ID", help="The base model: a hub id or a path that starts with './'.")
@click.option("--data", metavar="PATH", help="The rows: a hub id, a file or a folder.")
def command(name: str, model: str | None, data: str | None) -> None:
    """Write NAME.yaml into this folder; asks for what is missing on a terminal."""
    if any(check(name, part_at(("name",)) or {}, ())):
        raise LoracookError(f"{quote(name)} cannot name a run; write something like 'my-recipe'")
    text = starter(name, model=_answer(model, "model"), data=_local(_answer(data, "data")))
    file = Path(f"{name}.yaml")
    _write(file, text)
    click.echo(f"wrote {clean(str(file))}; next: loracook validate {clean(str(file))}")


def _answer(given: str | None, option: str) -> str:
    if given:
        return given
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise LoracookError(f"there is nobody to ask; add --{option}")
    return str(click.prompt(QUESTIONS[option]))


def _local(data: str) -> str:
    """The path of something that lies here, as recipes spell it."""
    here = Path(data).exists() and not Path(data).is_absolute() and not is_local({"path": data})
    return f"./{data}" if here else data


def _write(file: Path, text: str) -> None:
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError as error:
        raise LoracookError(f"{quote(file)} is already there; choose another name") from error
    except OSError as error:
        raise LoracookError(f"{quote(file)} cannot be written: {error.strerror}") from error
    try:
        load(file)
    except RecipeError:
        file.unlink()
        raise
