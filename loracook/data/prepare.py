"""Rows → the token rows that the trainer gets, and their statistics."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.data.cache import STATISTICS, cached_rows, is_dated, replacing, rows_digest
from loracook.data.order import Taken
from loracook.data.part import TRAIN, MostDroppedError, Part, dataset, part_of, read_taken, write_taken
from loracook.data.read.scan import Scan
from loracook.data.read.selection import STREAM_SAMPLE, Selection, row_count, select
from loracook.data.tokenize.batches import RowEncoder, is_packed, pack
from loracook.data.tokenize.statistics import Tally, describe
from loracook.data.tokenize.template import template_variables
from loracook.data.warnings import notes, over_limits
from loracook.progress import Progress, Silent
from loracook.recipe.recipe import Recipe
from loracook.store.files import damage

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from transformers import PreTrainedTokenizerBase

EVALUATION = "evaluation.arrow"
BUFFER = 1000
"""Rows in the shuffle buffer when streaming."""


@dataclass(frozen=True)
class Prepared:
    """What SFTTrainer gets with `skip_prepare_dataset`, its statistics, and the digest of the rows.

    `train` and `evaluation` have the columns input_ids and labels, and seq_lengths when packed; `taken` says
    which usable rows `train` has, or that it has all blocks; `key` is the digest of what decides all rows,
    which `train` may be a part of. When streaming, `train` is an IterableDataset, the statistics are those
    of its first rows, and the digest is that of what decides the rows.
    """

    train: Dataset | IterableDataset
    evaluation: Dataset | None
    statistics: dict[str, Any]
    notes: tuple[str, ...]
    digest: str
    key: str
    taken: Taken


def prepare(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    cache: Path,
    *,
    progress: Progress,
    first: int | None = None,
) -> Prepared:
    """The prepared rows, from `cache` if nothing that decides them has changed.

    `tokenizer` has gone through `with_template`. Of the training rows, those that training takes `first` are
    enough where it takes no more; they are the only ones where that saves time. Raises RecipeError for
    unusable data.
    """
    whole = _whole(recipe, tokenizer, cache, progress=progress)
    part = part_of(whole, recipe, first)
    folder = _prepared_folder(recipe, tokenizer, whole, progress=progress, part=part)
    statistics = _read_statistics(folder)
    evaluation, streamed = folder / EVALUATION, statistics["sample"]
    digest = folder.name if streamed else rows_digest(folder)
    return Prepared(
        train=_stream(recipe, tokenizer) if streamed else dataset(folder / TRAIN),
        evaluation=dataset(evaluation) if evaluation.exists() else None,
        statistics=statistics,
        notes=tuple(notes(statistics)),
        digest=digest,
        key=digest if is_dated(tokenizer) else whole.name,  # which does not decide the date in the rows
        taken=read_taken(folder),
    )


def prepared_statistics(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, cache: Path, *, progress: Progress
) -> dict[str, Any]:
    """The statistics of all prepared rows only; does not import datasets unless rows are packed."""
    whole = _whole(recipe, tokenizer, cache, progress=progress)
    return _read_statistics(_prepared_folder(recipe, tokenizer, whole, progress=progress))


def _whole(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, cache: Path, *, progress: Progress) -> Path:
    """The folder of all prepared rows, whether or not they are there yet."""
    progress.advance(0, 0, "hashing or downloading the data")
    return cached_rows(recipe, tokenizer, cache)


def _prepared_folder(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    whole: Path,
    *,
    progress: Progress,
    part: Part | None = None,
) -> Path:
    """The folder of all prepared rows, or of a part of them, written if it is missing or damaged."""
    if part and _is_cached(part.folder, tokenizer, progress):
        return part.folder
    there = _is_cached(whole, tokenizer, progress)
    # Statistics of all rows that exceed a limit must not end a run that those of its part would not.
    if not there or (part and over_limits(_read_statistics(whole), recipe)):
        encoder = _encoder(recipe, tokenizer, progress)
        if part and part.saves_time(encoder.selection.training_rows):
            try:
                with replacing(part.folder) as temporary:
                    _write(encoder, temporary, part)
                return part.folder
            except MostDroppedError:
                encoder = _encoder(recipe, tokenizer, progress)  # whose counts begin anew
        if not there:
            with replacing(whole) as temporary:
                _write(encoder, temporary, None)
    if part is None or not part.saves_time(len(read_taken(whole).marks)):
        return whole
    with replacing(part.folder) as temporary:
        part.copy(whole, temporary, recipe)
        for name in (EVALUATION, STATISTICS):
            if (whole / name).exists():
                shutil.copyfile(whole / name, temporary / name)
    return part.folder


def _encoder(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, progress: Progress) -> RowEncoder:
    return RowEncoder(recipe, tokenizer, select(recipe, progress), progress, "training")


def _is_cached(folder: Path, tokenizer: PreTrainedTokenizerBase, progress: Progress) -> bool:
    """Whether a folder of prepared rows is there and intact; notes it, or what is wrong with it."""
    fault = damage(folder)
    if folder.exists():
        dated = ", which contain the date of that day" if is_dated(tokenizer) else ""
        progress.note(f"preparing the rows again: {fault}" if fault else f"using cached prepared rows{dated}")
    return not fault


def _read_statistics(folder: Path) -> dict[str, Any]:
    statistics: dict[str, Any] = json.loads((folder / STATISTICS).read_text(encoding="utf-8"))
    return statistics


def _write(encoder: RowEncoder, folder: Path, part: Part | None) -> None:
    """Write train.arrow, with all rows or a part, evaluation.arrow if there are such rows, and statistics."""
    selection, recipe = encoder.selection, encoder.recipe
    streaming = recipe["dataset"].get("streaming", False)
    if part:
        train, taken = part.write(encoder, folder)
    else:
        rows = selection.sample() if streaming else selection.train()
        total = STREAM_SAMPLE if streaming else row_count(selection.training)
        train, written = encoder.write(rows, folder / TRAIN, total)
        taken = Taken(written)
    if not is_packed(recipe, "training"):
        write_taken(taken, folder)
    evaluation = Tally(encoder.tokenizer)
    if selection.evaluation:
        encoder, total = replace(encoder, use="evaluation"), row_count(selection.evaluation)
        evaluation, _ = encoder.write(selection.evaluate(), folder / EVALUATION, total)
    statistics = describe(train, evaluation, recipe["train"]["max_length"]) | {"sample": streaming}
    statistics["part"] = {"rows": len(taken.places), "of": len(taken.marks)} if taken.is_part else None
    known = template_variables(encoder.tokenizer)
    statistics["sources"] = list(_sources(selection, train, evaluation, known=known))
    text = json.dumps(statistics, ensure_ascii=False, indent=1)
    (folder / STATISTICS).write_text(text, encoding="utf-8")


def _stream(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> IterableDataset:
    """The training rows, read and tokenized while training; shuffled by the seed within a buffer."""
    from datasets import IterableDataset

    selection = select(recipe, Silent())
    encoder = RowEncoder(recipe, tokenizer, selection, Silent(), "training")

    def generate() -> Iterator[dict[str, list[int]]]:
        for row in encoder.stream(selection.train()):
            yield {"input_ids": row.ids.tolist(), "labels": row.labels.tolist()}

    rows = IterableDataset.from_generator(generate)
    if recipe["dataset"]["shuffle"]:
        rows = rows.shuffle(seed=recipe["train"]["seed"], buffer_size=BUFFER)
    return pack(recipe, rows) if is_packed(recipe, "training") else rows


def _sources(
    selection: Selection, train: Tally, evaluation: Tally, *, known: Set[str]
) -> Iterator[dict[str, Any]]:
    for number, result in enumerate(selection.scans):
        tally, use = (train, "train") if number < len(selection.training) else (evaluation, "evaluation")
        yield {**_scan_facts(result, known), "use": use, "used_rows": tally.sources[number]}


def _scan_facts(result: Scan, known: Set[str]) -> dict[str, Any]:
    entry = result.source.entry
    return {
        "path": entry["path"],
        "format": result.source.options.format,
        "detected": result.source.detect()[1] if entry["format"] == "auto" else None,
        "records": result.records,
        "rows": result.rows,
        "skipped": {reason: _examples(rows) for reason, rows in result.skipped.items()},
        "placeholders": _examples(result.placeholders),
        "unread_columns": dict(result.unread_columns),
        "unread_keys": dict(result.unread_keys),
        "unread_around": dict(result.unread_around),
        "unread_template_kwargs": {
            name: rows for name, rows in result.template_kwargs.items() if name not in known
        },
    }


def _examples(rows: list[str]) -> dict[str, Any]:
    return {"rows": len(rows), "first": rows[:3]}
