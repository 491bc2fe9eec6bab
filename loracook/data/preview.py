"""Rows as the trainer sees them, token by token, with the statistics of all rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from loracook.data.prepare import Prepared, prepared_statistics
from loracook.data.read.rows import RowError
from loracook.data.read.selection import LocatedRow, select
from loracook.data.tokenize.batches import max_row_length, truncate
from loracook.data.tokenize.encode import MASKED, encode
from loracook.data.tokenize.render import Rendered, Renderer
from loracook.data.warnings import notes, over_limits
from loracook.errors import RecipeError
from loracook.model.own_tokenizer import tokenized
from loracook.progress import Progress
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRUNCATED_SHOWN, FIRST_SHOWN = 200, 1000
State = Literal["masked", "trained", "truncated"]


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its id, its part of the text, and whether it is trained, masked or truncated."""

    id: int
    text: str
    state: State


@dataclass(frozen=True)
class PreviewRow:
    """One row: its place, the index of its source, its length in tokens, and the tokens shown.

    Shown are all tokens that the trainer sees, and the first truncated ones.
    """

    place: str
    source: int
    length: int
    tokens: tuple[Token, ...]

    @property
    def hidden(self) -> int:
        """How many truncated tokens are not shown."""
        return self.length - len(self.tokens)


@dataclass(frozen=True)
class Preview:
    """A recipe's rows before training; `over` are the limits that would stop a run."""

    name: str
    rows: tuple[PreviewRow, ...]
    statistics: Mapping[str, Any]
    limits: Mapping[str, float]
    notes: tuple[str, ...]
    over: tuple[str, ...]


def preview(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    cache: Path,
    *,
    progress: Progress,
    rows: int = 3,
    source: int | None = None,
) -> Preview:
    """The first `rows` training rows (of one source, counted from 1) and the statistics of all.

    `tokenizer` has gone through `with_template`. Raises RecipeError for unusable data.
    """
    statistics = prepared_statistics(recipe, tokenizer, cache, progress=progress)
    last = sum(entry["use"] == "train" for entry in statistics["sources"])
    if source is not None and not 1 <= source <= last:
        message = f"there is no source {source}; sources are numbered 1 to {last}"
        raise RecipeError([recipe.problem(("dataset",), message)])
    training = select(recipe, progress).train()
    chosen = (row for row in training if source is None or row.source == source - 1)
    shown = tuple(_preview_rows(recipe, tokenizer, itertools.islice(chosen, rows)))
    over = tuple(str(problem) for problem in over_limits(statistics, recipe))
    limits = recipe["dataset"]["limits"]
    return Preview(recipe.name, shown, statistics, limits, notes=tuple(notes(statistics)), over=over)


def first_row(rows: Prepared, tokenizer: PreTrainedTokenizerBase) -> list[tuple[State, str]]:
    """The first training row, up to `FIRST_SHOWN` tokens, as text by state; [] where rows are streamed."""
    if rows.statistics["sample"]:
        return []
    row = rows.train[0]
    tokens = list(zip(row["labels"], row["input_ids"], strict=True))[:FIRST_SHOWN]
    return [
        ("masked" if masked else "trained", tokenizer.decode([token for _, token in group]))
        for masked, group in itertools.groupby(tokens, key=lambda token: token[0] == MASKED)
    ]


def _preview_rows(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, rows: Iterator[LocatedRow]
) -> Iterator[PreviewRow]:
    renderer, limit = Renderer(recipe, tokenizer), max_row_length(recipe, "training")
    for row in rows:
        try:
            rendered = renderer.render(row.row)
        except RowError:  # counted among the skipped rows; otherwise prepare would have raised it
            continue
        whole = encode([rendered], tokenizer)[0]
        truncated = truncate(whole, limit)
        end = len(truncated.ids) if truncated else 0
        states: list[State] = ["masked" if label == MASKED else "trained" for label in whole.labels[:end]]
        tokens = _tokens(rendered, whole.ids.tolist()[: end + TRUNCATED_SHOWN], states, tokenizer=tokenizer)
        yield PreviewRow(str(row.place), row.source, len(whole.ids), tuple(tokens))


def _tokens(
    rendered: Rendered, ids: list[int], states: list[State], *, tokenizer: PreTrainedTokenizerBase
) -> Iterator[Token]:
    """The tokens with their text; those beyond `states` are truncated."""
    offsets = tokenized(
        tokenizer,
        rendered.text,
        add_special_tokens=rendered.special,
        return_offsets_mapping=True,
        verbose=False,
    )["offset_mapping"]
    reached = 0
    for index, (token, (start, end)) in enumerate(zip(ids, offsets, strict=False)):
        # Tokens for the bytes of one character share its offsets: the first one shows it.
        text = rendered.text[max(start, reached) : end] if end else tokenizer.decode([token])
        reached = max(reached, end)
        yield Token(token, text, states[index] if index < len(states) else "truncated")
