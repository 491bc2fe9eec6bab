"""Tasks that a recipe describes itself, as lm-evaluation-harness takes them: rows rendered here, no code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loracook.data.read.sources import Source
from loracook.errors import Path as Entry
from loracook.errors import RecipeError
from loracook.recipe.derived import own_tasks
from loracook.recipe.recipe import Recipe
from loracook.recipe.rules.lm_eval import COLUMN

MOST_ROWS = 100_000
"""lm-evaluation-harness holds all rows of a task at once."""
SPLIT = "rows"
STRIPPED = [{"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}]
"""What lm-evaluation-harness does with an answer before it is compared with the target, which has no space
at its ends either."""


class _UnfitError(ValueError):
    """A row that a key of the task does not fit."""

    def __init__(self, key: str, fault: str) -> None:
        super().__init__(fault)
        self.key = key


@dataclass(frozen=True)
class OwnTask:
    """A task of the recipe's own, at path `at`."""

    recipe: Recipe
    at: Entry
    entry: Mapping[str, Any]

    @property
    def source(self) -> Source:
        """Where its rows come from."""
        rows = {"path": self.entry["dataset_path"], "format": "columns", "threads": "all"}
        return Source(self.recipe, self.at, rows)

    def config(self) -> dict[str, Any]:
        """What lm-evaluation-harness takes for it: no template is left to render. Raises RecipeError."""
        from datasets import Dataset, DatasetDict

        docs = DatasetDict({SPLIT: Dataset.from_list(list(self.docs()))})
        answers = {key: self.entry[key] for key in ("generation_kwargs",) if key in self.entry}
        if self._chooses:
            answers = {"doc_to_choice": "choices"}
        return {
            "task": self.entry["task"],
            "custom_dataset": lambda **_: docs,
            "test_split": SPLIT,
            "fewshot_split": SPLIT,  # of which the row that is asked for is left out
            "output_type": self.entry["output_type"],
            "doc_to_text": "text",
            "doc_to_target": "target",
            **answers,
            **({} if self._chooses else {"filter_list": STRIPPED}),
        }

    def docs(self) -> Iterator[dict[str, Any]]:
        """Each row as its text, its target and its choices; raises RecipeError."""
        count = 0
        for count, record in enumerate(self.source.records(), 1):
            if record.fault:
                raise self._fail("dataset_path", f"{record.place}: {record.fault}")
            if count > MOST_ROWS:
                raise self._fail("dataset_path", f"has more than {MOST_ROWS:,} rows; name a smaller file")
            try:
                yield self._doc(record.columns)
            except _UnfitError as error:
                raise self._fail(error.key, f"{record.place}: {error}") from error
        if count <= self.recipe["lm_eval"].get("num_fewshot", 0):
            raise self._fail("dataset_path", f"{count} rows are too few; set a smaller num_fewshot")

    @property
    def _chooses(self) -> bool:
        return bool(self.entry["output_type"] == "multiple_choice")

    def _doc(self, row: Mapping[str, Any]) -> dict[str, Any]:
        text = _text(self._value("doc_to_text", row), "doc_to_text")
        target = self._value("doc_to_target", row)
        if not self._chooses:
            return {"text": text, "target": _text(target, "doc_to_target").strip()}
        choices = self.entry["doc_to_choice"]
        if isinstance(choices, str):
            choices = self._value("doc_to_choice", row)
        if not isinstance(choices, list) or len(choices) < 2 or not all(_is_text(each) for each in choices):
            raise _UnfitError("doc_to_choice", "no list of two texts or more; name another column")
        return {"text": text, "target": _number(target, choices), "choices": choices}

    def _value(self, key: str, row: Mapping[str, Any]) -> Any:
        """The column of that name, else the text with the columns that it names."""
        text = self.entry[key]
        if text in row:
            return row[text]

        def column(name: str) -> str:
            if name not in row:
                raise _UnfitError(key, f"no column '{name}'; name one that is there")
            return _text(row[name], key)

        return COLUMN.sub(lambda match: column(match[1]), text)

    def _fail(self, key: str, message: str) -> RecipeError:
        return RecipeError([self.recipe.problem((*self.at, key), message)])


def tasks_of(recipe: Recipe) -> dict[int, OwnTask]:
    """The tasks that the recipe describes itself, by their place in `lm_eval.tasks`."""
    return {int(at[-1]): OwnTask(recipe, at, entry) for at, entry in own_tasks(dict(recipe.sections))}


def task_files(recipe: Recipe) -> tuple[Path, ...]:
    """The files with the rows of the recipe's own tasks; raises RecipeError."""
    return tuple(file for task in tasks_of(recipe).values() for file in task.source.files)


def _text(value: Any, key: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _UnfitError(key, "neither text nor a number; name another column")
    if text := str(value):
        return text
    raise _UnfitError(key, "empty; remove the row")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _number(target: Any, choices: list[str]) -> int:
    """Which of the choices is right: the target says it, or its number from 0."""
    if target in choices:
        return choices.index(target)
    number = target if type(target) is int else -1
    if isinstance(target, str) and target.isascii() and target.isdigit() and len(target) < 4:
        number = int(target)
    if 0 <= number < len(choices):
        return number
    raise _UnfitError("doc_to_target", "neither a choice nor the number of one, from 0; name another column")
