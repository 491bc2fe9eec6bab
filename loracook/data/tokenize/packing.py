"""Packing of token rows with TRL, and shuffling of streamed ones; the trainer shuffles all others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from loracook.recipe.derived import SPLITTING
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

    Rows = TypeVar("Rows", Dataset, IterableDataset)

Use = Literal["train", "evaluation"]
BUFFER = 1000
"""Rows in the shuffle buffer when streaming."""


def is_packed(recipe: Recipe, use: Use) -> bool:
    """Whether the rows of this use are packed; `eval_packing` defaults to `packing`."""
    train = recipe["train"]
    packing = bool(train.get("packing", False))
    return packing if use == "train" else bool(train.get("eval_packing", packing))


def max_row_length(recipe: Recipe, use: Use) -> int | None:
    """The most tokens a row may have before packing, None if packing splits long rows instead."""
    train = recipe["train"]
    splits = is_packed(recipe, use) and train.get("packing_strategy") in SPLITTING
    return None if splits else int(train["max_length"])


def pack_file(recipe: Recipe, path: Path) -> None:
    """Pack the rows of an Arrow file in order; the same rows always result in the same bytes."""
    from datasets import Dataset

    packed = path.with_name("packed.arrow")
    # By default the fingerprint, which is stored in the file, depends on the source's modification time.
    pack(recipe, Dataset.from_file(str(path)), cache_file_name=str(packed), new_fingerprint="packed")
    packed.replace(path)


def pack(recipe: Recipe, rows: Rows, **writing: str) -> Rows:
    """The rows packed into sequences of `max_length` tokens."""
    from trl import pack_dataset

    train = recipe["train"]
    packed: Rows = pack_dataset(rows, train["max_length"], train.get("packing_strategy", "bfd"), writing)
    return packed


def shuffled_stream(recipe: Recipe, rows: IterableDataset) -> IterableDataset:
    """The rows shuffled by the seed within a buffer, or as they arrive."""
    if not recipe["dataset"]["shuffle"]:
        return rows
    return rows.shuffle(seed=recipe["train"]["seed"], buffer_size=BUFFER)
