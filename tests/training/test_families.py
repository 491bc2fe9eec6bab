"""Every kind of causal model is planned, trained, saved and loaded, or refused by name before weights."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import loracook
from loracook import model
from loracook.errors import LoracookError
from loracook.estimate.estimate import read_and_estimate
from loracook.machine.devices import device_here
from loracook.store.folders import default_cache
from tests.tiny_families import causal_kinds, tiny
from tests.tiny_models import LINES, tokenizer_of

SHARE = ("gemma3", "mixtral", "qwen3_5")
"""A config that nests with a tower, experts in float32, and a nested config of two kinds of layers."""
KINDS = sorted(causal_kinds()) if "LORACOOK_FAMILIES" in os.environ else SHARE
NOT_TINY = {
    *("blt", "cohere_compass_text", "dbrx", "dots1", "dots3_note", "dots3_note_text", "gemma3n_text"),
    *("gemma4_assistant", "gemma4_unified_assistant", "lfm2_moe", "musicgen", "musicgen_melody", "nemotron"),
    *("qwen4_exp", "qwen4_exp_text", "reformer", "xlnet", "zamba"),
}
"""Kinds whose configs the shrinking does not fit, or does not make small."""


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # transformers' own
@pytest.mark.filterwarnings(
    "ignore:The following (rank|alpha)_pattern keys:RuntimeWarning"
)  # PEFT adds these keys
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NOT_TINY])
def test_a_kind_is_trained_as_planned_or_refused_before_weights(kind: str, tmp_path: Path) -> None:
    base = tmp_path / "model"
    tiny(kind).save_pretrained(base)
    tokenizer_of(LINES).save_pretrained(base)
    recipe = loracook.load(written(tmp_path))
    try:
        planned = read_and_estimate(recipe, default_cache(), device_here())
    except LoracookError as refusal:
        pytest.skip(str(refusal))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base)).save_pretrained(base)
    trained = loracook.run(recipe, tmp_path / "runs")["train"]["result"]
    assert trained["parameters"]["trainable"] == planned.meta_model.counts.trainable
    [adapter] = tmp_path.glob("runs/*/train-*/adapter")
    tuned = model.load_tuned(recipe, model.load_model(recipe, base), adapter)
    adapted = {name: part for name, part in tuned.named_parameters() if "lora_B" in name}
    assert [name for name, part in adapted.items() if not part.any()] == [], "adapted in vain"


def written(folder: Path) -> Path:
    """A recipe of two steps on the model in a folder."""
    rows = [{"prompt": line[:20], "completion": line[20:]} for line in LINES]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    limits = dict.fromkeys(("truncated", "missing_eos", "duplicates", "fully_masked"), 1.0)
    train = {"max_steps": 2, "per_device_train_batch_size": 2, "max_length": 64, "bf16": False}
    recipe = {
        "version": 1,
        "base_model": {"name_or_path": "./model", "dtype": "float32"},
        "dataset": {"path": "./rows.jsonl", "limits": limits},
        "lora": {"r": 2, "target_modules": "all-linear"},
        "train": train | {"warmup_steps": 0, "activation_checkpointing": False},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe), "utf-8")
    return folder / "recipe.yaml"
