"""Before step 1 a run measures its largest batch; the record has what was planned beside what was measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import loracook
from loracook.errors import MachineError
from loracook.machine.devices import Device
from loracook.machine.memory import Baseline
from loracook.progress import Silent
from loracook.recipe.recipe import Recipe
from loracook.store.folders import default_cache
from loracook.training.largest_batch import measure_alone, sentence
from loracook.training.memory_check import MemoryCheck, check_memory
from loracook.training.trainer import TrainerInputs, read_inputs
from tests import processes
from tests.estimate.test_batches import recipe_file
from tests.plans import invoked


@pytest.mark.slow
def test_the_probe_of_a_longer_run_changes_nothing_of_it(tmp_path: Path) -> None:
    file = recipe_file(tmp_path, {"max_steps": 50, "per_device_train_batch_size": 1})
    # a process of its own: one that has trained before reuses its memory, and little of it is seen to grow
    assert processes.run("run", file, "--runs", tmp_path / "runs", cwd=tmp_path).returncode == 0
    trainer = loracook.trainer(loracook.load(file), tmp_path / "by hand")
    trainer.train()
    folder = tmp_path / "runs/shapes/latest/train"
    log = (folder / "log.jsonl").read_text("utf-8").splitlines()
    assert _losses(map(json.loads, log)) == _losses(trainer.state.log_history)
    memory = json.loads((folder / "record.json").read_text("utf-8"))["result"]["memory"]
    assert memory["planned_bytes"] > 0
    assert 0 < memory["probed_bytes"] <= memory["measured_bytes"] * 1.1
    assert memory["batch"] == {"rows": 1, "length": 27}


@pytest.mark.slow
def test_a_short_run_is_its_own_probe(tmp_path: Path) -> None:
    recipe = loracook.load(recipe_file(tmp_path, {"max_steps": 2}))
    memory = loracook.run(recipe, tmp_path / "runs")["train"]["result"]["memory"]
    assert (memory["probed_bytes"], memory["seconds_for_batch"]) == (None, None)
    assert memory["measured_bytes"] > 0


def test_a_peak_that_an_earlier_one_hides_is_unknown_and_not_nothing(tmp_path: Path) -> None:
    check = check_memory(inputs_of(loracook.load(recipe_file(tmp_path, {"max_steps": 2}))))
    check.before = Baseline(in_use=0, peak=1 << 60)
    facts = check.facts()
    assert (facts["measured_bytes"], facts["planned_over_measured"]) == (None, None)
    assert "takes an unknown amount (this process took more before)" in sentence(check)


@pytest.mark.slow
def test_the_probe_alone_measures_and_leaves_no_folder(tmp_path: Path) -> None:
    recipe = loracook.load(recipe_file(tmp_path, {"max_steps": 2}))
    check = measure_alone(inputs_of(recipe), default_cache(), Silent())
    assert check.measured is not None
    assert check.seconds is not None
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_probes_of_several_recipes_come_side_by_side(tmp_path: Path) -> None:
    file = recipe_file(tmp_path, {"max_steps": 2})
    rows = {line.split("  ")[0]: line for line in invoked(file, file, "--probe").stdout.splitlines()}
    assert {"peak memory", "measured", "seconds per step", "seconds in total"} <= set(rows)


def test_a_disk_without_room_for_all_checkpoints_is_found_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = loracook.load(recipe_file(tmp_path, {"max_steps": 3, "save_strategy": "steps"}))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1 << 30, free=20 << 20))
    with pytest.raises(MachineError, match=r"the disk is too small: .* write train.save_total_limit: 1 or"):
        loracook.run(recipe, tmp_path / "runs")
    assert not list((tmp_path / "runs").rglob("checkpoint-*"))


def test_what_does_not_fit_ends_with_the_changes_that_would(tmp_path: Path) -> None:
    recipe = loracook.load(recipe_file(tmp_path, {"per_device_train_batch_size": 16}))
    small = replace(check_memory(inputs_of(recipe)).estimate, device=Device("a small CPU", "cpu", 60 << 20))
    refusal = MemoryCheck(small).refusal()
    assert refusal.exit_code == 3
    assert str(refusal).startswith("out of memory: ")
    assert "60 MiB free on a small CPU; write train.per_device_train_batch_size: 8" in str(refusal)


def inputs_of(recipe: Recipe) -> TrainerInputs:
    return read_inputs(recipe, default_cache(), Silent())


def _losses(entries: Any) -> list[float]:
    return [entry["loss"] for entry in entries if "loss" in entry]


def test_memory_that_runs_out_in_any_step_ends_with_the_changes_too(tmp_path: Path) -> None:
    recipe = loracook.load(recipe_file(tmp_path, {"per_device_train_batch_size": 4}))
    check = check_memory(inputs_of(recipe))
    with pytest.raises(MachineError, match=r"out of memory: .* write "), check.guarding():
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    with pytest.raises(RuntimeError, match="another"), check.guarding():
        raise RuntimeError("another")
