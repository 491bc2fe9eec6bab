"""The command tune: the fastest settings of a recipe that fit this machine, measured."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loracook.cli.options import allow_options, recipe_argument, runs_option, set_option
from loracook.cli.screen import noise_to, screen, show, show_as_it_is
from loracook.errors import LoracookError, MachineError, RecipeError, clean, quote
from loracook.machine import signals
from loracook.planner import plan
from loracook.progress import Progress, Silent
from loracook.recipe.allowed import Allowed
from loracook.recipe.recipe import Recipe, load
from loracook.store.files import write_new
from loracook.store.folders import default_cache
from loracook.training import group
from loracook.tuning.candidates import ALLOWED

if TYPE_CHECKING:
    from loracook.tuning.tune import Question, Tuned

STOPPED = "stopped; the best so far is above"


@click.command()
@recipe_argument
@runs_option
@set_option
@allow_options
@click.option(
    "--minutes", default=10.0, show_default=True, type=click.FloatRange(0.1, 1440), help="Time to measure in."
)
@click.option("--memory", metavar="SIZE", help="Use at most this memory, as in 3GB; by default what is free.")
@click.option(
    "--write", metavar="FILE", type=click.Path(path_type=Path), help="Write the answer to a new recipe."
)
@click.option(
    "--allow",
    "words",
    metavar="WORDS",
    default="",
    help=f"Also try what changes the result: {', '.join(ALLOWED)}, separated by commas.",
)
@click.option("--format", "kind", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    *,
    recipe: Path,
    runs: Path,
    overrides: tuple[str, ...],
    allowed: Allowed,
    minutes: float,
    memory: str | None,
    write: Path | None,
    words: str,
    kind: str,
) -> None:
    """Measure which settings train RECIPE fastest on this machine, with the same result.

    Each is tried on the recipe's own rows in a process of its own; nothing but FILE is written. On a CPU,
    memory is what a run takes beside the process with its libraries.
    """
    if group.size() > 1:
        raise LoracookError("one process is measured; unset WORLD_SIZE, or leave out torchrun")
    loaded = load(recipe, overrides, allowed)
    if write is not None:
        _check_place(write, loaded, overrides)
    planned = plan(loaded, runs)
    from loracook.machine.devices import usable_bytes
    from loracook.tuning.tune import Question
    from loracook.views.tune_text import end_lines, recipe_text

    question = Question(
        planned.recipe, usable_bytes(memory) if memory else None, minutes * 60, _allowed_words(words)
    )
    tuned = _measured(question, planned.stages[0].digest, kind)
    text = "" if tuned.best.against else recipe_text(tuned, loaded)
    if kind == "json":
        from loracook.tuning.answers import as_json

        click.echo(json.dumps(as_json(tuned) | {"recipe": text}, indent=2, ensure_ascii=False))
    else:
        show(["", *end_lines(tuned)])
        if tuned.best.setting and text and not write:
            show(["", "as a recipe, which --write FILE saves:", ""])
            show_as_it_is(text)
    if tuned.stopped:
        raise signals.stopped_error(STOPPED if tuned.rows else "stopped")
    _check_measured(tuned)
    if write is not None and tuned.best.setting:
        _write(write, text, allowed)
    elif write is not None:
        why = "it would change nothing" if tuned.has_compared else "nothing else was measured"
        click.echo(f"{write} is not written: {why}", err=True)


def _check_measured(tuned: Tuned) -> None:
    """Raise MachineError where there is no answer."""
    from loracook.tuning.child import TOO_LONG

    if not tuned.best.against:
        return
    if tuned.rows[0].trial.failure == TOO_LONG:
        raise MachineError(
            f"your recipe takes longer than {tuned.seconds / 60:g} minutes to measure; use a larger --minutes"
        )
    raise MachineError("no setting fits; use a larger --memory, a lower train.max_length or a smaller model")


def _allowed_words(text: str) -> tuple[str, ...]:
    words = tuple(filter(None, text.split(",")))
    for word in words:
        if word not in ALLOWED:
            raise LoracookError(f"--allow {quote(word)} is unknown; use {', '.join(ALLOWED)}")
    return words


def _check_place(write: Path, loaded: Recipe, overrides: tuple[str, ...]) -> None:
    """Raise LoracookError where a recipe written there would not be the tuned one, before time is spent."""
    if overrides:
        raise LoracookError(
            "--write conflicts with --set: what it writes extends the file; edit that instead"
        )
    if write.exists() or write.is_symlink():
        raise LoracookError(f"{quote(write)} already exists; choose another name")
    if write.suffix not in (".yaml", ".yml"):
        raise LoracookError(f"{quote(write)} is no recipe's name; use one that ends in .yaml")
    if write.parent.resolve() != loaded.file.parent.resolve():
        place = loaded.file.with_name(write.name)
        raise LoracookError(f"paths in a recipe are relative to its folder; use --write {place}")


def _measured(question: Question, digest: str, kind: str) -> Tuned:
    """The answer that is kept, or a new one, its ladder shown row by row."""
    with noise_to(Path(os.devnull)) as out:
        if kind == "json":
            return _answer(question, digest, Silent())
        with screen(out) as progress:
            progress.begin("tune")
            return _answer(question, digest, progress)


def _answer(question: Question, digest: str, progress: Progress) -> Tuned:
    from loracook.tuning import answers
    from loracook.tuning.tune import readied, tune
    from loracook.views.tune_text import HEAD, row_line

    cache = default_cache()
    whole, groups = readied(question, cache, Silent())
    progress.note(HEAD)
    if (tuned := answers.known(question, digest, whole=whole, cache=cache)) is not None:
        for row in tuned.rows:
            progress.note(row_line(row))
        return tuned
    tuned = tune(
        question, whole, groups, cache=cache, progress=progress, show=lambda row: progress.note(row_line(row))
    )
    if not (tuned.stopped or tuned.best.against) and (tuned.has_compared or not tuned.untried):
        answers.keep(tuned, question, digest, whole=whole, cache=cache)
    return tuned


def _write(file: Path, text: str, allowed: Allowed) -> None:
    """Write a recipe that loads; raises LoracookError where it would not."""
    write_new(file, text)
    try:
        load(file, (), allowed)
    except RecipeError:
        file.unlink()
        raise
    click.echo(f"wrote {clean(str(file))}; next: {clean(f'loracook run {shlex.quote(str(file))}')}")
