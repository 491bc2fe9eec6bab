"""Joined rows are packed only for models that keep them apart, which is tried on the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from loracook.errors import RecipeError
from loracook.model.packing_isolation import isolates_packed_sequences
from loracook.recipe.recipe import Recipe
from loracook.training.trainer import check_packing

LLAMA = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
APART: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "qwen2": LLAMA | {"num_key_value_heads": 2},
    "gpt2": {"n_layer": 2, "n_head": 4},
    "gpt_neox": LLAMA,
    "mixtral": LLAMA | {"num_key_value_heads": 2, "num_local_experts": 4},
}
JOINED: dict[str, dict[str, Any]] = {
    "opt": {"ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 32},
    "falcon": {"num_hidden_layers": 2, "num_attention_heads": 4},
    "bloom": {"n_layer": 2, "n_head": 4},
    "mamba": {"num_hidden_layers": 2, "state_size": 4},
    "lfm2": LLAMA | {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
}


def small(kind: str, shape: dict[str, Any]) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, vocab_size=128, hidden_size=32, **shape)
    )


@pytest.mark.parametrize("kind", APART)
def test_models_that_mind_positions_keep_rows_apart(kind: str) -> None:
    model = small(kind, APART[kind]).train()
    assert isolates_packed_sequences(model)
    assert isolates_packed_sequences(model, torch.bfloat16)
    assert model.training


def test_a_model_that_fails_is_left_as_it_was() -> None:
    model = small("llama", LLAMA).train()
    model.base_model.norm = torch.nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        isolates_packed_sequences(model)
    assert model.training


@pytest.mark.parametrize("kind", JOINED)
def test_packing_is_refused_where_rows_would_see_one_another(kind: str) -> None:
    model = small(kind, JOINED[kind])
    check_packing(model, recipe(packing=False))
    check_packing(model, recipe(packing=True, packing_strategy="wrapped"))
    with pytest.raises(RecipeError, match=r"train\.packing: packed sequences attend to each other"):
        check_packing(model, recipe(packing=True))
    with pytest.raises(RecipeError, match="write padding_free: false"):
        check_packing(model, recipe(padding_free=True))


def recipe(**train: Any) -> Recipe:
    return Recipe(Path("recipe.yaml"), {"train": train}, ())
