"""Which prepared row is another than it was, found where the earlier ones are still in the cache."""

from __future__ import annotations

from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from loracook.data.cache import KEY, rows_digest
from loracook.data.part import TRAIN, dataset
from loracook.data.prepare import EVALUATION, Prepared
from loracook.errors import quote, shorten
from loracook.store.files import damage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

LONGEST = 60
"""Characters of a row that are shown, from where it begins to differ."""


def changed_row(
    rows: Prepared, digest: str, *, tokenizer: PreTrainedTokenizerBase, cache: Path
) -> str | None:
    """The first of the prepared rows that differs from those of a digest, in words.

    None where the rows of that digest are not in the cache any more, or either is streamed.
    """
    earlier = _folder(cache, digest)
    if earlier is None or rows.statistics["sample"]:
        return None
    for use, file, now in (("training", TRAIN, rows.train), ("evaluation", EVALUATION, rows.evaluation)):
        was = dataset(earlier / file) if (earlier / file).exists() else None
        pairs = zip_longest(*(each["input_ids"] if each else [] for each in (was, now)))
        for number, (before, after) in enumerate(pairs, 1):
            if before != after:
                return f"prepared {use} row {number} {_difference(before, after, tokenizer)}"
    return "the masks of the prepared rows differ"


def _folder(cache: Path, digest: str) -> Path | None:
    for folder in (cache / "data").glob("*"):
        with suppress(OSError, ValueError, KeyError):
            if KEY.fullmatch(folder.name) and not damage(folder) and rows_digest(folder) == digest:
                return folder
    return None


def _difference(
    was: Sequence[int] | None, now: Sequence[int] | None, tokenizer: PreTrainedTokenizerBase
) -> str:
    if was is None or now is None:
        return "is new" if was is None else "is not there any more"
    same = next((place for place, pair in enumerate(zip(was, now, strict=False)) if pair[0] != pair[1]), 0)
    old, new = (quote(shorten(tokenizer.decode(ids[same:]), LONGEST)) for ids in (was, now))
    return f"was {old}, now {new}"
