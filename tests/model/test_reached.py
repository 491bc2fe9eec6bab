"""Modules that text never reaches are left out of an adapter, and weights that no target adapts are named."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, PreTrainedModel

from loracook.machine import upstream
from loracook.model.parameters import WeightGroup, unadapted_weights, with_adapter
from loracook.model.reached import left_out
from tests.plans import invoked, plan, written
from tests.tiny_families import tiny


def on_meta(kind: str) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(tiny(kind))


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("llama", {}),
        ("gemma3", {"model.vision_tower": 17}),
        ("got_ocr2", {"model.vision_tower": 11, "model.multi_modal_projector": 3}),
        ("bert-generation", {}),
        ("trocr", {"model.decoder.layers.*.encoder_attn": 8}),
        ("phimoe", {"model.layers.*.mlp.router": 2}),
        ("mamba", {"backbone.layers.*.mixer.conv1d": 2, "backbone.layers.*.mixer.out_proj": 2}),
    ],
)
def test_all_linear_leaves_out_what_text_does_not_reach_or_lora_cannot_adapt(
    kind: str, parts: dict[str, int]
) -> None:
    model = on_meta(kind)
    counted = Counter(left_out(model, "all-linear").values())
    assert {part: counted.get(part) for part in parts} == parts
    assert parts or not counted
    assert model.training


def test_names_of_a_list_do_not_reach_into_a_tower(tmp_path: Path) -> None:
    planned = plan(recipe_on(tmp_path, "gemma3", {"target_modules": ["q_proj", "k_proj"]}))
    assert planned["model"]["left_out"] == {"model.vision_tower": 17}
    assert sorted(planned["model"]["modules"]) == [
        f"language_model.layers.*.self_attn.{name}" for name in ("k_proj", "q_proj")
    ]
    assert planned["memory"]["peak_bytes"] > 0


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_a_plan_names_experts_and_what_adapts_them(tmp_path: Path, kind: str) -> None:
    attention: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"]}
    said = invoked(recipe_on(tmp_path, kind, attention)).stdout
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    assert f"add target_parameters: [{', '.join(parameters)}]" in said
    both = plan(recipe_on(tmp_path, kind, attention | {"target_parameters": parameters}))
    assert not any("experts.gate_up_proj" in name for name in _matrices(both))
    assert both["memory"]["peak_bytes"] > 0


def test_only_what_is_not_adapted_is_counted() -> None:
    model = on_meta("llama")
    adapted = with_adapter(model, LoraConfig(target_modules=["q_proj"], modules_to_save=["k_proj"]))
    groups = {group.pattern: group for group in unadapted_weights(adapted)}
    assert groups["model.layers.*.mlp.up_proj"] == WeightGroup(
        "model.layers.*.mlp.up_proj", 2 * 64 * 128, False
    )
    assert not any("q_proj" in name or "k_proj" in name or "embed" in name for name in groups)


def test_the_product_of_experts_has_a_shape_in_every_dtype() -> None:
    with upstream.fake_tensor_mode(), torch.device("cpu"):
        rows, experts = torch.empty(6, 32), torch.empty(4, 32, 64)
        product = torch.nn.functional.grouped_mm(rows, experts, offs=torch.empty(4, dtype=torch.int32))
    assert product.shape == (6, 64)
    assert product.dtype == torch.float32


def recipe_on(folder: Path, kind: str, lora: dict[str, Any]) -> Path:
    tiny(kind).save_pretrained(folder / "model")
    return written(
        folder, base_model={"name_or_path": "./model", "dtype": "float32"}, lora=lora, train={"max_steps": 2}
    )


def _matrices(planned: dict[str, Any]) -> list[str]:
    return [name for name in json.loads(json.dumps(planned["model"]["unadapted"])) if "bias" not in name]
