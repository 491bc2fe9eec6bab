"""Rows as the trainer will see them, token by token, with the statistics of all of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from loracook.data.limits import over_limits
from loracook.data.prepare import count
from loracook.data.read.rows import RowError
from loracook.data.read.selection import Located, select
from loracook.data.tokenize.batches import truncated
from loracook.data.tokenize.encode import MASKED, Encoded, encode
from loracook.data.tokenize.packing import longest
from loracook.data.tokenize.render import Rendered, Renderer
from loracook.data.warnings import notes
from loracook.errors import RecipeError
from loracook.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from loracook.recipe.recipe import Recipe

CUT_SHOWN = 200
State = Literal["masked", "trained", "cut"]


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its id, its part of the text, and whether it is learned, only read, or cut off."""

    id: int
    text: str
    state: State


@dataclass(frozen=True)
class ShownRow:
    """One row: where it stands, which source it is of, how many tokens it has, and those that are shown.

    All that is trained or read is shown, and the first of what is cut off.
    """

    place: str
    source: int
    length: int
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Preview:
    """What there is to see of a recipe's rows before anything is trained."""

    name: str
    rows: tuple[ShownRow, ...]
    statistics: Mapping[str, Any]
    limits: Mapping[str, float]
    notes: tuple[str, ...]
    over: tuple[str, ...]


def preview(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    cache: Path,
    *,
    rows: int = 3,
    source: int | None = None,
    progress: Progress | None = None,
) -> Preview:
    """The first `rows` training rows (of one source, counted from 1) and the statistics of all.

    `tokenizer` has gone through `with_template`. Raises RecipeError for data that cannot be used.
    """
    found = count(recipe, tokenizer, cache, progress)
    last = sum(entry["use"] == "train" for entry in found["sources"])
    if source is not None and not 1 <= source <= last:
        message = f"there is no source {source}; they are numbered 1 to {last}"
        raise RecipeError([recipe.problem(("dataset",), message)])
    chosen = (row for row in select(recipe).train() if source is None or row.source == source - 1)
    over = tuple(str(problem) for problem in over_limits(found, recipe))
    shown = tuple(_shown(recipe, tokenizer, itertools.islice(chosen, rows)))
    return Preview(recipe.name, shown, found, recipe["dataset"]["limits"], tuple(notes(found)), over)


def as_json(shown: Preview) -> dict[str, Any]:
    """A preview as plain JSON values."""
    return asdict(shown)


def _shown(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, rows: Iterator[Located]) -> Iterator[ShownRow]:
    renderer = Renderer(recipe, tokenizer)
    for row in rows:
        try:
            rendered = renderer.render(row.row)
        except RowError:  # counted among the skipped rows; prepare would have raised otherwise
            continue
        whole = encode([rendered], tokenizer)[0]
        tokens = _tokens(rendered, whole, truncated(whole, longest(recipe, "train")), tokenizer)
        yield ShownRow(str(row.place), row.source, len(whole.ids), tuple(tokens))


def _tokens(
    rendered: Rendered, whole: Encoded, kept: Encoded | None, tokenizer: PreTrainedTokenizerBase
) -> Iterator[Token]:
    last = len(kept.ids) if kept else 0
    offsets = tokenizer(
        rendered.text, add_special_tokens=rendered.special, return_offsets_mapping=True, verbose=False
    )["offset_mapping"]
    reached = 0
    every = zip(whole.ids, whole.labels, offsets, strict=True)
    for index, (token, label, (start, end)) in enumerate(itertools.islice(every, last + CUT_SHOWN)):
        # Tokens of one character's bytes share its place: the first one shows it.
        text = rendered.text[max(start, reached) : end] if end else tokenizer.decode([token])
        reached = max(reached, end)
        state: State = "masked" if label == MASKED else "trained"
        yield Token(int(token), text, state if index < last else "cut")
