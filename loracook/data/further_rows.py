"""Further row sets of an evaluation: rows that must not get worse, prepared as the recipe's own are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.data import cache as prepared
from loracook.data.eval_prompts import Asker, EvaluationPrompt
from loracook.data.prepare import prepare
from loracook.data.read.selection import select
from loracook.data.read.sources import training
from loracook.errors import RecipeError
from loracook.progress import Progress, Silent
from loracook.recipe.recipe import Recipe
from loracook.recipe.schema import with_defaults

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class RowSet:
    """Rows to measure a loss on (columns input_ids and labels), and those of them to answer.

    `rows` is None where there are prompts alone; `metrics` are those that answers are scored with.
    """

    rows: Dataset | None
    prompts: list[EvaluationPrompt]
    metrics: tuple[str, ...]


def further_row_sets(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, folder: Path, *, progress: Progress
) -> dict[str, RowSet]:
    """The row sets of `evaluate.also` by name, prepared in the cache `folder`; all rows of one are used.

    Raises:
        RecipeError: rows that cannot be used, or none with a prompt where a metric needs answers.
    """
    sets = {}
    for name, entry in recipe["evaluate"].get("also", {}).items():
        with _placed(recipe, name):
            own, metrics = _alone(recipe, entry), tuple(entry.get("metrics", ()))
            rows = prepare(own, tokenizer, folder, progress=progress).train
            selected = (row.row for row in select(own, Silent()).train())
            prompts = list(Asker(own, tokenizer).of_rows(selected)) if metrics else []
            if metrics and not prompts:
                message = "no row has a prompt; remove 'metrics', which leaves the loss"
                raise RecipeError([own.problem(("dataset", "metrics"), message)])
            sets[name] = RowSet(rows, prompts, metrics)
    return sets


def further_files(recipe: Recipe) -> tuple[Path, ...]:
    """The local files with the rows of `evaluate.also`. Raises RecipeError."""
    files: list[tuple[Path, ...]] = []
    for name, entry in recipe["evaluate"].get("also", {}).items():
        with _placed(recipe, name):
            files.append(prepared.files(_alone(recipe, entry)))
    return tuple(itertools.chain.from_iterable(files))


def _alone(recipe: Recipe, entry: dict[str, Any]) -> Recipe:
    """The recipe with these rows as its only ones, none of them packed."""
    source = {key: value for key, value in entry.items() if key != "metrics"}
    dataset = {**with_defaults({"dataset": source})["dataset"], "on_bad_row": recipe["dataset"]["on_bad_row"]}
    train, template = {**recipe["train"], "packing": False}, dict(recipe["template"])
    own = replace(recipe, sections={**recipe.sections, "dataset": dataset, "train": train})
    if training(own)[0].options.format != "text":
        return own
    template.pop("loss", None)  # a part of a chat, which plain text has none of
    return replace(own, sections={**own.sections, "template": template})


@contextmanager
def _placed(recipe: Recipe, name: str) -> Iterator[None]:
    """Point the problems of such a recipe's dataset at the row set in the recipe itself."""
    try:
        yield
    except RecipeError as error:
        place = ("evaluate", "also", name)
        moved = (recipe.problem((*place, *each.path[1:]), each.message) for each in error.problems)
        raise RecipeError(moved) from error
