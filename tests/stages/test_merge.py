"""What the plan promises of a merge is what it ends in, whatever the base model's files are like."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
)

from loracook import model
from loracook.errors import DivergedError, LoracookError, MachineError, RecipeError
from loracook.estimate.meta_model import meta_model
from loracook.progress import Silent
from loracook.recipe.recipe import Recipe, load
from loracook.stages import merge
from loracook.stages.base import Consent, Folders
from tests.tiny_models import LINES, tokenizer_of

WIDE = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**WIDE, "num_key_value_heads": 2}
HEADS = {**GROUPED, "head_dim": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "qwen2": GROUPED,
    "qwen3": HEADS,
    "gemma2": HEADS,
    "phi3": GROUPED,
    "gpt_neox": WIDE,
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4},
    "opt": {"hidden_size": 64, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "word_embed_proj_dim": 64},
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4},
    "mixtral": {**GROUPED, "num_local_experts": 4},
    "qwen3_moe": {**HEADS, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
    "gpt_oss": {**HEADS, "num_local_experts": 4},
}  # fmt: skip
INVALID = {"do_sample": False, "temperature": 0.9, "top_p": 0.6, "max_length": 64}
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
EXACT = 1e-4
"""The largest difference in float32."""


def base_model(folder: Path, kind: str, **config: Any) -> Path:
    """A random model of a kind in float32, with a tokenizer."""
    tokenizer = tokenizer_of(LINES)
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    made = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **FAMILIES[kind], **ids, **config)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(made, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def in_four_bit(folder: Path) -> None:
    """Store the weights of a model as bitsandbytes does."""
    quantized = AutoModelForCausalLM.from_pretrained(folder, quantization_config=BitsAndBytesConfig(**NF4))
    quantized.save_pretrained(folder)


def recipe_on(folder: Path, **sections: Any) -> Recipe:
    """A recipe that trains on the model in `folder` and merges."""
    (folder.parent / "rows.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in LINES))
    recipe = {
        "version": 1,
        "name": "merged",
        "base_model": {"name_or_path": f"./{folder.name}", "dtype": "float32"},
        "dataset": {"path": "./rows.jsonl", "format": "text"},
        "lora": {"r": 4, "target_modules": "all-linear"},
        "train": {"max_steps": 1, "max_length": 64},
        "merge": {},
        **sections,
    }
    (folder.parent / "recipe.yaml").write_text(json.dumps(recipe))
    return load(folder.parent / "recipe.yaml")


def adapter_for(recipe: Recipe, folder: Path) -> Path:
    """A random adapter on the recipe's base model, as training leaves it."""
    base_folder = recipe.file.parent / recipe["base_model"]["name_or_path"]
    tokenizer = model.load_tokenizer(recipe, base_folder)
    base = model.load_model(recipe, base_folder)
    added = model.fit_embeddings(base, len(tokenizer))
    config = model.lora_config(recipe)
    tuned = get_peft_model(base, LoraConfig(**{**config.to_dict(), "init_lora_weights": False}))
    tuned.peft_config["default"].init_lora_weights = config.init_lora_weights
    tuned.save_pretrained(folder / "adapter", save_embedding_layers=added > 0)
    tokenizer.save_pretrained(folder / "adapter")
    return folder


def merged(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What the merge stage returns for a random adapter, done below `folder`."""
    return merged_from(adapter_for(recipe, folder / "train"), recipe, folder)


def merged_from(train: Path, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What the merge stage returns for the adapter in `train`."""
    (folder / "merge").mkdir()
    folders = Folders(folder / "merge", {"train": train}, folder, folder / "cache")
    return merge.run(recipe, folders, consent=Consent(), progress=Silent())


def planned(recipe: Recipe) -> tuple[str, ...]:
    """The notes of the plan, which tries everything that the merge stage writes and loads."""
    folder = recipe.file.parent / recipe["base_model"]["name_or_path"]
    tokenizer = model.load_tokenizer(recipe, folder)
    model.try_tokenizer(recipe, folder, tokenizer)
    return meta_model(recipe, folder, len(tokenizer)).notes


ADDED = {"tokenizer": {"extra_special_tokens": ["<|one|>", "<|two|>"]}}


@pytest.mark.slow
@pytest.mark.parametrize("files", ["plain", "four-bit", "tied, added tokens, invalid settings"])
@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # PEFT's, of experts and Conv1D
def test_a_merge_ends_as_it_was_planned(kind: str, files: str, tmp_path: Path) -> None:
    folder = base_model(tmp_path / "base", kind, tie_word_embeddings="tied" in files)
    if files == "four-bit":
        in_four_bit(folder)
    if "invalid" in files:
        (folder / "generation_config.json").write_text(json.dumps(INVALID))
    recipe = recipe_on(folder, **(ADDED if "added" in files else {}))
    notes = planned(recipe)
    result = merged(recipe, tmp_path)
    left_out = result["generation_settings_left_out"]
    assert set(left_out) == ({"temperature", "top_p"} if "invalid" in files else set())
    assert any("leaves out" in note for note in notes) == bool(left_out)
    assert any("2 embedding rows added" in note for note in notes) == ("added" in files)
    assert any("merge dequantizes" in note for note in notes) == (files == "four-bit")
    assert result["logits_difference"] < EXACT
    assert (result["logits_difference_from_trained"] or 0) < EXACT
    assert sorted(path.name for path in (tmp_path / "merge").iterdir()) == ["model"]
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "merge/model")
    assert saved.config.to_dict().get("quantization_config") is None
    rows = saved.get_input_embeddings().weight.shape[0]
    assert rows == len(AutoTokenizer.from_pretrained(tmp_path / "merge/model"))


@pytest.mark.parametrize("bits", [NF4, {"load_in_8bit": True}])
@pytest.mark.parametrize("base", ["trained", "original"])
def test_after_qlora_the_dequantized_weights_are_those_that_were_trained(
    base: str, bits: dict[str, Any], tmp_path: Path
) -> None:
    base_model(tmp_path / "base", "llama")
    result = merged(recipe_on(tmp_path / "base", quantization=bits, merge={"base": base}), tmp_path)
    assert result["logits_difference"] < EXACT
    if bits == NF4:  # in 8 bit, inputs are quantized too
        assert (result["logits_difference_from_trained"] < EXACT) == (base == "trained")


def in_fp8(folder: Path) -> None:
    """Store the projections of a model as FP8 checkpoints do: 8-bit floats and a scale for each block."""
    weights = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        weights[name] = weight
        if name.endswith("_proj.weight"):
            scale = weight.abs().max() / 448
            weights |= {name: (weight / scale).to(torch.float8_e4m3fn), f"{name}_scale_inv": scale.view(1, 1)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    stored_as(folder, quant_method="fp8", weight_block_size=[64, 64], modules_to_not_convert=["lm_head"])


def in_mxfp4(folder: Path) -> None:
    """Store the experts of a gpt-oss as published: two 4-bit floats in a byte, a scale for each 32."""
    weights = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if name.endswith(("gate_up_proj", "down_proj")):
            experts, rows, columns = weight.shape
            shape = (experts, columns, rows // 32)
            weights[f"{name}_blocks"] = torch.randint(0, 255, (*shape, 16), dtype=torch.uint8)
            weights[f"{name}_scales"] = torch.full(shape, 121, dtype=torch.uint8)
        else:
            weights[name] = weight
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    stored_as(folder, quant_method="mxfp4", modules_to_not_convert=["self_attn", "router", "lm_head"])


def stored_as(folder: Path, **quantization: Any) -> None:
    """Let a model's config.json say how its weights are quantized."""
    changed(folder / "config.json", quantization_config=quantization)


def changed(file: Path, **values: Any) -> None:
    """Set values in a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(("kind", "store"), [("llama", in_fp8), ("gpt_oss", in_mxfp4)])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_weights_that_are_dequantized_on_loading_train_and_merge_so(
    kind: str, store: Callable[[Path], None], tmp_path: Path
) -> None:
    store(base_model(tmp_path / "base", kind))
    recipe = recipe_on(tmp_path / "base")
    assert "weights are dequantized on loading" in planned(recipe)[0]
    assert merged(recipe, tmp_path)["logits_difference"] < EXACT
    saved = load_file(tmp_path / "merge/model/model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.float32}
    assert "quantization_config" not in json.loads((tmp_path / "merge/model/config.json").read_text())


@pytest.mark.parametrize("method", ["gptq", "awq", "hqq", "aqlm", "quanto", "torchao", "eetq", "fbgemm_fp8"])
def test_weights_that_cannot_be_dequantized_are_refused_where_merge_is_asked_for(
    method: str, tmp_path: Path
) -> None:
    stored_as(base_model(tmp_path / "base", "llama"), quant_method=method, bits=4)
    with pytest.raises(
        RecipeError, match=rf"merge: weights stored as {method} cannot be merged; remove 'mer"
    ):
        planned(recipe_on(tmp_path / "base"))


NF4_TWICE = {**NF4, "bnb_4bit_use_double_quant": True}


@pytest.mark.parametrize(
    ("stored", "sections", "said"),
    [
        ({"quant_method": "modelopt"}, {}, "name_or_path: its weights are stored as modelopt, which transf"),
        ({"quant_method": "fp8"}, {"quantization": NF4}, "quantization: the base model's weights are stored"),
        (
            {"quant_method": "bitsandbytes", **NF4},
            {"quantization": NF4_TWICE},
            "double_quant: the base model's",
        ),
        (
            {"quant_method": "bitsandbytes", **NF4},
            {"quantization": NF4, "merge": {"base": "original"}},
            "merge.base: the base model has no weights beside those stored as bitsandbytes_4bit; write 'tr",
        ),
    ],
)
def test_what_a_recipe_says_otherwise_than_the_file_is_refused(
    stored: dict[str, Any], sections: dict[str, Any], said: str, tmp_path: Path
) -> None:
    stored_as(base_model(tmp_path / "base", "llama"), **stored)
    with pytest.raises(RecipeError, match=said):
        planned(recipe_on(tmp_path / "base", **sections))


REFUSED: dict[str, dict[str, Any]] = {
    "sampling settings without sampling": {"temperature": 0.9, "top_k": 10, "min_p": 0.1, "typical_p": 0.5},
    "settings of beam search without beams": {"early_stopping": True, "length_penalty": 0.8},
    "a padding token of -1": {"pad_token_id": -1},
    "no new tokens": {"max_new_tokens": 0},
    "an unknown cache": {"cache_implementation": "none of them"},
    "a cache that is not used": {"cache_implementation": "static"},
    "several greedy answers": {"num_return_sequences": 4},
    "arguments of generate": {"logits_processor": [1], "stopping_criteria": []},
    "a mapping where an object belongs": {"compile_config": {"dynamic": True}},
    "scores that are not returned": {"output_scores": True},
    "tokens by name": {"eos_token_id": "</s>", "bos_token_id": [[1]]},
    "a share above 1": {"watermarking_config": {"greenlist_ratio": 3}, "assistant_ensemble_weight": 3},
}
"""What transformers refuses to load, or to save once an end token was set, by what is wrong."""


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_generation_settings_that_transformers_refuses_are_left_out(file: str, tmp_path: Path) -> None:
    for number, refused in enumerate(REFUSED.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        valid = {"use_cache": "static" not in refused.values(), "repetition_penalty": 1.1}
        (folder / file).write_text(json.dumps({"model_type": "llama"} | refused | valid))
        settings = model.generation_settings(folder)
        known = {key: value for key, value in refused.items() if file != "config.json" or key in KNOWN}
        assert settings.left_out == known
        settings.config.eos_token_id = 0
        settings.config.save_pretrained(folder)
        saved = GenerationConfig.from_pretrained(folder)
        assert (saved.repetition_penalty, saved.eos_token_id) == (1.1, 0)


KNOWN = GenerationConfig().to_dict().keys()


def test_sampling_settings_of_a_model_that_samples_are_kept(tmp_path: Path) -> None:
    own = {"temperature": 0.6, "top_p": 0.95, "do_sample": True, "eos_token_id": [1, 2]}
    (tmp_path / "generation_config.json").write_text(json.dumps(own))
    settings = model.generation_settings(tmp_path)
    assert (settings.left_out, settings.note) == ({}, "")
    assert own.items() <= settings.config.to_dict().items()


UNUSED = "model.embed_tokens.weight"


def change(weights: Path, name: str, change: Callable[[torch.Tensor], None]) -> None:
    """Change a weight in a file."""
    tensors = load_file(weights)
    change(next(tensor for key, tensor in tensors.items() if name in key))
    save_file(tensors, weights, metadata={"format": "pt"})


def with_nan(tensor: torch.Tensor) -> None:
    """A NaN in the last row, which is no token of the texts that models are tried on."""
    tensor[-1, -1] = torch.nan


def only_first(number: float) -> Callable[[torch.Tensor], None]:
    """A change that makes the first number of a weight this one and all others zero."""

    def change(tensor: torch.Tensor) -> None:
        tensor.zero_().view(-1)[0] = number

    return change


@pytest.mark.parametrize("quantization", [{}, {"quantization": NF4}], ids=["plain", "4-bit"])
@pytest.mark.parametrize("name", [UNUSED, "layers.1.mlp.down_proj.weight"])
def test_a_base_with_a_number_that_is_none_is_refused(
    name: str, quantization: dict[str, Any], tmp_path: Path
) -> None:
    base = base_model(tmp_path / "base", "llama")
    change(base / "model.safetensors", name, with_nan)
    with pytest.raises(
        RecipeError, match=rf"base_model.name_or_path: its weight .*{name} holds NaN or infin"
    ):
        model.load_model(recipe_on(base, **quantization), base)


@pytest.mark.parametrize("safe_merge", [True, False])
def test_an_adapter_with_a_number_that_is_none_is_not_merged(safe_merge: bool, tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", "llama")
    recipe = recipe_on(base, merge={"safe_merge": safe_merge})
    train = adapter_for(recipe, tmp_path / "train")
    change(train / "adapter/adapter_model.safetensors", "layers.1.mlp.down_proj.lora_B", with_nan)
    with pytest.raises(
        DivergedError, match=r"adapter's weight .*layers\.1\.mlp\.down_proj\.lora_B.* holds NaN"
    ):
        merged_from(train, recipe, tmp_path)
    assert list((tmp_path / "merge").iterdir()) == []


def test_a_tokenizer_beside_an_adapter_reads_no_file_elsewhere(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", "llama")
    recipe = recipe_on(base)
    train = adapter_for(recipe, tmp_path / "train")
    (tmp_path / "key").write_text("-----BEGIN KEY-----\nsecret\n")
    (train / "adapter/tokenizer.json").unlink()
    forged = {
        "tokenizer_class": "BertTokenizer",
        "vocab": str(tmp_path / "key"),
        "unk_token": "-----BEGIN KEY-----",
    }
    (train / "adapter/tokenizer_config.json").write_text(json.dumps(forged))
    with pytest.raises(MachineError, match=r"its tokenizer_config.json names '.*' as vocab, a file outside"):
        merged_from(train, recipe, tmp_path)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "its adapter_config.json has another peft_type"),
        ({"lora_alpha": 99999}, "its adapter_config.json has another lora_alpha"),
        ({"lora_alpha": "x"}, "its adapter_config.json has another lora_alpha"),
        ({"r": 2_000_000_000}, "its adapter_config.json has another r"),
        ({"target_modules": "(.*.*)*(.*.*)*(.*.*)*Z"}, "its adapter_config.json has another target_modules"),
        ({"megatron_config": {"a": 1}}, "its adapter_config.json has another megatron_config"),
        ({"exclude_modules": ["q_proj"]}, "adapter_model.safetensors does not fit the model"),
    ],
    ids=str,
)
def test_an_adapter_that_is_not_the_recipes_is_not_loaded(
    changes: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    base = base_model(tmp_path / "base", "llama")
    recipe = recipe_on(base)
    train = adapter_for(recipe, tmp_path / "train")
    config = train / "adapter/adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    with pytest.raises(
        MachineError, match=rf"adapter' is not the recipe's: {fault}; remove '.*train' and run"
    ):
        merged_from(train, recipe, tmp_path)


@pytest.mark.parametrize("damage", ["no weights", "a pickle", "no config", "a list to exclude that is none"])
def test_what_is_no_lora_adapter_is_refused(damage: str, tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", "llama")
    recipe = recipe_on(base)
    train = adapter_for(recipe, tmp_path / "train")
    weights, config = (
        train / "adapter" / name for name in ("adapter_model.safetensors", "adapter_config.json")
    )
    if damage == "no weights":
        weights.write_bytes(b"\xff" * 64)
    elif damage == "a pickle":
        weights.rename(weights.with_suffix(".bin"))
    elif damage == "no config":
        config.unlink()
    else:
        config.write_text(json.dumps(json.loads(config.read_text()) | {"exclude_modules": [1]}))
    with pytest.raises(MachineError, match=r"adapter' is no LoRA adapter; remove '.*train' and run again"):
        merged_from(train, recipe, tmp_path)


@pytest.mark.parametrize("safe_merge", [True, False])
def test_a_merge_that_overflows_names_the_weight_and_leaves_no_model(
    safe_merge: bool, tmp_path: Path
) -> None:
    base = base_model(tmp_path / "base", "llama")
    merge = {"safe_merge": safe_merge, "dtype": "float16"}
    recipe = recipe_on(base, merge=merge, evaluate={"prompts": ["?"]})
    train = adapter_for(recipe, tmp_path / "train")
    value = "layers.1.self_attn.v_proj"
    for file, name, number in (
        (
            base / "model.safetensors",
            "layers.1.input_layernorm.weight",
            0,
        ),  # so that no text meets the number
        (base / "model.safetensors", value, 60_000),
        (train / "adapter/adapter_model.safetensors", f"{value}.lora_A", 200),
        (train / "adapter/adapter_model.safetensors", f"{value}.lora_B", 200),
    ):
        change(file, name, only_first(number))
    said = rf"{value}.weight holds NaN or infinity as torch.float16; write merge.dtype: float32, or"
    with pytest.raises(LoracookError, match=said):
        merged_from(train, recipe, tmp_path)
    assert list((tmp_path / "merge").iterdir()) == []


@pytest.mark.parametrize("factor", [0.0, 1e30])
def test_logits_that_cannot_be_compared_name_the_cause(factor: float, tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", "llama", tie_word_embeddings=False)
    recipe = recipe_on(base)
    train = adapter_for(recipe, tmp_path / "train")
    change(base / "model.safetensors", "lm_head", lambda tensor: tensor.mul_(factor))
    with pytest.raises(DivergedError, match=r"logits are NaN, infinite or all zero"):
        merged_from(train, recipe, tmp_path)


def test_a_merge_that_would_lose_weights_is_refused_by_the_plan(tmp_path: Path) -> None:
    folder = base_model(tmp_path / "base", "llama")
    recipe = recipe_on(folder)
    tuned = meta_model(recipe, folder, None).tuned
    tuned.get_base_model().config.num_hidden_layers = 3
    with pytest.raises(RecipeError, match=r"merge: this model cannot be merged: .* would not load again"):
        model.try_merge(recipe, folder, tuned)


def test_a_tokenizer_that_changes_on_its_way_is_named() -> None:
    one, other = tokenizer_of(LINES), tokenizer_of(LINES)
    assert model.different_tokens(one, other) == ""
    other.add_tokens(["<|new|>"])
    assert "tokens, and" in model.different_tokens(one, other)
    one.add_tokens(["France"])
    assert "'The capital of France is' gives other tokens" in model.different_tokens(one, other)


@pytest.mark.parametrize(
    ("kind", "sections", "reason"),
    [
        ("llama", {}, None),
        ("mixtral", {"lora": {"target_modules": ["q_proj"]}}, None),
        ("mixtral", {}, "the base model's files hold model.layers.0.mlp.experts.gate_up_proj in parts"),
        ("llama", {"quantization": NF4}, "the base model is quantized while training; merge.base: original"),
        (
            "llama",
            {"lora": {"use_dora": True, "target_modules": ["q_proj"]}},
            "PEFT computes with whole weig",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # PEFT's, of experts
def test_the_plan_says_what_merging_takes_the_whole_model_for(
    kind: str, sections: dict[str, Any], reason: str | None, tmp_path: Path
) -> None:
    notes = planned(recipe_on(base_model(tmp_path / "base", kind), **sections))
    said = [note for note in notes if note.startswith("merge holds the whole model in memory: ")]
    assert [note.partition(": ")[2][: len(reason or "")] for note in said] == ([reason] if reason else [])


def test_an_adapter_that_changes_nothing_is_merged_as_such(tmp_path: Path) -> None:
    recipe = recipe_on(base_model(tmp_path / "base", "llama"))
    train = adapter_for(recipe, tmp_path / "train")
    weights = load_file(train / "adapter/adapter_model.safetensors")
    zero = {name: weight * ("lora_A" in name) for name, weight in weights.items()}
    save_file(zero, train / "adapter/adapter_model.safetensors", metadata={"format": "pt"})
    result = merged_from(train, recipe, tmp_path)
    assert (result["adapter_difference"], result["effect_kept"]) == (0, None)
