"""Rows → the token rows that the trainer gets, and their statistics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.data.cache import STATISTICS, cached_rows, is_dated, replacing, rows_digest
from loracook.data.read.scan import Scan
from loracook.data.read.selection import STREAM_SAMPLE, Parts, SelectedRows, Selection, select
from loracook.data.tokenize.batches import RowEncoder
from loracook.data.tokenize.packing import Use, is_packed, max_row_length, pack, pack_file, shuffled_stream
from loracook.data.tokenize.statistics import Tally, describe
from loracook.data.warnings import notes
from loracook.errors import Path as RecipePath
from loracook.errors import RecipeError
from loracook.progress import Progress, Silent
from loracook.recipe.recipe import Recipe
from loracook.store.files import damage

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prepared:
    """What SFTTrainer gets with `skip_prepare_dataset`, its statistics, and the digest of the rows.

    `train` and `evaluation` have the columns input_ids and labels, and seq_lengths when packed. When
    streaming, `train` is an IterableDataset, the statistics are those of its first rows, and the digest
    is that of what decides the rows.
    """

    train: Dataset | IterableDataset
    evaluation: Dataset | None
    statistics: dict[str, Any]
    notes: tuple[str, ...]
    digest: str


def prepare(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, cache: Path, *, progress: Progress
) -> Prepared:
    """The prepared rows, from `cache` if nothing that decides them has changed.

    `tokenizer` has gone through `with_template`. Raises RecipeError for unusable data.
    """
    folder = _prepared_folder(recipe, tokenizer, cache, progress=progress)
    statistics = _read_statistics(folder)
    evaluation = folder / "evaluation.arrow"
    return Prepared(
        train=_stream(recipe, tokenizer) if statistics["sample"] else _dataset(folder / "train.arrow"),
        evaluation=_dataset(evaluation) if evaluation.exists() else None,
        statistics=statistics,
        notes=tuple(notes(statistics)),
        digest=folder.name if statistics["sample"] else rows_digest(folder),
    )


def prepared_statistics(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, cache: Path, *, progress: Progress
) -> dict[str, Any]:
    """The statistics of the prepared rows only; does not import datasets unless rows are packed."""
    return _read_statistics(_prepared_folder(recipe, tokenizer, cache, progress=progress))


def _prepared_folder(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, cache: Path, *, progress: Progress
) -> Path:
    """The folder of the prepared rows, written if it is missing or damaged."""
    progress.advance(0, 0, "hashing or downloading the data")
    folder = cached_rows(recipe, tokenizer, cache)
    fault = damage(folder)
    if folder.exists():
        dated = ", which contain the date of that day" if is_dated(tokenizer) else ""
        progress.note(f"preparing the rows again: {fault}" if fault else f"using cached prepared rows{dated}")
    if fault:
        with replacing(folder) as temporary:
            _Writer(recipe, tokenizer, select(recipe, progress), progress).write(temporary)
    return folder


def _read_statistics(folder: Path) -> dict[str, Any]:
    statistics: dict[str, Any] = json.loads((folder / STATISTICS).read_text(encoding="utf-8"))
    return statistics


@dataclass(frozen=True)
class _Writer:
    """Writes the rows of a selection and their statistics to a folder."""

    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase
    selection: Selection
    progress: Progress

    def write(self, folder: Path) -> None:
        """Write train.arrow, evaluation.arrow if there are evaluation rows, and the statistics."""
        selection, streaming = self.selection, bool(self.recipe["dataset"].get("streaming"))
        rows = selection.sample() if streaming else selection.train()
        total = _count(selection.training) or STREAM_SAMPLE
        encoder = self._encoder("train")
        train = encoder.write(rows, folder / "train.arrow", total)
        self._refuse_fully_masked(train, ("dataset",), "training")
        evaluation = self._write_evaluation(folder) if selection.evaluation else None
        self._pack("train", folder / "train.arrow")
        statistics = describe(train, evaluation, self.recipe["train"]["max_length"]) | {"sample": streaming}
        statistics["sources"] = list(_sources(selection, train, evaluation))
        text = json.dumps(statistics, ensure_ascii=False, indent=1)
        (folder / STATISTICS).write_text(text, encoding="utf-8")

    def _write_evaluation(self, folder: Path) -> Tally:
        rows, total = self.selection.evaluate(), _count(self.selection.evaluation)
        tally = self._encoder("evaluation").write(rows, folder / "evaluation.arrow", total)
        self._refuse_fully_masked(tally, ("dataset", "eval"), "evaluation")
        self._pack("evaluation", folder / "evaluation.arrow")
        return tally

    def _encoder(self, use: Use) -> RowEncoder:
        limit = max_row_length(self.recipe, use)
        return RowEncoder(self.recipe, self.tokenizer, self.selection, limit=limit, progress=self.progress)

    def _pack(self, use: Use, path: Path) -> None:
        if is_packed(self.recipe, use):
            self.progress.advance(0, 0, f"packing the {use} rows")
            pack_file(self.recipe, path)

    def _refuse_fully_masked(self, tally: Tally, at: RecipePath, use: str) -> None:
        if tally.rows == len(tally.flaws["fully_masked"]):
            message = f"no {use} row has a token in the loss; raise train.max_length or change template.loss"
            raise RecipeError([self.recipe.problem(at, message)])


def _count(parts: Parts) -> int:
    return sum(len(part) for part in parts if isinstance(part, SelectedRows))


def _dataset(path: Path) -> Dataset:
    from datasets import Dataset

    return Dataset.from_file(str(path))


def _stream(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> IterableDataset:
    """The training rows, read and tokenized while training."""
    from datasets import IterableDataset

    selection, limit = select(recipe, Silent()), max_row_length(recipe, "train")
    encoder = RowEncoder(recipe, tokenizer, selection, limit=limit, progress=Silent())

    def generate() -> Iterator[dict[str, list[int]]]:
        for row in encoder.stream(selection.train()):
            yield {"input_ids": row.ids.tolist(), "labels": row.labels.tolist()}

    rows = shuffled_stream(recipe, IterableDataset.from_generator(generate))
    return pack(recipe, rows) if is_packed(recipe, "train") else rows


def _sources(selection: Selection, train: Tally, evaluation: Tally | None) -> Iterator[dict[str, Any]]:
    for number, result in enumerate(selection.scans):
        tally, use = (train, "train") if number < len(selection.training) else (evaluation, "evaluation")
        yield {**_scan_facts(result), "use": use, "used_rows": tally.sources[number] if tally else 0}


def _scan_facts(result: Scan) -> dict[str, Any]:
    auto = result.source.entry.get("format", "auto") == "auto"
    return {
        "path": result.source.entry["path"],
        "format": result.source.options.format,
        "detected": result.source.detect()[1] if auto else None,
        "records": result.records,
        "rows": result.rows,
        "skipped": {reason: _examples(rows) for reason, rows in result.skipped.items()},
        "placeholders": _examples(result.placeholders),
    }


def _examples(rows: list[str]) -> dict[str, Any]:
    return {"rows": len(rows), "first": rows[:3]}
