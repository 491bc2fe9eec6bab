"""Rendered rows → token ids and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """Token ids and labels of one row, equally long; the label of a masked token is -100."""

    ids: Ids
    labels: Ids


def encode(rows: Sequence[Rendered], tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
    """The rows as token ids and labels, in order."""
    encoded: dict[int, Encoded] = {}
    for special in (False, True):
        chosen = [index for index, row in enumerate(rows) if row.special is special]
        encoded |= zip(chosen, _encode([rows[i] for i in chosen], tokenizer, special), strict=True)
    return [encoded[index] for index in range(len(rows))]


def token_ids(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, special: bool) -> list[list[int]]:
    """Token ids of texts, with the tokenizer's special tokens added if `special`."""
    if not texts:
        return []
    encoding = tokenizer(list(texts), add_special_tokens=special, return_attention_mask=False, verbose=False)
    return [list(ids) for ids in encoding["input_ids"]]


def _encode(rows: Sequence[Rendered], tokenizer: PreTrainedTokenizerBase, special: bool) -> list[Encoded]:
    import numpy

    if not rows:
        return []
    texts = [row.text for row in rows]
    encoding = tokenizer(texts, add_special_tokens=special, return_attention_mask=False, verbose=False)
    prompts = token_ids([row.prompt for row in rows if row.prompt is not None], tokenizer, special=special)
    prompt_ids, encoded = iter(prompts), []
    for index, row in enumerate(rows):
        row_ids = encoding["input_ids"][index]
        ids = numpy.array(row_ids, dtype=numpy.int32)
        labels = numpy.full_like(ids, MASKED)
        if row.prompt is not None:
            start = common_prefix(next(prompt_ids), row_ids)
            labels[start:] = ids[start:]
        elif row.spans == ((0, len(row.text)),):
            labels[:] = ids
        else:
            for start, end in _token_spans(row, encoding, index):
                labels[start:end] = ids[start:end]
        encoded.append(Encoded(ids, labels))
    return encoded


def common_prefix(prompt: Sequence[int], row: Sequence[int]) -> int:
    """How many tokens two rows share at the start; the completion begins where they differ."""
    pairs = enumerate(zip(prompt, row, strict=False))
    return next((index for index, (ours, theirs) in pairs if ours != theirs), min(len(prompt), len(row)))


def _token_spans(row: Rendered, encoding: Any, index: int) -> Iterator[tuple[int, int]]:
    """The character spans as token spans; characters without a token are skipped."""
    for start, end in row.spans:
        tokens = (encoding.char_to_token(index, place) for place in range(start, end))
        first = next((token for token in tokens if token is not None), None)
        tokens = (encoding.char_to_token(index, place) for place in range(end - 1, start - 1, -1))
        last = next((token for token in tokens if token is not None), None)
        if first is not None and last is not None:
            yield first, last + 1
