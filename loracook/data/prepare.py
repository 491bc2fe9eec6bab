"""Rows → the token rows that the trainer gets, with what was counted on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.data import cache as kept
from loracook.data.read.scan import Scan
from loracook.data.read.selection import SAMPLE, Part, Selection, select
from loracook.data.tokenize.batches import Work
from loracook.data.tokenize.packing import is_packed, longest, pack, pack_file, shuffled_stream
from loracook.data.tokenize.statistics import Tally, described
from loracook.data.warnings import notes
from loracook.errors import Path as Entry
from loracook.errors import RecipeError
from loracook.progress import Progress
from loracook.store import files as disk

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from transformers import PreTrainedTokenizerBase

    from loracook.recipe.recipe import Recipe


@dataclass(frozen=True)
class Prepared:
    """What SFTTrainer gets with `skip_prepare_dataset`, what was counted, and the digest of the rows.

    `train` and `evaluation` have the columns input_ids and labels, and seq_lengths when packed;
    `train` is an IterableDataset when streaming, and the statistics are those of its first rows; the
    digest is then that of what decides the rows.
    """

    train: Dataset | IterableDataset
    evaluation: Dataset | None
    statistics: dict[str, Any]
    notes: tuple[str, ...]
    digest: str


def prepare(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, cache: Path, progress: Progress | None = None
) -> Prepared:
    """The prepared rows, from `cache` when everything that decides them is as it was.

    `tokenizer` has gone through `with_template`. Raises RecipeError for data that cannot be used.
    """
    folder = _kept(recipe, tokenizer, cache, progress)
    statistics = _statistics(folder)
    evaluation = folder / "evaluation.arrow"
    return Prepared(
        train=_stream(recipe, tokenizer) if statistics["sample"] else _rows(folder / "train.arrow"),
        evaluation=_rows(evaluation) if evaluation.exists() else None,
        statistics=statistics,
        notes=tuple(notes(statistics)),
        digest=folder.name if statistics["sample"] else kept.digest(folder),
    )


def count(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, cache: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """The statistics of the prepared rows alone; spares the import of datasets when nothing is packed."""
    return _statistics(_kept(recipe, tokenizer, cache, progress))


def _kept(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, cache: Path, progress: Progress | None) -> Path:
    """The folder of the prepared rows, written where it is not there yet."""
    folder = cache / "data" / kept.key(recipe, tokenizer)
    damage = disk.damage(folder)
    if progress and folder.exists():
        progress.note(f"rows are prepared anew: {damage}" if damage else _reused(tokenizer))
    if damage:
        with kept.writing(folder) as fresh:
            _write(recipe, tokenizer, fresh, progress)
    return folder


def _reused(tokenizer: PreTrainedTokenizerBase) -> str:
    of_then = ", with the date of that day" if kept.dated(tokenizer) else ""
    return f"the rows are as they were prepared before{of_then}"


def _statistics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / kept.STATISTICS).read_text(encoding="utf-8"))
    return found


def _write(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, folder: Path, progress: Progress | None
) -> None:
    """Write the rows of both uses, then what was counted."""
    selection = select(recipe)
    streaming = bool(recipe["dataset"].get("streaming"))
    rows = selection.sample() if streaming else selection.train()
    train = Work(recipe, tokenizer, selection, longest(recipe, "train"), progress).write(
        rows, folder / "train.arrow", _count(selection.training) or SAMPLE
    )
    _refuse_nothing(recipe, train, ("dataset",), "trains")
    evaluation = _write_evaluation(recipe, tokenizer, selection, folder) if selection.evaluation else None
    if is_packed(recipe, "train"):
        pack_file(recipe, folder / "train.arrow")
    statistics = described(train, evaluation, recipe["train"]["max_length"]) | {"sample": streaming}
    statistics["sources"] = list(_sources(selection, train, evaluation))
    (folder / kept.STATISTICS).write_text(
        json.dumps(statistics, ensure_ascii=False, indent=1), encoding="utf-8"
    )


def _write_evaluation(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, selection: Selection, folder: Path
) -> Tally:
    path, work = (
        folder / "evaluation.arrow",
        Work(recipe, tokenizer, selection, longest(recipe, "evaluation")),
    )
    tally = work.write(selection.evaluate(), path, _count(selection.evaluation))
    _refuse_nothing(recipe, tally, ("dataset", "eval"), "evaluates")
    if is_packed(recipe, "evaluation"):
        pack_file(recipe, path)
    return tally


def _refuse_nothing(recipe: Recipe, tally: Tally, at: Entry, use: str) -> None:
    """Raise RecipeError where nothing is learned in any of the rows."""
    if tally.rows == len(tally.flaws["fully_masked"]):
        message = f"no row is left that {use} anything; raise train.max_length or change template.loss"
        raise RecipeError([recipe.problem(at, message)])


def _count(parts: tuple[Any, ...]) -> int:
    return sum(len(part) for part in parts if isinstance(part, Part))


def _rows(path: Path) -> Dataset:
    from datasets import Dataset

    return Dataset.from_file(str(path))


def _stream(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> IterableDataset:
    """The training rows as they are read, prepared on the way."""
    from datasets import IterableDataset

    selection = select(recipe)
    work = Work(recipe, tokenizer, selection, longest(recipe, "train"))

    def generate() -> Iterator[dict[str, list[int]]]:
        for row in work.stream(selection.train()):
            yield {"input_ids": row.ids.tolist(), "labels": row.labels.tolist()}

    rows = shuffled_stream(recipe, IterableDataset.from_generator(generate))
    return pack(recipe, rows) if is_packed(recipe, "train") else rows


def _sources(selection: Selection, train: Tally, evaluation: Tally | None) -> Iterator[dict[str, Any]]:
    for number, found in enumerate(selection.scans):
        tally, use = (train, "train") if number < len(selection.training) else (evaluation, "evaluation")
        yield {**_scanned(found), "use": use, "used_rows": tally.sources[number] if tally else 0}


def _scanned(found: Scan) -> dict[str, Any]:
    auto = found.source.entry.get("format", "auto") == "auto"
    return {
        "path": found.source.entry["path"],
        "format": found.source.shape.format,
        "because": found.source.guess()[1] if auto else None,
        "records": found.records,
        "rows": found.rows,
        "skipped": {reason: _listed(where) for reason, where in found.skipped.items()},
        "place_holders": _listed(found.place_holders),
    }


def _listed(where: list[str]) -> dict[str, Any]:
    return {"rows": len(where), "first": where[:3]}
