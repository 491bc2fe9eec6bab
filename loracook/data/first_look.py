"""What a base model's tokenizer and the first rows of a data set decide in a new recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from loracook import model
from loracook.data.read import detect, formats, oasst, propose
from loracook.data.read.formats import ReadOptions
from loracook.data.read.rows import Chat, Record, Row, RowError, Text
from loracook.data.read.sources import Source, training
from loracook.data.tokenize.encode import encode
from loracook.data.tokenize.render import Renderer
from loracook.data.tokenize.statistics import Tally
from loracook.data.tokenize.template import chat_template, with_template
from loracook.errors import LoracookError, RecipeError, quote
from loracook.machine.devices import device_here
from loracook.machine.versions import INSTALL
from loracook.recipe.recipe import Recipe
from loracook.recipe.starter import UNSEEN, Choices

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HEAD = 200
"""How many records are looked at."""
MAX_LENGTHS = (1024, 2048, 4096, 8192)
REPLACING = ("chatml", "qwen3")
"""Named templates for rows that the tokenizer's own one cannot write; qwen3 writes tool calls."""


class UnusableRowsError(LoracookError):
    """No row of a data set can be trained on, so that no recipe for it would work."""


@dataclass(frozen=True)
class FirstLook:
    """What to write in a recipe, and a line for each thing that was seen or could not be looked at."""

    choices: Choices
    notes: tuple[str, ...]


def first_look(recipe: Recipe, cache: Path) -> FirstLook:
    """Look at the first rows and the tokenizer of a recipe that names no more than model and data.

    Raises UnusableRowsError.
    """
    notes: list[str] = []
    choices, rows = UNSEEN, list[Row]()
    with _noting_failures("data", notes):
        choices, rows, bad = _read(training(recipe)[0])
        columns = "".join(f", {ours} = {theirs}" for ours, theirs in choices.columns.items())
        faults = f"; {len(bad)} of the first rows are bad: {bad[0]}" if bad else ""
        notes.append(f"data      format {choices.format}{columns}{faults}")
    with _noting_failures("model", notes):
        folder = model.fetch_description(recipe, cache)
        tokenizer = model.load_tokenizer(recipe, folder)
        config = model.load_config(recipe, folder).get_text_config()
        trials = _trials(_with_choices(recipe, choices), tokenizer, rows)
        best = min(trials, key=lambda trial: len(trial.faults))
        lengths = [length for length in MAX_LENGTHS if length >= best.longest] or MAX_LENGTHS[-1:]
        max_length = min(lengths[0], getattr(config, "max_position_embeddings", None) or lengths[0])
        choices = replace(choices, chat_template=best.template, max_length=max_length)
        if advice := (device := device_here()).bfloat16_advice:
            slow = device.kind == "cpu"
            choices = replace(choices, dtype="float32" if slow else choices.dtype)
            notes.append(f"machine   {'float32, since ' + advice.partition(';')[0] if slow else advice}")
        notes.append(f"template  {_described(best, trials[0], chat_template(tokenizer))}")
    return FirstLook(choices, tuple(notes))


@contextmanager
def _noting_failures(what: str, notes: list[str]) -> Iterator[None]:
    """Note that something could not be looked at, and why; the recipe is written all the same."""
    try:
        yield
    except UnusableRowsError:
        raise
    except ModuleNotFoundError as error:
        notes.append(f"{what:<10}not looked at: {error.name} is not installed; {INSTALL}")
    except RecipeError as error:
        notes.append(f"{what:<10}not looked at: {error.problems[0].message}")
    except LoracookError as error:
        notes.append(f"{what:<10}not looked at: {error}")


def _read(source: Source) -> tuple[Choices, list[Row], list[RowError]]:
    """What to write for a source, its first rows and what is wrong with the others.

    Raises RecipeError, and UnusableRowsError if there is no row.
    """
    records = source.head(HEAD)
    if not records:
        raise UnusableRowsError(f"no readable rows in {quote(source.entry['path'])}")
    try:
        format, columns = _format(records)
    except detect.FormatError as error:
        raise source.fail(error.key, str(error)) from error
    options = ReadOptions(format, columns)
    whole = oasst.trees(iter(records)) if format == "oasst" else records
    read = [row for record in whole for row in formats.rows(record.columns, options)]
    rows = [row for row in read if not isinstance(row, RowError)]
    bad = [row for row in read if isinstance(row, RowError)]
    if not rows:
        why = f": {bad[0]}" if bad else ""
        raise UnusableRowsError(f"no usable rows in {quote(source.entry['path'])}{why}")
    if all(isinstance(row, Text) for row in rows):
        loss = "all"
    else:  # a prompt that is a chat may hold answers that are not to be trained
        given = any(isinstance(row, Chat) and row.prompt_length is not None for row in rows)
        loss = "completion" if given else "assistant"
    return Choices(format, columns, loss=loss, held_out=len(rows) > 1), rows, bad


def _format(records: Sequence[Record]) -> tuple[str, dict[str, str]]:
    """The format that fits, with the columns to rename; raises FormatError."""
    auto, columns = ReadOptions("auto"), [record.columns for record in records]
    fitting = next((each for each in columns if detect.fits(each, auto)), None)
    if fitting is not None:
        return detect.detect(fitting, auto)[0], {}
    detect.refuse_other_task(columns[0], auto)
    filled = {name: value for each in reversed(columns) for name, value in each.items() if value}
    return propose.proposal(filled) or (detect.detect(columns[0], auto)[0], {})


@dataclass(frozen=True)
class _Trial:
    """The rows with a chat template (None: the tokenizer's own): what fails, and the longest in tokens."""

    template: str | None
    faults: tuple[str, ...] = ()
    longest: int = 0


def _with_choices(recipe: Recipe, choices: Choices) -> Recipe:
    """The recipe with what the rows decide, for trials in memory."""
    dataset = {**recipe["dataset"], "format": choices.format or "auto", "columns": choices.columns}
    template = {} if choices.loss == "all" else {"loss": choices.loss}
    return replace(recipe, sections={**recipe.sections, "dataset": dataset, "template": template})


def _trials(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> list[_Trial]:
    """One trial after the other, up to the first template that all rows fit."""
    first = None
    plain_text = rows and all(isinstance(row, Text) for row in rows)
    if chat_template(tokenizer) is None and not plain_text:
        first = "chatml" if "<|im_start|>" in tokenizer.get_vocab() else "plain"
    trials: list[_Trial] = []
    for name in (first, *REPLACING):
        if not trials or trials[-1].faults:
            template = {**recipe["template"], **({"chat_template": name} if name else {})}
            tried = replace(recipe, sections={**recipe.sections, "template": template})
            trials.append(_trial(tried, deepcopy(tokenizer), rows))
    return trials


def _trial(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> _Trial:
    renderer = Renderer(recipe, with_template(recipe, tokenizer))
    tally, faults, longest = Tally(tokenizer), list[str](), 0
    for row in rows:
        try:
            encoded = encode([renderer.render(row)], tokenizer)[0]
        except (RowError, RecipeError) as error:
            faults.append(error.problems[0].message if isinstance(error, RecipeError) else str(error))
            continue
        longest = max(longest, len(encoded.ids))
        if not tally.ends_with_eos(encoded):
            faults.append("no end-of-turn (EOS) token in the loss")
    return _Trial(recipe["template"].get("chat_template"), tuple(faults), longest)


def _described(best: _Trial, first: _Trial, own: str | None) -> str:
    """Which template is used, and why not the model's own."""
    if best.template is None:
        chosen = "the model's own" if own else "none; the rows are plain text"
    elif own:
        chosen = f"{best.template}, since the model's own fails: {first.faults[0].partition(';')[0]}"
    else:
        chosen = f"{best.template}, since the model has none"
    count = len(best.faults)
    return chosen + (f"; {count} of the first rows fail: {best.faults[0].partition(';')[0]}" if count else "")
