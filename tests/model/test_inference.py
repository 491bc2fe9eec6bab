"""Answers follow the recipe's settings alone, whatever the base model's own generation settings say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast
from trl.trainer.utils import add_fused_lm_head

from loracook.model.inference import Generated, generate, row_losses
from tests.tiny_families import tiny

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12]]
OWN: tuple[dict[str, Any], ...] = (
    {"penalty_alpha": 0.6, "top_k": 4},
    {"dola_layers": "low"},
    {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
    {"num_beams": 2, "force_words_ids": [[3]]},
    {"num_beams": 2, "constraints": [3]},
    {"num_beams": 3, "num_return_sequences": 3},
    {"stop_strings": ["a"]},
    {"token_healing": True},
    {"return_dict_in_generate": True, "output_scores": True},
    {"prompt_lookup_num_tokens": 2},
    {"assistant_early_exit": 1},
    {"cache_implementation": "quantized"},
    {"cache_implementation": "static"},
    {"use_cache": False},
    {"max_time": 1e-9},
    {"max_length": 4},
    {"min_length": 40},
    {"sequence_bias": [[[7], 100.0]]},
    {"guidance_scale": 3.0},
    {"watermarking_config": {"bias": 9.0}},
    {"do_sample": True, "temperature": 9.0, "top_k": 0},
    {"repetition_penalty": 9.0, "no_repeat_ngram_size": 1},
    {"suppress_tokens": list(range(40))},
    {"forced_eos_token_id": 7},
    {"bad_words_ids": [[token] for token in range(40)]},
    {"exponential_decay_length_penalty": [1, 9.0]},
)


def answers(tuned: Any, tokenizer: PreTrainedTokenizerFast, **settings: Any) -> list[Generated]:
    return generate(
        tuned,
        tokenizer,
        PROMPTS,
        ends=[],
        settings={"max_new_tokens": 8, **settings},
        batch_size=2,
        seed=1,
        on_progress=lambda done: None,
    )


@pytest.mark.parametrize("own", OWN, ids=str)
@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "temperature": 0.7}], ids=["greedy", "sampled"])
def test_settings_of_the_base_change_no_answer_and_are_left_as_they_are(
    tuned: Any, tokenizer: PreTrainedTokenizerFast, own: dict[str, Any], sampling: dict[str, Any]
) -> None:
    base = tuned.get_base_model()
    base.generation_config = GenerationConfig()
    wanted = answers(tuned, tokenizer, **sampling)
    base.generation_config = configured = GenerationConfig(**own)
    assert answers(tuned, tokenizer, **sampling) == wanted
    assert base.generation_config is configured


def test_end_tokens_of_the_base_end_an_answer(tuned: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    base = tuned.get_base_model()
    base.generation_config = GenerationConfig()
    [first, second] = answers(tuned, tokenizer)
    base.generation_config = GenerationConfig(eos_token_id=[first.ids[2]])
    [shorter, _] = answers(tuned, tokenizer)
    assert shorter.ids == first.ids[: first.ids.index(first.ids[2])]
    assert not shorter.cut
    assert second.cut


ROWS = [[5, 6, 7, 8], [9, 10, 11], [12, 13], [14, 15, 16, 17, 18]]
LABELS = [[-100, 6, 7, 8], [9, 10, 11], [-100, -100], [-100, -100, -100, 17, 18]]


@pytest.mark.parametrize("packed", [False, True])
def test_the_loss_of_each_row_is_that_of_the_model_s_own_forward(packed: bool) -> None:
    torch.manual_seed(0)
    causal = AutoModelForCausalLM.from_config(tiny("llama")).eval()
    add_fused_lm_head(causal)
    wanted = [
        float(causal(torch.tensor([ids]), labels=torch.tensor([labels])).loss.detach())
        for ids, labels in zip(ROWS, LABELS, strict=True)
        if set(labels[1:]) != {-100}
    ]
    columns = {"input_ids": ROWS, "labels": LABELS}
    if packed:
        pairs = {name: [[*of[0], *of[1]], [*of[2], *of[3]]] for name, of in columns.items()}
        columns = pairs | {"seq_lengths": [[4, 3], [2, 5]]}
    rows = Dataset.from_dict(columns)
    losses = row_losses(causal, rows, pad=0, batch_size=2, on_progress=lambda done: None)
    assert [row.mean for row in losses] == pytest.approx(wanted, rel=1e-4)
    assert [row.tokens for row in losses] == [3, 2, 2]
    plain = Dataset.from_dict({"input_ids": ROWS, "labels": LABELS})
    alone = row_losses(causal, plain, pad=0, batch_size=1, on_progress=lambda done: None)
    assert [row.row for row in losses] == [row.row for row in alone]
    assert len({row.row for row in losses}) == 3
