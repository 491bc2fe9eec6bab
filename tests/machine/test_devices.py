"""Devices by name and size, and what a plan says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from loracook.errors import LoracookError, MachineError
from loracook.estimate.estimate import read_and_estimate
from loracook.machine.devices import CONTEXT, GIB, Device, device_here, named_device
from loracook.recipe.recipe import load
from loracook.store.folders import default_cache
from loracook.training.trainer import check_precision
from tests.plans import config_recipe, invoked, plan

OPT = "facebook__opt-350m"
LORA = {"r": 8, "target_modules": ["q_proj", "v_proj"]}


def test_a_device_is_found_however_its_name_is_spelt() -> None:
    for name in ("A100-80GB", "a100 80gb", "A100_80GB"):
        device = named_device(name, None)
        assert device is not None
        assert device.bytes == 80 * GIB - CONTEXT


@pytest.mark.parametrize(
    ("printed", "meant"),
    [
        ("Tesla T4", "T4"),
        ("Tesla P100-PCIE-16GB", "P100"),
        ("Tesla V100-SXM2-32GB", "V100-32GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-40GB"),
        ("nvidia-a100-sxm4-80gb", "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA RTX A6000", "A6000"),
    ],
)
def test_a_device_is_found_by_the_name_that_torch_and_nvidia_smi_print(printed: str, meant: str) -> None:
    found, known = named_device(printed, None), named_device(meant, None)
    assert found is not None
    assert known is not None
    assert (found.name, found.bytes, found.bfloat16) == (printed, known.bytes, known.bfloat16)


def test_memory_is_read_with_and_without_a_unit() -> None:
    found = [named_device(None, text) for text in ("24", "24GB", "24 GiB", "24576MB")]
    assert {device and device.bytes for device in found} == {24 * GIB - CONTEXT}


@pytest.mark.parametrize(
    ("name", "memory", "said"),
    [
        ("H1000", None, "unknown device 'H1000'; use --memory"),
        ("a100", None, "unknown device 'a100'; did you mean A100-40GB or A100-80GB"),
        (
            "NVIDIA RTX 4070 Ti",
            None,
            "unknown device 'NVIDIA RTX 4070 Ti'; use --memory",
        ),
        ("NVIDIA", None, "unknown device 'NVIDIA'; use --memory"),
        (None, "much", "'much' is not a memory size"),
        (None, "0", "'0' is less than CUDA itself takes"),
        ("H100", "24GB", "--device conflicts with --memory"),
    ],
)
def test_an_unknown_device_is_refused_with_what_to_write(
    name: str | None, memory: str | None, said: str
) -> None:
    with pytest.raises(LoracookError) as caught:
        named_device(name, memory)
    assert str(caught.value).startswith(said)


def test_an_apple_gpu_is_named_with_the_memory_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 1 << 20)
    device = device_here()
    assert (device.kind, device.bytes, device.bfloat16) == ("mps", 1 << 20, True)
    assert "MPS" in device.name


@pytest.mark.parametrize(
    ("device", "advice"),
    [
        (Device("a CPU", "cpu", 1), ""),
        (
            Device("a CPU", "cpu", 1, bfloat16=False),
            "a CPU computes bfloat16 slowly; set base_model.dtype: float32",
        ),
        (Device("T4", "cuda", 1, bfloat16=False), "T4 has no bfloat16; set base_model.dtype: float16"),
    ],
)
def test_a_device_without_bfloat16_says_what_to_set(device: Device, advice: str) -> None:
    assert device.bfloat16_advice.startswith(advice)
    assert bool(device.bfloat16_advice) == bool(advice)


def test_only_a_recipe_in_bfloat16_is_advised_against_it(tmp_path: Path) -> None:
    slow = Device("a CPU", "cpu", 1 << 40, bfloat16=False)
    file = config_recipe(tmp_path, OPT, LORA)
    in_float32 = ("base_model.dtype=float32", "train.bf16=false")
    assert read_and_estimate(load(file), default_cache(), slow).precision_advice == {
        "bfloat16": slow.bfloat16_advice
    }
    assert read_and_estimate(load(file, in_float32), default_cache(), slow).precision_advice == {}


@pytest.mark.parametrize("name", ["fp16", "tf32"])
def test_mixed_precision_that_a_cpu_does_not_have_is_refused(name: str, tmp_path: Path) -> None:
    recipe = load(config_recipe(tmp_path, OPT, LORA, train={"max_steps": 1, "bf16": False, name: True}))
    if device_here().kind == "cpu":
        with pytest.raises(MachineError, match=rf"train\.{name} requires a GPU, .*; write {name}: false"):
            check_precision(recipe)


def test_a_plan_says_that_float16_trains_badly_on_a_cpu(tmp_path: Path) -> None:
    recipe = load(config_recipe(tmp_path, OPT, LORA), ["base_model.dtype=float16", "train.bf16=false"])
    slow = Device("a CPU", "cpu", 1 << 34)
    assert list(read_and_estimate(recipe, default_cache(), slow).precision_advice) == ["float16"]


def test_a_plan_for_a_device_without_bfloat16_says_what_to_set(tmp_path: Path) -> None:
    line = "T4 has no bfloat16; set base_model.dtype: float16, train.bf16: false, train.fp16: true"
    assert line in invoked(config_recipe(tmp_path, OPT, LORA), "--device", "T4").stdout
    half: dict[str, Any] = {"max_steps": 10, "bf16": False, "fp16": True}
    recipe = config_recipe(tmp_path, OPT, LORA, train=half)
    planned = plan(recipe, "--device", "T4", "--set", "base_model.dtype=float16")
    assert planned["memory"]["lacks"] == []


def test_a_merge_that_does_not_fit_is_named_with_what_helps_it(tmp_path: Path) -> None:
    recipe = config_recipe(
        tmp_path, OPT, LORA, quantization={"load_in_4bit": True}, merge={"dtype": "float32"}
    )
    arguments = (recipe, "--memory", "2GB", "--set", "train.max_length=128")
    memory = plan(*arguments)["memory"]
    assert (memory["peak_stage"], memory["too_large"]) == ("merge", ["merge"])
    assert [change["write"] for change in memory["changes"]] == ["merge.dtype: bfloat16"]
    assert "at the peak of merge, does not fit" in invoked(*arguments).stdout


def test_a_merge_that_nothing_makes_fit_is_sent_to_a_larger_machine(tmp_path: Path) -> None:
    recipe = config_recipe(tmp_path, OPT, LORA, quantization={"load_in_4bit": True}, merge={})
    text = invoked(recipe, "--memory", "1.4GB", "--set", "train.max_length=32").stdout
    assert "run merge on a machine with more memory: --only merge" in text
