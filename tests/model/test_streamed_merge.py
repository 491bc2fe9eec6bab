"""A merge weight by weight gives the files of PEFT's merge of the whole model, or says why it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from loracook import model
from loracook.errors import LoracookError
from loracook.model.base_weights import open_weights
from tests.stages.test_merge import ADDED, NF4, adapter_for, base_model, change, recipe_on

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::RuntimeWarning"
)  # PEFT's, of experts, Conv1D

SAVED = {"lora": {"r": 4, "target_modules": "all-linear", "modules_to_save": ["embed_tokens", "lm_head"]}}
EXPERTS = {"lora": {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
                    "target_modules": ["q_proj"]}}  # fmt: skip


def lora(**settings: Any) -> dict[str, Any]:
    """Sections of a recipe with these settings of LoRA."""
    return {"lora": {"r": 4, "target_modules": "all-linear", **settings}}


STREAMED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("llama", {}, {}),
    ("llama", {}, lora(use_rslora=True)),
    ("llama", {}, lora(use_dora=True)),
    ("llama", {}, lora(rank_pattern={"o_proj": 2}, alpha_pattern={"q_proj": 3})),
    ("llama", {}, lora(init_lora_weights="orthogonal")),
    ("llama", {}, SAVED),
    ("llama", {"tie_word_embeddings": True}, SAVED),
    ("llama", {}, lora(target_modules=["embed_tokens", "q_proj"])),
    ("llama", {}, ADDED),
    ("llama", {"tie_word_embeddings": True}, ADDED),
    ("gpt2", {}, {}),
    ("gpt2", {}, lora(lora_bias=True)),
    ("gpt2", {"tie_word_embeddings": True}, ADDED),
    ("gpt_neox", {}, lora(lora_bias=True)),
    ("gpt_neox", {}, lora(modules_to_save=["lm_head"])),
    ("phi3", {}, lora(use_dora=True)),
    ("gemma2", {"tie_word_embeddings": True}, {}),
    ("gemma2", {"tie_word_embeddings": True}, lora(trainable_token_indices=[1, 5])),
    ("mixtral", {}, lora(target_modules=["q_proj", "v_proj"])),
    ("gpt_oss", {}, EXPERTS),
]


@pytest.mark.parametrize(("kind", "config", "sections"), STREAMED, ids=str)
def test_it_gives_what_peft_gives(
    kind: str, config: dict[str, Any], sections: dict[str, Any], tmp_path: Path
) -> None:
    check_against_peft(base_model(tmp_path / "base", kind, **config), sections, dtype="float32")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("sections", [{}, ADDED, SAVED, lora(use_dora=True)], ids=str)
def test_it_rounds_as_peft_does(kind: str, sections: dict[str, Any], tmp_path: Path) -> None:
    saved = {"lora": {**SAVED["lora"], "modules_to_save": ["wte", "lm_head"]}} if kind == "gpt2" else SAVED
    folder = base_model(tmp_path / "base", kind)
    check_against_peft(folder, saved if sections is SAVED else sections, dtype="bfloat16")


def check_against_peft(folder: Path, sections: dict[str, Any], *, dtype: str) -> None:
    """Merge a random adapter both ways, and compare every weight bit for bit, and the settings."""
    tmp_path = folder.parent
    recipe = recipe_on(folder, **sections)
    adapter = adapter_for(recipe, tmp_path / "train") / "adapter"
    whole = model.load_tuned(recipe, model.load_to_merge(recipe, folder, dtype), adapter).merge_and_unload()
    whole.save_pretrained(tmp_path / "whole")
    merge = model.streamed_merge(recipe, folder, adapter, dtype=dtype)
    merge.save(tmp_path / "streamed", max_shard_size="20KB")
    loaded = [
        AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype="auto") for name in ("whole", "streamed")
    ]
    expected, actual = (each.state_dict() for each in loaded)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    assert all(expected[name].dtype == actual[name].dtype for name in expected)
    for name in ("config.json", "generation_config.json"):
        ours, theirs = (json.loads((tmp_path / way / name).read_text()) for way in ("streamed", "whole"))
        assert ours == theirs
    assert len(list((tmp_path / "streamed").glob("*.safetensors"))) > 1


WHOLE: list[tuple[str, dict[str, Any], str]] = [
    ("mixtral", {"lora": {"target_modules": "all-linear"}}, "hold .*gate_up_proj in parts"),
    ("llama", {"quantization": NF4}, "quantized while training; merge.base: original takes less memory"),
    ("llama", lora(init_lora_weights="mica"), "mica computes with whole weights"),
]


@pytest.mark.parametrize(("kind", "sections", "reason"), WHOLE, ids=str)
def test_what_takes_the_whole_model_says_why(
    kind: str, sections: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    folder = base_model(tmp_path / "base", kind)
    recipe = recipe_on(folder, **sections)
    adapter = (
        adapter_for(recipe_on(folder, lora=sections.get("lora", {"r": 8})), tmp_path / "train") / "adapter"
    )
    with pytest.raises(model.NotStreamedError, match=reason):
        model.streamed_merge(recipe, folder, adapter, dtype="float32")


def test_weights_that_come_from_another_file_are_taken_from_it(tmp_path: Path) -> None:
    folder = base_model(tmp_path / "base", "gpt2")
    weights = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    weights.save_pretrained(folder, max_shard_size="30KB")
    recipe, expected = recipe_on(folder), None
    adapter = adapter_for(recipe, tmp_path / "train") / "adapter"
    for size in ("10GB", "15KB"):
        model.streamed_merge(recipe, folder, adapter, dtype="float32").save(tmp_path / size, size)
        saved = [load_file(file) for file in (tmp_path / size).glob("*.safetensors")]
        merged = {name: weight for part in saved for name, weight in part.items()}
        expected = expected or merged
        assert merged.keys() == expected.keys()
        assert all(torch.equal(weight, expected[name]) for name, weight in merged.items())


@pytest.mark.parametrize("shard", ["10GB", "30KB"])
def test_files_that_transformers_does_not_load_are_left_alone(shard: str, tmp_path: Path) -> None:
    folder = base_model(tmp_path / "base", "llama")
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    loaded.save_pretrained(folder, max_shard_size=shard)
    other = {name: weight + 1 for name, weight in loaded.state_dict().items()}
    save_file(other, folder / "z.safetensors", metadata={"format": "pt"})
    check_against_peft(folder, {}, dtype="float32")


def test_a_weight_that_overflows_is_named(tmp_path: Path) -> None:
    folder = base_model(tmp_path / "base", "llama")
    recipe = recipe_on(folder)
    adapter = adapter_for(recipe, tmp_path / "train") / "adapter"
    change(
        adapter / "adapter_model.safetensors", "layers.1.mlp.up_proj.lora_B", lambda weight: weight.mul_(1e8)
    )
    merge = model.streamed_merge(recipe, folder, adapter, dtype="float16")
    with pytest.raises(
        LoracookError, match=r"weight model\.layers\.1\.mlp\.up_proj\.weight holds NaN or infinity"
    ):
        merge.save(tmp_path / "merged")


def test_an_index_that_is_none_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": ["a"]}')
    with pytest.raises(
        LoracookError, match=r"index\.json' is no index of weights; copy or download it again"
    ):
        open_weights(tmp_path)
