"""What can load an adapter is known before training: every server that cannot says why, and where that stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import loracook
from loracook.estimate.meta_model import meta_model
from loracook.model import Serving
from tests.plans import invoked, plan, written
from tests.tiny_families import tiny

QV = {"target_modules": ["q_proj", "v_proj"]}
EMBEDDINGS = {"modules_to_save": ["embed_tokens", "lm_head"]}
EVERY = {"vLLM", "SGLang", "llama.cpp"}


@pytest.mark.parametrize(
    ("kind", "lora", "cannot"),
    [
        ("llama", QV, set()),
        ("llama", {"target_modules": "all-linear"}, set()),
        ("llama", QV | EMBEDDINGS, EVERY),
        ("llama", QV | {"use_dora": True}, EVERY),
        ("llama", QV | {"bias": "all"}, EVERY),
        ("phi", QV | {"lora_bias": True}, EVERY),
        ("llama", QV | {"trainable_token_indices": [3]}, EVERY),
        ("llama", QV | {"use_rslora": True}, {"SGLang", "llama.cpp"}),
        ("llama", QV | {"alpha_pattern": {"q_proj": 8}}, {"SGLang", "llama.cpp"}),
        ("llama", QV | {"rank_pattern": {"q_proj": 4}}, {"SGLang"}),
        ("llama", QV | {"r": 1024}, {"vLLM"}),
        ("llama", {"target_modules": ["q_proj"]}, {"SGLang"}),
        ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}, EVERY),
        ("gpt_neox", {"target_modules": ["query_key_value"]}, {"SGLang"}),
        ("qwen3_moe", QV | {"target_parameters": ["mlp.experts.down_proj"]}, EVERY),
        ("gpt_oss", QV | {"target_parameters": ["mlp.experts.down_proj"]}, {"SGLang", "llama.cpp"}),
        ("gemma3", {"target_modules": ["q_proj", "v_proj", "fc1"]}, {"SGLang"}),
    ],
)
def test_a_plan_names_who_cannot_load_the_adapter(
    tmp_path: Path, kind: str, lora: dict[str, Any], cannot: set[str]
) -> None:
    found = serving(recipe_on(tmp_path, kind, lora))
    assert set(found) == EVERY | {"transformers"}
    assert {server for server, each in found.items() if each.reasons} == cannot
    reasons = [(server, reason) for server, each in found.items() for reason in each.reasons]
    assert all(reason.text and reason.source.startswith(server.lower()) for server, reason in reasons)


def test_tokens_added_to_the_vocabulary_are_served_by_peft_alone(tmp_path: Path) -> None:
    found = plan(recipe_on(tmp_path, "llama", QV, tokenizer={"extra_special_tokens": ["<|dish|>"]}))[
        "serving"
    ]
    assert [each["server"] for each in found if each["loads"]] == ["transformers"]


@pytest.mark.parametrize(
    ("lora", "flags"),
    [
        ({"r": 16}, ["--enable-lora"]),
        ({"r": 17}, ["--enable-lora", "--max-lora-rank", "32"]),
        ({"r": 72}, ["--enable-lora", "--max-lora-rank", "128"]),
        ({"r": 8, "rank_pattern": {"v_proj": 100}}, ["--enable-lora", "--max-lora-rank", "128"]),
    ],
)
def test_the_largest_rank_decides_what_vllm_is_told(
    tmp_path: Path, lora: dict[str, Any], flags: list[str]
) -> None:
    assert list(serving(recipe_on(tmp_path, "llama", QV | lora))["vLLM"].flags) == flags


def test_the_plan_says_it_in_one_line_unless_a_server_cannot(tmp_path: Path) -> None:
    fine = _serving_lines(recipe_on(tmp_path / "a", "llama", QV))
    assert fine == ["adapter: transformers, vLLM (--enable-lora), SGLang (--enable-lora), llama.cpp"]
    adapter, *exceptions, merged = _serving_lines(recipe_on(tmp_path / "b", "llama", QV | {"use_dora": True}))
    assert adapter == "adapter: transformers"
    assert [line.partition(":")[0] for line in exceptions] == ["not vLLM", "not SGLang", "not llama.cpp"]
    assert merged.startswith("merged model: ")


def serving(recipe: Path) -> dict[str, Serving]:
    """How each server loads the adapter of a recipe."""
    loaded = loracook.load(recipe)
    return {each.server: each for each in meta_model(loaded, recipe.parent / "model", None).serving(loaded)}


def _serving_lines(recipe: Path) -> list[str]:
    lines = invoked(recipe).stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("serving"))
    more = (number for number in range(start + 1, len(lines)) if not lines[number].startswith(" "))
    return [line[10:] for line in lines[start : next(more)]]


def recipe_on(folder: Path, kind: str, lora: dict[str, Any], **sections: Any) -> Path:
    """A recipe of ten steps on a tiny model of a kind, of which there is nothing but a config.json."""
    (folder / "model").mkdir(parents=True)
    config = tiny(kind).to_dict()
    (folder / "model" / "config.json").write_text(json.dumps(config), "utf-8")
    base = {"base_model": {"name_or_path": "./model"}, "train": {"max_steps": 10}}
    return written(folder, lora={"r": 8, **lora}, **base, **sections)
