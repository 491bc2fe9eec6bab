"""Rows without padding between them attend one after the other, with the same logits and gradients."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from loracook.model.row_attention import ROW_BY_ROW, attend_row_by_row

SHAPE = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": 0,
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt_neox": {"num_key_value_heads": 4},
    "gemma2": {"sliding_window": 8},
    "doge": {},
}


def small(kind: str, **shape: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SHAPE | KINDS[kind] | shape))


def batch(*lengths: int) -> dict[str, Any]:
    """Rows of such lengths as TRL concatenates them."""
    draw = torch.Generator().manual_seed(1)
    rows = [{"input_ids": torch.randint(1, 128, (length,), generator=draw).tolist()} for length in lengths]
    collated: dict[str, Any] = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(rows)
    return collated


def logits_and_gradients(model: PreTrainedModel, inputs: dict[str, Any]) -> list[torch.Tensor]:
    model.zero_grad()
    output = model(**inputs, use_cache=False)
    output.loss.backward()
    return [output.logits.detach(), *(each.grad.clone() for each in model.parameters())]


@pytest.mark.parametrize(
    ("kind", "attention"),
    [*product(sorted(KINDS.keys() - {"gemma2"}), ["sdpa", "eager"]), ("gemma2", "eager")],
)
def test_logits_and_gradients_are_those_of_attention_under_a_mask(kind: str, attention: str) -> None:
    model, inputs = small(kind, attn_implementation=attention), batch(30, 21, 40)
    masked = logits_and_gradients(model, inputs)
    assert attend_row_by_row(model)
    for ours, theirs in zip(logits_and_gradients(model, inputs), masked, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_another_batch_is_attended_to_as_before() -> None:
    model, ids = small("llama"), torch.randint(1, 128, (2, 9))
    padded = {"input_ids": ids, "attention_mask": (torch.arange(9) < torch.tensor([[9], [5]])).long()}
    before = model(**padded, use_cache=False).logits
    alone = model(**batch(12), use_cache=False).logits
    assert attend_row_by_row(model)
    assert torch.equal(model(**padded, use_cache=False).logits, before)
    assert torch.equal(model(**batch(12), use_cache=False).logits, alone)


def test_each_row_attends_alone() -> None:
    model = small("llama", attn_implementation="eager")
    assert attend_row_by_row(model)
    assert model.config._attn_implementation == f"eager{ROW_BY_ROW}"
    with torch.profiler.profile(record_shapes=True) as profile:
        model(**batch(30, 21, 40), use_cache=False)
    shapes = [event.input_shapes[0] for event in profile.events() if event.name == "aten::_softmax"]
    assert shapes == [[1, 4, length, length] for length in (30, 21, 40)] * 2


def test_models_of_several_kinds_keep_their_own_eager_attention() -> None:
    """As softcapping, which the attention of other kinds does not know."""
    capped = small("gemma2", attn_implementation="eager", attn_logit_softcapping=0.01)
    before = capped(**batch(30, 21, 40), use_cache=False).logits
    assert attend_row_by_row(capped)
    assert attend_row_by_row(small("llama", attn_implementation="eager"))
    torch.testing.assert_close(capped(**batch(30, 21, 40), use_cache=False).logits, before)


def test_a_mask_may_come_by_name() -> None:
    model = small("doge", attn_implementation="eager")
    before = model(**batch(30, 21, 40), use_cache=False).logits
    assert attend_row_by_row(model)
    torch.testing.assert_close(model(**batch(30, 21, 40), use_cache=False).logits, before)


def test_a_model_that_asks_for_an_implementation_by_name_is_left_alone() -> None:
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 64, "vocab_size": 128}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **shape))
    assert not attend_row_by_row(model)
    assert model.config._attn_implementation == "sdpa"
