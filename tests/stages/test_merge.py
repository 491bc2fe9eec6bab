"""What the plan promises of a merge is what it ends in, whatever the base model's files are like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from loracook import model
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
    base_folder = recipe.root / recipe["base_model"]["name_or_path"]
    tokenizer = model.load_tokenizer(recipe, base_folder)
    base = model.load_model(recipe, base_folder)
    added = model.fit_embeddings(base, len(tokenizer))
    tuned = get_peft_model(
        base, LoraConfig(**{**model.lora_config(recipe).to_dict(), "init_lora_weights": False})
    )
    tuned.save_pretrained(folder / "adapter", save_embedding_layers=added > 0)
    tokenizer.save_pretrained(folder / "adapter")
    return folder


def merged(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What the merge stage returns, done below `folder`."""
    train = adapter_for(recipe, folder / "train")
    (folder / "merge").mkdir()
    folders = Folders(folder / "merge", {"train": train}, folder, folder / "cache")
    return merge.run(recipe, folders, consent=Consent(), progress=Silent())


def planned(recipe: Recipe) -> tuple[str, ...]:
    """The notes of the plan, which tries everything that the merge stage writes and loads."""
    folder = recipe.root / recipe["base_model"]["name_or_path"]
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
    assert [note for note in notes if "leaves out" in note] == [note for note in notes if left_out]
    assert any("merge dequantizes" in note for note in notes) == (files == "four-bit")
    assert result["logits_difference"] < EXACT
    assert (result["logits_difference_from_trained"] or 0) < EXACT
    assert sorted(path.name for path in (tmp_path / "merge").iterdir()) == ["model"]
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "merge/model")
    assert saved.config.to_dict().get("quantization_config") is None
    rows = saved.get_input_embeddings().weight.shape[0]
    assert rows == len(AutoTokenizer.from_pretrained(tmp_path / "merge/model"))
