"""Answers and losses of a loaded model, in batches."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loracook.model.generation_config import own_settings_aside
from loracook.model.left_padding import batches_of

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Generated:
    """The token ids of an answer before its end, and whether max_new_tokens cut it off."""

    ids: list[int]
    cut: bool = False


def generate(
    causal: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    ends: Collection[int],
    settings: Mapping[str, Any],
    batch_size: int,
    seed: int,
    on_progress: Callable[[int], None],
) -> list[Generated]:
    """The answer to each prompt (token ids, generation prompt included), in the prompts' order.

    Answers end at one of `ends`, or where the model's own settings end them, which decide nothing else.
    Prompts of similar length share a batch; `on_progress` gets the number of answers.
    """
    import torch
    from transformers import set_seed

    pad, eos = tokenizer.pad_token_id, end_tokens(causal, ends)
    arguments = generation_arguments(tokenizer, settings, eos)
    answers: dict[int, Generated] = {}
    batches = list(batches_of(causal, prompts, batch_size))
    set_seed(seed)
    for batch in batches:
        inputs = _left_padded([prompts[index] for index in batch], pad, causal.device)
        with torch.no_grad(), own_settings_aside(causal):
            output = causal.generate(**inputs, **arguments)
        new_tokens = output[:, inputs["input_ids"].shape[1] :].tolist()
        read = (generated(tokenizer, ids, eos=eos, settings=settings) for ids in new_tokens)
        answers |= zip(batch, read, strict=True)
        on_progress(len(answers))
    return [answers[index] for index in range(len(prompts))]


def generation_arguments(
    tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any], eos: Sequence[int]
) -> dict[str, Any]:
    """What transformers' `generate` takes for the settings of a recipe, and the ids that end an answer."""
    from transformers import GenerationConfig

    config = GenerationConfig(**settings, pad_token_id=tokenizer.pad_token_id, eos_token_id=eos)
    return {"generation_config": config} | ({"tokenizer": tokenizer} if "stop_strings" in settings else {})


def up_to_end(ids: Sequence[int], ends: Collection[int]) -> tuple[list[int], bool]:
    """The ids before the first that ends an answer, and whether there is one."""
    written = list(itertools.takewhile(lambda token: token not in ends, ids))
    return written, len(written) < len(ids)


@dataclass(frozen=True)
class RowLoss:
    """The mean negative log-likelihood of a row's trained tokens, in nats, how many these are, and a digest
    of all tokens of the row.
    """

    mean: float
    tokens: int
    row: str


def row_losses(
    causal: Any, rows: Dataset, *, pad: int, batch_size: int, on_progress: Callable[[int], None]
) -> list[RowLoss]:
    """The loss of each of `rows` (columns input_ids and labels) that trains a token; of each packed one.

    The model must carry TRL's fused head (`trl.trainer.utils.add_fused_lm_head`), which scores tokens without
    a (batch, length, vocabulary) tensor of logits.
    """
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    packed = "seq_lengths" in rows.column_names
    collate = DataCollatorForLanguageModeling(pad_token_id=pad, padding_free=packed)
    losses: list[RowLoss] = []
    for start in range(0, len(rows), batch_size):
        examples = [rows[index] for index in range(start, min(start + batch_size, len(rows)))]
        batch = collate(examples)
        inputs = {
            key: value.to(causal.device) if hasattr(value, "to") else value for key, value in batch.items()
        }
        with torch.no_grad():
            output = causal(**inputs, fused_lm_head=True)
        scored = zip(-output.log_probs.float().cpu(), output.label_mask.cpu(), strict=True)
        lengths = [length for example in examples for length in example["seq_lengths"]] if packed else None
        digests = [digest for example in examples for digest in _digests(example)]
        of_each = [digests] if packed else [[digest] for digest in digests]
        for (loss, trained), rows_in_it in zip(scored, of_each, strict=True):
            losses += _by_sequence(loss, trained, rows_in_it, lengths=lengths)
        on_progress(min(start + batch_size, len(rows)))
    return losses


def _by_sequence(
    losses: Tensor, trained: Tensor, digests: Sequence[str], *, lengths: Sequence[int] | None
) -> Iterator[RowLoss]:
    """The loss of each sequence in a row of the model's output, which begins at its second token."""
    first, *others = lengths or [len(losses) + 1]
    parts = [first - 1, *others]
    for loss, count, digest in zip(losses.split(parts), trained.split(parts), digests, strict=True):
        if tokens := int(count.sum()):
            yield RowLoss(float(loss.double().sum()) / tokens, tokens, digest)


def _digests(example: Mapping[str, Any]) -> Iterator[str]:
    """A digest of each sequence in a row, or of the row, by which other evaluations of it are found."""
    ids, labels, start = example["input_ids"], example["labels"], 0
    for length in example.get("seq_lengths", [len(ids)]):
        part = slice(start, start + length)
        start += length
        yield hashlib.sha256(json.dumps([ids[part], labels[part]]).encode()).hexdigest()[:16]


def end_tokens(causal: Any, ends: Collection[int]) -> list[int]:
    """The ids at which an answer ends: those at which trained answers do, and the model's own."""
    own = causal.generation_config.eos_token_id
    return sorted({*ends, *(own if isinstance(own, list) else [own])} - {None})


def generated(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], *, eos: list[int], settings: Mapping[str, Any]
) -> Generated:
    """The answer that a model's new tokens are."""
    written, ended = up_to_end(ids, eos)
    stops = settings.get("stop_strings", ())
    stops = [stops] if isinstance(stops, str) else stops
    if not ended and any(stop in tokenizer.decode(written) for stop in stops):
        written, ended = _without_padding(written, tokenizer.pad_token_id), True
    return Generated(written, cut=not ended and len(written) == settings["max_new_tokens"])


def _without_padding(ids: list[int], pad: int) -> list[int]:
    return list(itertools.dropwhile(lambda token: token == pad, reversed(ids)))[::-1]


def _left_padded(prompts: Sequence[Sequence[int]], pad: int, device: Any) -> dict[str, Tensor]:
    """Prompts of shape (batch, longest), padded on the left, with the mask that hides the padding."""
    import torch

    longest = max(map(len, prompts))
    ids = [[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask, device=device),
    }
