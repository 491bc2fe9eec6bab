"""The memory model: weights by dtype and quantization, optimizer state, caches, and layers that follow from a few."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PreTrainedModel

import loracook
from loracook.estimate.batches import Batch
from loracook.estimate.fake_step import StepMemory, step_memory
from loracook.estimate.memory import cache_bytes
from loracook.estimate.weight_bytes import Weights, cast, optimizer_bytes, set_dtypes, weight_bytes
from loracook.machine.upstream import set_attention_implementation
from loracook.model import quantization_in_training
from loracook.model.parameters import with_adapter
from tests.plans import CONFIGS, config_recipe, plan

SHAPE = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}


def base_on_meta(dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**SHAPE))
    cast(model, dtype)
    return model


def tuned(**lora: Any) -> PeftModel:
    return with_adapter(
        base_on_meta(), LoraConfig(r=8, target_modules=["q_proj"], task_type="CAUSAL_LM", **lora)
    )


def trainable_bytes(model: PeftModel) -> int:
    return sum(part.numel() * part.element_size() for part in model.parameters() if part.requires_grad)


@pytest.mark.parametrize(
    ("quantization", "weights"),
    [
        # A layer has 36,864 weights in linear modules and 128 in norms; embeddings, head and last norm have 65,600.
        ({}, Weights(stored=2 * 287_552, constants=0, unpacked=0)),
        (
            {"load_in_4bit": True},
            Weights(
                stored=6 * 36_864 // 2 + 2 * 66_368,
                constants=6 * (36_864 // 64 * 4 + 7 * 64),
                unpacked=16_384,
            ),
        ),
        (
            {"load_in_8bit": True},
            Weights(
                stored=6 * 36_864 + 2 * 66_368,
                constants=6 * 4 * (64 + 32 + 32 + 64 + 128 + 128 + 64),
                unpacked=16_384,
            ),
        ),
    ],
)
def test_weights_take_what_their_dtype_and_quantization_say(
    quantization: dict[str, Any], weights: Weights
) -> None:
    assert weight_bytes(base_on_meta(), quantization) == weights


@pytest.mark.parametrize(
    ("stored", "weights", "constants"),
    [
        # 6,476,005,376 weights in linear modules of 1,359,872 inputs and outputs in all; embeddings and head have
        # 262,144,000 and norms 266,240, which take two bytes each. The published files are as large.
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 3_762_823_168, 126_484_480 + 4 * 1_138_688),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 7_000_825_856, 3 * 1_359_872 + 4 * 1_138_688),
        ({"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm"}, 3_762_823_168, 252_968_960),
    ],
)
def test_weights_packed_on_disk_take_what_their_method_packs(
    stored: dict[str, Any], weights: int, constants: int, tmp_path: Path
) -> None:
    recipe = loracook.load(config_recipe(tmp_path, "meta-llama__Llama-2-7b-hf", {"r": 8}))
    config = AutoConfig.from_pretrained(tmp_path / "model")
    config.quantization_config = stored
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config)
    cast(base, torch.float16)
    found = weight_bytes(base, quantization_in_training(recipe, config))
    assert (found.stored, found.constants) == (weights, constants)


@pytest.mark.parametrize(
    ("optim", "bytes_each"),
    [("adamw_torch_fused", 8), ("sgd", 0), ("lion_32bit", 4), ("paged_adamw_32bit", 8), ("adamw_8bit", 8)],
)
def test_optimizers_keep_their_states_for_what_trains(optim: str, bytes_each: int) -> None:
    trained = 6 * (64 * 8 + 8 * 64)  # tensors of 512 elements, which 8-bit optimizers keep in 32 bit
    assert optimizer_bytes(tuned(), {"optim": optim}) == trained * bytes_each


def test_an_adapter_on_a_quantized_base_trains_in_bfloat16() -> None:
    model = tuned()
    assert trainable_bytes(model) == 6 * 1024 * 4
    set_dtypes(model, quantized=True)
    assert trainable_bytes(model) == 6 * 1024 * 2


@pytest.mark.parametrize("checkpointing", [True, False])
def test_the_memory_of_all_layers_follows_from_a_few(
    checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batch((0, 1), 48, masked=False)
    followed = step_memory(tuned(), batch, checkpointing=checkpointing, autocast=torch.bfloat16)
    monkeypatch.setattr("loracook.estimate.fake_step.KINDS", 6)
    assert _close(followed, step_memory(tuned(), batch, checkpointing=checkpointing, autocast=torch.bfloat16))


def test_checkpointing_saves_activations_and_a_mask_takes_some() -> None:
    batch, masked = Batch((0, 1), 48, masked=False), Batch((0, 1), 48, masked=True)
    kept = step_memory(tuned(), batch, checkpointing=False, autocast=torch.bfloat16).saved
    assert step_memory(tuned(), batch, checkpointing=True, autocast=torch.bfloat16).saved < kept / 4
    assert step_memory(tuned(), masked, checkpointing=False, autocast=torch.bfloat16).saved > kept


@pytest.mark.parametrize(
    "batch", [Batch((0, 1), 48, masked=True), Batch((0, 1), 96, masked=True, flat=True)], ids=str
)
def test_flash_attention_takes_what_sdpa_does_without_a_mask(batch: Batch) -> None:
    sdpa, flash = tuned(), tuned()
    set_attention_implementation(flash.get_base_model(), "flash_attention_2")
    expected = step_memory(sdpa, replace(batch, masked=False), checkpointing=False, autocast=torch.bfloat16)
    memory = step_memory(flash, batch, checkpointing=False, autocast=torch.bfloat16)
    assert (memory.backward, memory.loss) == pytest.approx((expected.backward, expected.loss), rel=1e-2)


@pytest.mark.parametrize(
    ("kind", "checkpointing", "more"),
    [("llama", 0, 1.0), ("llama", 1, 1.0), ("gpt_neox", 0, 1.19), ("gpt_neox", 1, 1.14)],
)
def test_layer_norms_take_more_on_a_gpu(kind: str, checkpointing: int, more: float) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SHAPE))
    cast(model, torch.bfloat16)
    adapted = with_adapter(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    batch, bfloat16 = Batch((0, 1), 48, masked=False), torch.bfloat16
    cpu, gpu = (
        step_memory(adapted, batch, checkpointing=checkpointing, autocast=bfloat16, device=device)
        for device in ("cpu", "cuda")
    )
    assert gpu.saved / cpu.saved == pytest.approx(more, rel=0.02)


def test_the_cache_of_keys_and_values() -> None:
    config = AutoConfig.from_pretrained(CONFIGS / "HuggingFaceTB__SmolLM2-135M-Instruct")
    assert cache_bytes(config, batch_size=8, length=100, element_size=2) == 2 * 30 * 8 * 3 * 64 * 100 * 2


@pytest.mark.slow
def test_a_run_that_does_not_fit_is_shown_with_the_cheapest_changes(tmp_path: Path) -> None:
    file = config_recipe(tmp_path, "meta-llama__Llama-2-7b-hf", {"r": 8, "target_modules": "all-linear"})
    memory = plan(file, "--memory", "14GB")["memory"]
    assert memory["fits"] is False
    *_, last = memory["changes"]
    assert last["fits"] is True
    assert all(change["saves"] > 0 for change in memory["changes"])


def _close(memory: StepMemory, expected: StepMemory) -> bool:
    pairs = zip(vars(memory).values(), vars(expected).values(), strict=True)
    return all(abs(a - b) <= 0.01 * b for a, b in pairs)
