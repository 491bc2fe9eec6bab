"""Rows → the token rows that the trainer gets, with what was counted on the way."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from loracook.data import kept
from loracook.data.encode import MASKED, Encoded, encode
from loracook.data.notes import notes
from loracook.data.render import Rendered, Renderer
from loracook.data.rows import RowError
from loracook.data.selection import Located, Scan, Selection, select
from loracook.data.statistics import Tally, described
from loracook.errors import RecipeError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from loracook.recipe import Recipe

BATCH = 1000


class Progress(Protocol):
    """Where the caller is told how far the rows are."""

    def note(self, text: str) -> None:
        """Take one finished sentence."""

    def advance(self, done: int, total: int, text: str) -> None:
        """Take how many rows are done of how many."""


@dataclass(frozen=True)
class Prepared:
    """What SFTTrainer gets with `skip_prepare_dataset`, and what was counted.

    `train` and `evaluation` have the columns input_ids and labels, and seq_lengths when packed.
    """

    train: Dataset
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
    digest = kept.key(recipe, tokenizer)
    folder = cache / "data" / digest
    if not kept.is_kept(folder):
        with kept.writing(folder) as fresh:
            _write(recipe, tokenizer, fresh, progress)
    elif progress:
        progress.note("the rows are as they were prepared before")
    return _load(recipe, folder, digest)


def _write(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, folder: Path, progress: Progress | None
) -> None:
    selection = select(recipe)
    work = Work(recipe, tokenizer, selection, progress)
    train = work.write(selection.train(), folder / "train.arrow", sum(map(len, selection.training)))
    evaluation = None
    if selection.evaluation:
        total = sum(map(len, selection.evaluation))
        evaluation = work.write(selection.evaluate(), folder / "evaluation.arrow", total)
    if not train.rows > len(train.flaws["fully_masked"]):
        raise RecipeError(
            [recipe.problem(("dataset",), "no row is left that trains anything; see loracook preview")]
        )
    _pack(recipe, folder)
    statistics = described(train, evaluation, recipe["train"]["max_length"])
    statistics["sources"] = [_source(found, train, number) for number, found in enumerate(selection.scans)]
    (folder / kept.DONE).write_text(json.dumps(statistics, ensure_ascii=False, indent=1), encoding="utf-8")


@dataclass(frozen=True)
class Work:
    """Turning located rows into arrow files of token rows."""

    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase
    selection: Selection
    progress: Progress | None

    def write(self, rows: Iterator[Located], path: Path, total: int) -> Tally:
        """Write what is left of the rows to `path` and return what was counted."""
        import pyarrow

        tally, renderer, done = Tally(self.tokenizer), Renderer(self.recipe, self.tokenizer), 0
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, _schema()) as stream:
            while batch := list(itertools.islice(rows, BATCH)):
                stream.write_batch(_columns(self._encoded(renderer, batch, tally)))
                done += len(batch)
                if self.progress:
                    self.progress.advance(done, total, f"{done} of {total} rows prepared")
        return tally

    def _encoded(self, renderer: Renderer, batch: list[Located], tally: Tally) -> list[Encoded]:
        rendered = list(self._rendered(renderer, batch))
        wholes = encode([text for _, text in rendered], self.tokenizer)
        left = []
        for (located, text), whole in zip(rendered, wholes, strict=True):
            cut = truncated(self.recipe, whole)
            tally.add(located, text.text, whole, cut)
            left += [cut] if cut else []
        return left

    def _rendered(self, renderer: Renderer, batch: list[Located]) -> Iterator[tuple[Located, Rendered]]:
        faults = []
        for located in batch:
            try:
                yield located, renderer.render(located.row)
            except RowError as error:
                faults.append(f"{located.place}: {error}")
                self.selection.scans[located.source].skip(error.reason, faults[-1])
        if faults and self.recipe["dataset"].get("on_bad_row", "fail") == "fail":
            problems = [self.recipe.problem(("template",), fault) for fault in faults[:5]]
            raise RecipeError(problems)


def truncated(recipe: Recipe, row: Encoded) -> Encoded | None:
    """What fits of a row, None when nothing that is learned does."""
    train = recipe["train"]
    splits = train.get("packing") and train.get("packing_strategy") in ("bfd_split", "wrapped")
    limit = None if splits else train["max_length"]
    cut = Encoded(row.ids[:limit], row.labels[:limit])
    return cut if bool((cut.labels != MASKED).any()) else None


def _schema() -> Any:
    import pyarrow

    ids = pyarrow.list_(pyarrow.int32())
    return pyarrow.schema([("input_ids", ids), ("labels", ids)])


def _columns(rows: Sequence[Encoded]) -> Any:
    """The rows as one batch of arrow columns."""
    import numpy
    import pyarrow

    offsets = numpy.cumsum([0, *(len(row.ids) for row in rows)], dtype=numpy.int32)
    empty = [numpy.empty(0, dtype=numpy.int32)]
    columns = [
        pyarrow.ListArray.from_arrays(offsets, numpy.concatenate(parts or empty))
        for parts in ([row.ids for row in rows], [row.labels for row in rows])
    ]
    return pyarrow.record_batch(columns, schema=_schema())


def _pack(recipe: Recipe, folder: Path) -> None:
    """Pack the rows in place as TRL does, shuffled first where the recipe shuffles."""
    from datasets import Dataset
    from trl import pack_dataset

    train = recipe["train"]
    packing = train.get("packing", False)
    chosen = {
        "train": packing,
        "evaluation": packing if train.get("eval_packing") is None else train["eval_packing"],
    }
    for name, wanted in chosen.items():
        path = folder / f"{name}.arrow"
        if wanted and path.exists():
            rows = _shuffled(recipe, Dataset.from_file(str(path)))
            packed = str(folder / "packed.arrow")
            strategy = train.get("packing_strategy", "bfd")
            pack_dataset(rows, train["max_length"], strategy, {"cache_file_name": packed})
            Path(packed).replace(path)


def _shuffled(recipe: Recipe, rows: Dataset) -> Dataset:
    if not recipe["dataset"].get("shuffle", True):
        return rows
    return rows.shuffle(seed=recipe["train"]["seed"], keep_in_memory=True)


def _load(recipe: Recipe, folder: Path, digest: str) -> Prepared:
    from datasets import Dataset

    statistics = json.loads((folder / kept.DONE).read_text(encoding="utf-8"))
    evaluation = folder / "evaluation.arrow"
    return Prepared(
        train=_shuffled(recipe, Dataset.from_file(str(folder / "train.arrow"))),
        evaluation=Dataset.from_file(str(evaluation)) if evaluation.exists() else None,
        statistics=statistics,
        notes=tuple(notes(statistics)),
        digest=digest,
    )


def _source(found: Scan, train: Tally, number: int) -> dict[str, Any]:
    auto = found.source.entry.get("format", "auto") == "auto"
    return {
        "path": found.source.entry["path"],
        "format": found.source.shape.format,
        "because": found.source.guess()[1] if auto else None,
        "records": found.records,
        "rows": found.rows,
        "trained_rows": train.sources[number],
        "skipped": {
            reason: {"rows": len(where), "first": where[:3]} for reason, where in found.skipped.items()
        },
        "place_holders": {"rows": len(found.place_holders), "first": found.place_holders[:3]},
    }
