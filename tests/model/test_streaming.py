"""A streamed answer is the one that `generate` gives, in whole characters, up to where it is stopped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LogitsProcessor, PreTrainedTokenizerFast

from loracook.model.inference import Generated, generate
from loracook.model.streaming import stream

PROMPT = [5, 6, 7]


def streamed(
    causal: Any, tokenizer: Any, *, most: float = 10**6, ends: tuple[int, ...] = (), **settings: Any
) -> tuple[list[str], Generated]:
    """The parts of an answer that is stopped after that many of them, and the answer."""
    parts: list[str] = []
    answer = stream(
        causal,
        tokenizer,
        PROMPT,
        ends=ends,
        settings={"max_new_tokens": 24, **settings},
        seed=1,
        on_text=parts.append,
        stopped=lambda: len(parts) >= most,
    )
    return parts, answer


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_sample": True, "temperature": 1.5},
        {"num_beams": 2},
        {"stop_strings": ["a", "e"], "do_sample": True, "temperature": 9.0},
        {"prompt_lookup_num_tokens": 2},
    ],
    ids=str,
)
def test_the_parts_are_the_answer_of_generate(tuned: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    parts, answer = streamed(tuned, tokenizer, **settings)
    [whole] = generate(
        tuned,
        tokenizer,
        [PROMPT],
        ends=[],
        settings={"max_new_tokens": 24, **settings},
        batch_size=1,
        seed=1,
        on_progress=lambda done: None,
    )
    assert answer == whole
    assert "".join(parts) == tokenizer.decode(whole.ids)
    assert len(parts) == 1 or "num_beams" not in settings


def test_an_end_is_not_written(tuned: Any, tokenizer: Any) -> None:
    _, whole = streamed(tuned, tokenizer)
    end = next(token for index, token in enumerate(whole.ids) if index > 3 and token not in whole.ids[:index])
    parts, answer = streamed(tuned, tokenizer, ends=(end,))
    assert answer == Generated(whole.ids[: whole.ids.index(end)])
    assert "".join(parts) == tokenizer.decode(answer.ids)


def test_a_stopped_answer_is_what_was_written_so_far_and_not_cut(tuned: Any, tokenizer: Any) -> None:
    _, whole = streamed(tuned, tokenizer)
    parts, answer = streamed(tuned, tokenizer, most=2)
    assert 2 <= len(answer.ids) < len(whole.ids)
    assert answer == Generated(whole.ids[: len(answer.ids)])
    assert "".join(parts) == tokenizer.decode(answer.ids)


class Says(LogitsProcessor):
    """Lets a model write some tokens."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = iter(ids)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, -1.0).index_fill_(1, torch.tensor([next(self.ids)]), 1.0)


class Scripted:
    """A model that writes a text."""

    def __init__(self, causal: Any, ids: list[int]) -> None:
        self.causal, self.ids, self.device = causal, ids, causal.device
        self.generation_config = causal.generation_config

    def generate(self, **arguments: Any) -> Any:
        return self.causal.generate(**arguments, logits_processor=[Says(self.ids)])


def parts_of(causal: Any, tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    """The parts of that answer."""
    ids = tokenizer(text, add_special_tokens=False).input_ids
    parts, answer = streamed(Scripted(causal, ids), tokenizer, max_new_tokens=len(ids))
    assert answer.ids == ids
    return parts


def test_characters_of_several_tokens_come_whole(tuned: Any, tokenizer: Any) -> None:
    text = "Käse 汤👩\u200d🍳\ufffd\ufffd."
    parts = parts_of(tuned.get_base_model(), tokenizer, text)
    assert "".join(parts) == text
    assert "👩" in parts
    assert not any("\ufffd" in part for part in parts[:-1])


def test_lines_keep_the_spaces_that_they_begin_with(tuned: Any) -> None:
    words = ["<unk>", "</s>", "▁", "▁▁", "▁soup", ":", "\n", "pot"]
    backend = Tokenizer(models.WordLevel({word: id for id, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.Metaspace()
    sentencepiece = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="</s>")
    ids = [4, 5, 6, 3, 4, 6, 2, 7]
    parts, answer = streamed(Scripted(tuned.get_base_model(), ids), sentencepiece, max_new_tokens=len(ids))
    assert answer.ids == ids
    assert "".join(parts) == sentencepiece.decode(ids) == "soup:\n   soup\n pot"
