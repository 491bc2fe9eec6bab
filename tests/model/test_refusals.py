"""What a recipe asks of its model that the model cannot do is said before weights are fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from loracook.errors import RecipeError
from loracook.model.router_loss import router_loss_problems
from loracook.model.unsupported import check_prompts, check_rows
from loracook.recipe.recipe import Recipe
from tests.plans import invoked, plan, written

SMALL: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    "gpt2": {"n_layer": 2, "n_head": 4},
    "opt": {"ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 32},
    "gptj": {"n_layer": 2, "n_head": 4, "rotary_dim": 4},
    "bloom": {"n_layer": 2, "n_head": 4},
    "ctrl": {"n_layer": 2, "n_head": 4, "dff": 64},
    "mamba": {"num_hidden_layers": 2, "state_size": 4},
    "phimoe": {
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_local_experts": 4,
    },
    "git": {
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vision_config": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4},
    },
    "doge": {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    "granitemoe": {
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_local_experts": 4,
    },
    "mixtral": {
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_local_experts": 4,
    },
    "jetmoe": {"intermediate_size": 64, "num_hidden_layers": 2, "num_key_value_heads": 2, "kv_channels": 8},
}


def config(kind: str, **changed: Any) -> PretrainedConfig:
    """A small config of a kind."""
    return AutoConfig.for_model(kind, **{"vocab_size": 128, "hidden_size": 32, **SMALL[kind], **changed})


def recipe_on(folder: Path, kind: str, lora: dict[str, Any], **sections: Any) -> Path:
    """A recipe on a small model of a kind, of which there is a config alone."""
    config(kind, **sections.pop("config", {})).save_pretrained(folder / "model")
    train = {"max_steps": 10, **sections.pop("train", {})}
    return written(folder, base_model={"name_or_path": "./model"}, lora=lora, train=train, **sections)


@pytest.mark.parametrize(
    ("kind", "lora", "sections", "said"),
    [
        (
            "llama",
            {"target_modules": ["self_attn"]},
            {},
            "lora.target_modules.0: 'self_attn' is not a module that LoRA can adapt; "
            "write one of down_proj, embed_tokens, gate_proj, k_proj",
        ),
        (
            "llama",
            {"target_modules": ["q_proj"], "layers_to_transform": [99]},
            {},
            "lora: PEFT rejects this adapter: ",
        ),
        (
            "llama",
            {"target_modules": ["q_proj"], "exclude_modules": ["self_attn.q_proj"]},
            {},
            "lora: PEFT rejects this adapter: ",
        ),
        (
            "llama",
            {"target_modules": ["q_proj", "embed_tokens"]},
            {"merge": {}, "config": {"tie_word_embeddings": True}},
            "lora.target_modules: merging would change the output head too",
        ),
        (
            "llama",
            {"target_modules": ["q_proj"], "lora_bias": True},
            {"merge": {}},
            "lora.lora_bias: cannot be merged",
        ),
        (
            "ctrl",
            {"target_modules": "all-linear"},
            {"train": {"activation_checkpointing": True}},
            "train.activation_checkpointing: 'ctrl' models do not support it",
        ),
        (
            "git",
            {"target_modules": "all-linear"},
            {},
            "train.activation_checkpointing: the code of 'git' models fails with it; write false",
        ),
        (
            "doge",
            {"target_modules": "all-linear"},
            {},
            "train.router_aux_loss_coef: TRL cannot compute a load-balancing loss for this 'doge' model",
        ),
        (
            "granitemoe",
            {"target_modules": "all-linear"},
            {},
            "train.router_aux_loss_coef: TRL cannot compute a load-balancing loss for this 'granitemoe' model",
        ),
        (
            "llama",
            {"target_modules": "all-linear"},
            {"train": {"router_aux_loss_coef": 0.1}},
            "train.router_aux_loss_coef: TRL cannot compute a load-balancing loss for this 'llama' model",
        ),
        (
            "llama",
            {"target_modules": ["q_proj"], "trainable_token_indices": [1, 2]},
            {"config": {"tie_word_embeddings": True}},
            "lora.trainable_token_indices: TRL cannot train single tokens",
        ),
        (
            "phimoe",
            {"target_modules": ["q_proj", "router"]},
            {},
            "lora.target_modules.1: 'router' is not a module that LoRA can adapt",
        ),
        (
            "mamba",
            {"r": 8},
            {},
            "lora: PEFT has no default target_modules for 'mamba' models; write target_modules: all-linear, "
            "or some of: dt_proj, embeddings",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT warns of what is refused here
def test_what_a_model_cannot_do_is_refused(
    tmp_path: Path, kind: str, lora: dict[str, Any], sections: dict[str, Any], said: str
) -> None:
    result = invoked(recipe_on(tmp_path, kind, lora, **sections))
    assert said in str(result.exception)


@pytest.mark.parametrize(
    ("kind", "train"),
    [
        ("git", {"activation_checkpointing": False}),
        ("doge", {"router_aux_loss_coef": 0.0}),
    ],
)
def test_what_the_refusals_say_to_write_is_planned(tmp_path: Path, kind: str, train: dict[str, Any]) -> None:
    planned = plan(recipe_on(tmp_path, kind, {"target_modules": "all-linear"}, train=train))
    assert planned["model"]["trainable_parameters"] > 0


@pytest.mark.parametrize("train", [{}, {"router_aux_loss_coef": 0.1}])
def test_a_load_balancing_loss_that_trl_computes_is_no_problem(train: dict[str, Any]) -> None:
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config("mixtral"))
    assert list(router_loss_problems(base, Recipe(Path("recipe.yaml"), {"train": train}, ()))) == []


@pytest.mark.parametrize("kind", ["gpt2", "opt", "gptj"])
def test_rows_beyond_a_table_of_positions_are_refused(kind: str) -> None:
    recipe = Recipe(Path("recipe.yaml"), {"train": {"max_length": 512}}, ())
    base = AutoModelForCausalLM.from_config(config(kind, max_position_embeddings=64))
    check_rows(base, recipe, 64)
    with pytest.raises(RecipeError, match=r"65 tokens.* 64 positions"):
        check_rows(base, recipe, 65)


def test_computed_positions_have_no_end() -> None:
    base = AutoModelForCausalLM.from_config(config("llama", max_position_embeddings=64))
    check_rows(base, Recipe(Path("recipe.yaml"), {}, ()), 10_000)


def test_prompts_and_answers_beyond_learned_positions_are_refused() -> None:
    recipe = Recipe(Path("recipe.yaml"), {"evaluate": {"generation": {"max_new_tokens": 24}}}, ())
    base = AutoModelForCausalLM.from_config(config("gpt2", max_position_embeddings=64))
    check_prompts(base, recipe, 40)
    with pytest.raises(RecipeError, match=r"a prompt has 41 tokens .* write 23 or less"):
        check_prompts(base, recipe, 41)


@pytest.mark.parametrize("kind", ["opt", "llama"])
def test_answers_beyond_the_positions_are_refused_by_plan(tmp_path: Path, kind: str) -> None:
    asked = {"prompts": ["Soup?"], "generation": {"max_new_tokens": 400}}
    lora, few = {"target_modules": "all-linear"}, {"max_position_embeddings": 256}
    refused = invoked(recipe_on(tmp_path, kind, lora, config=few, evaluate=asked))
    assert "evaluate.generation.max_new_tokens: this model has 256 positions" in str(refused.exception)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "bloom"])
@pytest.mark.parametrize("train", [{}, {"per_device_train_batch_size": 4}, {"packing": True}])
def test_the_memory_of_a_kind_of_model_is_foreseen(tmp_path: Path, kind: str, train: dict[str, Any]) -> None:
    lora = {"target_modules": "all-linear", "fan_in_fan_out": kind == "gpt2"}
    planned = plan(recipe_on(tmp_path, kind, lora, train=train))
    assert planned["memory"]["peak_bytes"] > 0


def test_code_that_needs_real_weights_leaves_the_memory_alone_unknown(tmp_path: Path) -> None:
    recipe = recipe_on(
        tmp_path, "jetmoe", {"target_modules": "all-linear"}, train={"activation_checkpointing": False}
    )
    planned = plan(recipe)
    assert planned["memory"] is None
    assert planned["model"]["trainable_parameters"] > 0
    assert planned["disk"]["total_bytes"] > 0
    [said] = [text for text in planned["unknown"] if text.startswith("memory: ")]
    assert said.startswith("memory: this model's code does not run without weights (")
    assert said.endswith("); add --probe to measure")
    text = invoked(recipe).stdout
    assert "memory    unknown" in text
    assert invoked(recipe, recipe).exit_code == 0
