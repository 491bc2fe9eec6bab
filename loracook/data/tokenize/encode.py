"""Text → tokens and labels, many rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from loracook.data.tokenize.render import Rendered

if TYPE_CHECKING:
    import numpy
    from transformers import PreTrainedTokenizerBase

    Ids: TypeAlias = numpy.typing.NDArray[numpy.int32]

MASKED = -100


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one row and its labels, -100 where nothing is learned; both of the row's length."""

    ids: Ids
    labels: Ids


def encode(rows: Sequence[Rendered], tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
    """The rows as tokens, in their order."""
    encoded: list[Encoded | None] = [None] * len(rows)
    for special in (False, True):
        chosen = [index for index, row in enumerate(rows) if row.special is special]
        for index, found in zip(chosen, _encode([rows[i] for i in chosen], tokenizer, special), strict=True):
            encoded[index] = found
    return [found for found in encoded if found is not None]


def token_ids(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, special: bool) -> list[list[int]]:
    """Token ids of texts, the tokenizer's opening tokens added where `special`."""
    if not texts:
        return []
    found = tokenizer(list(texts), add_special_tokens=special, return_attention_mask=False, verbose=False)
    return [list(ids) for ids in found["input_ids"]]


def _encode(rows: Sequence[Rendered], tokenizer: PreTrainedTokenizerBase, special: bool) -> list[Encoded]:
    import numpy

    if not rows:
        return []
    texts = [row.text for row in rows]
    found = tokenizer(texts, add_special_tokens=special, return_attention_mask=False, verbose=False)
    prompts = token_ids([row.prompt for row in rows if row.prompt is not None], tokenizer, special=special)
    opening, encoded = iter(prompts), []
    for index, row in enumerate(rows):
        listed = found["input_ids"][index]
        ids = numpy.array(listed, dtype=numpy.int32)
        labels = numpy.full_like(ids, MASKED)
        if row.prompt is not None:
            start = common_length(next(opening), listed)
            labels[start:] = ids[start:]
        elif row.spans == ((0, len(row.text)),):
            labels[:] = ids
        else:
            for start, end in _tokens(row, found, index):
                labels[start:end] = ids[start:end]
        encoded.append(Encoded(ids, labels))
    return encoded


def common_length(some: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows share from the start; the completion begins where they part."""
    short = min(len(some), len(other))
    if list(some[:short]) == list(other[:short]):
        return short
    return next(index for index in range(short) if some[index] != other[index])


def _tokens(row: Rendered, found: Any, index: int) -> list[tuple[int, int]]:
    """The spans in tokens; characters that no token stands for are left to their neighbours."""
    spans = []
    for start, end in row.spans:
        tokens = (found.char_to_token(index, place) for place in range(start, end))
        first = next((token for token in tokens if token is not None), None)
        tokens = (found.char_to_token(index, place) for place in range(end - 1, start - 1, -1))
        last = next((token for token in tokens if token is not None), None)
        if first is not None and last is not None:
            spans.append((first, last + 1))
    return spans
