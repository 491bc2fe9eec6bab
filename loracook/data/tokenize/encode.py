"""Rendered rows → token ids and labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from loracook.data.tokenize.render import Rendered
from loracook.model.own_tokenizer import tokenized

if TYPE_CHECKING:
    import numpy
    from transformers import PreTrainedTokenizerBase

    Ids: TypeAlias = numpy.typing.NDArray[numpy.int32]

MASKED = -100


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids and labels of one row, equally long; the label of a masked token is -100.

    `turns` has the index at which each trained turn starts.
    """

    ids: Ids
    labels: Ids
    turns: tuple[int, ...] = ()


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
    encoding = tokenized(
        tokenizer, list(texts), add_special_tokens=special, return_attention_mask=False, verbose=False
    )
    return [list(ids) for ids in encoding["input_ids"]]


def _encode(rows: Sequence[Rendered], tokenizer: PreTrainedTokenizerBase, special: bool) -> list[Encoded]:
    if not rows:
        return []
    texts = [row.text for row in rows]
    encoding = tokenized(
        tokenizer, texts, add_special_tokens=special, return_attention_mask=False, verbose=False
    )
    prompts = list(dict.fromkeys(text for row in rows for text in _prompts(row)))
    prompt_ids = dict(zip(prompts, token_ids(prompts, tokenizer, special=special), strict=True))
    return [_encoded(row, encoding, index, prompt_ids=prompt_ids) for index, row in enumerate(rows)]


def _encoded(row: Rendered, encoding: Any, index: int, *, prompt_ids: Mapping[str, list[int]]) -> Encoded:
    import numpy

    row_ids = encoding["input_ids"][index]
    ids = numpy.array(row_ids, dtype=numpy.int32)
    starts = {text: common_prefix(prompt_ids[text], row_ids) for text in _prompts(row)}
    turns = tuple(starts[text] for text in row.turns)
    if row.prompt is not None:
        spans = [(starts[row.prompt], len(ids))]
    elif row.spans == ((0, len(row.text)),):
        spans = [(0, len(ids))]
    else:
        spans = list(_token_spans(row, encoding, index))
        turns = tuple(start for start, _ in spans)
    labels = numpy.full_like(ids, MASKED)
    for start, end in spans:
        labels[start:end] = ids[start:end]
    return Encoded(ids, labels, turns)


def _prompts(row: Rendered) -> dict[str, None]:
    """The texts of a row whose tokens show where a trained part begins."""
    return dict.fromkeys([*([] if row.prompt is None else [row.prompt]), *row.turns])


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
            yield first, _end_of_character(encoding, index, last, before=end)


def _end_of_character(encoding: Any, index: int, token: int, *, before: int) -> int:
    """Where the tokens of the character end that has `token` and stands before a place: some have several."""
    length = len(encoding["input_ids"][index])
    for following in range(token + 1, length):
        characters = encoding.token_to_chars(index, following)
        if characters is None or not characters.start < min(before, characters.end):
            return following
    return length
