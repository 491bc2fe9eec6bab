"""A real sweep under Ray: two trials at a time, stopped, resumed and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loracook.sweep.trainable import environment
from tests.tiny_recipes import twin_file

pytestmark = pytest.mark.slow
SHORT = {
    "max_steps": 4,
    "eval_strategy": "steps",
    "eval_steps": 1,
    "save_steps": 1,
    "per_device_eval_batch_size": 64,
}
SWEEP = {
    "recipe": "recipe.yaml",
    "method": "grid",
    "metric": {"name": "eval_loss", "goal": "minimize"},
    "parameters": {"train.learning_rate": {"values": [3e-3, 1e-6, 1e-7]}},
    "early_stop": {"min_steps": 2, "reduction_factor": 2},
    "resources": {"cpus": 1},
}


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny recipe that merges, and a sweep of it."""
    folder = tmp_path_factory.mktemp("kitchen")
    rows = {"path": "./shipped/data/orders-train.jsonl", "eval": {"path": "./shipped/data/orders-eval.jsonl"}}
    twin_file("quickstart", folder, train=SHORT, dataset=rows, evaluate=None, push=None)
    (folder / "rates.yaml").write_text(json.dumps(SWEEP, indent=1))
    return folder


def start(kitchen: Path, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "loracook", *words],
        cwd=kitchen,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(met: Callable[[], Any], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.1)


def children(kitchen: Path) -> list[str]:
    """The commands of trials that run for this folder."""
    listed = subprocess.run(["ps", "-axww", "-o", "command"], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if "sweep_trial" in line and f"--runs={kitchen}" in line]


def trials(kitchen: Path) -> list[dict[str, Any]]:
    [file] = kitchen.glob("runs/sweeps/rates.*/sweep.json")
    return json.loads(file.read_text())["trials"]


def finished(kitchen: Path) -> dict[str, int]:
    """When each training was finished, by its folder."""
    return {str(file.parent): file.stat().st_mtime_ns for file in kitchen.glob("runs/*/train-*/record.json")}


def test_a_trial_without_gpus_sees_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray gives each trial its own in CUDA_VISIBLE_DEVICES, but leaves those of the machine to one with none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    seen = [environment(cpus=3, gpus=gpus)["CUDA_VISIBLE_DEVICES"] for gpus in (2, 0)]
    assert seen == ["4,5", ""]


def test_a_sweep_leaves_nothing_running_resumes_what_was_stopped_and_finds_the_best(kitchen: Path) -> None:
    sweep = start(kitchen, "sweep", "rates.yaml")
    wait_until(lambda: len(children(kitchen)) == 2)
    sweep.kill()
    sweep.communicate()
    wait_until(lambda: not children(kitchen), 30)

    sweep = start(kitchen, "sweep", "rates.yaml")
    wait_until(lambda: finished(kitchen))
    wait_until(lambda: len([each for each in trials(kitchen) if each["state"] != "waiting"]) > 2)
    wait_until(lambda: children(kitchen))
    sweep.send_signal(signal.SIGTERM)
    out, errors = sweep.communicate(timeout=60)
    assert sweep.returncode == 75, errors
    assert errors.endswith("stopped; run the same command again to resume\n")
    assert not children(kitchen)
    before = finished(kitchen)

    sweep = start(kitchen, "sweep", "rates.yaml")
    out, errors = sweep.communicate(timeout=120)
    assert (sweep.returncode, errors) == (0, "")
    after = finished(kitchen)
    assert {folder: after[folder] for folder in before} == before
    states = [each["state"] for each in trials(kitchen)]
    assert states[0] == "finished"
    assert states[2] == "ended early"
    assert "best: trial" in out

    again = start(kitchen, "sweep", "rates.yaml")
    out, errors = again.communicate(timeout=20)
    assert (again.returncode, errors, finished(kitchen)) == (0, "", after)

    best = start(kitchen, "run", "rates-best.yaml", "--only", "train")
    out, errors = best.communicate(timeout=60)
    assert "train is done; nothing was run" in out
    assert finished(kitchen) == after
    [page] = kitchen.glob("runs/sweeps/rates.*/sweep.html")
    assert "ended early" in page.read_text("utf-8")


def test_bayes_takes_the_mean_over_seeds_and_a_trial_that_fails_is_a_row_with_its_reason(
    kitchen: Path,
) -> None:
    limits = {"dataset.limits.truncated": {"values": [1.0, 0.0]}}
    bayes = {"method": "bayes", "trials": 2, "seeds": [0, 1], "parameters": limits, "early_stop": None}
    data = {name: value for name, value in (SWEEP | bayes).items() if value is not None}
    (kitchen / "limits.yaml").write_text(json.dumps(data))
    sweep = start(kitchen, "sweep", "limits.yaml")
    out, errors = sweep.communicate(timeout=150)
    assert (sweep.returncode, errors) == (0, "")
    [failed] = [line for line in out.splitlines() if "failed  " in line]
    assert "truncated" in failed
    assert "best: trial" in out
    assert " ± " in out
