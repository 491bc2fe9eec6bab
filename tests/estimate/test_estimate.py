"""One estimate: its parts add up to its peaks, and a plan's is the run's."""

from pathlib import Path
from typing import Any

import pytest

import loracook
from loracook.estimate.estimate import read_and_estimate
from loracook.machine.devices import Device
from loracook.progress import Silent
from loracook.store.folders import default_cache
from loracook.training.memory_check import check_memory
from loracook.training.trainer import read_inputs
from tests.estimate.test_batches import recipe_file
from tests.plans import config_recipe, plan

SMOL = "HuggingFaceTB__SmolLM2-135M-Instruct"


@pytest.mark.parametrize(
    ("kind", "quantization"),
    [("cpu", {}), ("cuda", {"load_in_4bit": True}), ("cuda", {"load_in_8bit": True})],
    ids=str,
)
def test_the_parts_of_each_stage_add_up_to_its_peak(
    tmp_path: Path, kind: str, quantization: dict[str, bool]
) -> None:
    sections: dict[str, Any] = {"evaluate": {"prompts": ["Why?"]}, "merge": {}}
    sections |= {"quantization": quantization} if quantization else {}
    file = config_recipe(tmp_path, SMOL, {"r": 8, "target_modules": "all-linear"}, **sections)
    memory = read_and_estimate(loracook.load(file), default_cache(), Device("any", kind, 1 << 40)).memory
    assert memory is not None
    assert {stage: sum(parts.values()) for stage, parts in memory.stages.items()} == memory.peaks
    assert list(memory.peaks) == ["train", "evaluate", "merge"]
    assert all(count >= 0 for parts in memory.stages.values() for count in parts.values())
    assert memory.peaks[memory.peak_stage] == max(memory.peaks.values())


def test_a_plan_and_its_run_have_the_same_estimate(tmp_path: Path) -> None:
    recipe = loracook.load(recipe_file(tmp_path, {"max_steps": 3, "per_device_train_batch_size": 4}))
    run = check_memory(read_inputs(recipe, default_cache(), Silent())).estimate
    planned = read_and_estimate(recipe, default_cache(), run.device)
    assert (planned.memory, planned.steps, planned.batch, planned.tokens) == (
        run.memory,
        run.steps,
        run.batch,
        run.tokens,
    )
    assert planned.meta_model.counts == run.meta_model.counts


def test_the_plan_shows_those_parts(tmp_path: Path) -> None:
    file = recipe_file(tmp_path, {"max_steps": 3})
    memory = plan(file)["memory"]
    assert memory["peak_bytes"] == sum(memory["parts"].values())
    assert memory["parts"] == memory["stages"][memory["peak_stage"]]
