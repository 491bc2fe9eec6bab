"""Settings that only change speed and memory leave the losses as they are, up to the order of sums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import loracook
from loracook.estimate.batches import Batch
from loracook.estimate.fake_step import step_memory
from tests.estimate.test_batches import recipe_file
from tests.estimate.test_memory import tuned

TRAIN = {"max_steps": 3, "per_device_train_batch_size": 4, "bf16": False, "activation_checkpointing": False}
SAME: dict[str, dict[str, Any]] = {
    "fewer rows in a pass": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
    "rows one after the other, without padding": {"padding_free": True},
    "every second layer recomputed": {
        "activation_checkpointing": True,
        "activation_checkpointing_kwargs": {"every_n_layers": 2},
    },
    "attention kept, the rest recomputed": {
        "activation_checkpointing": True,
        "activation_checkpointing_kwargs": {"selective": True},
    },
}


def losses(folder: Path, train: dict[str, Any]) -> list[float]:
    """The loss of every step of a run in float32."""
    folder.mkdir()
    file = recipe_file(folder, train)
    recipe = json.loads(file.read_text("utf-8"))
    recipe["base_model"]["dtype"] = "float32"
    file.write_text(json.dumps(recipe), "utf-8")
    loracook.run(loracook.load(file), folder / "runs")
    log = next((folder / "runs").glob("shapes/train-*/log.jsonl")).read_text("utf-8").splitlines()
    return [entry["loss"] for entry in map(json.loads, log) if "loss" in entry]


@pytest.mark.filterwarnings(
    "ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning"
)  # TRL calls it
def test_the_losses_stay_as_they_are(tmp_path: Path) -> None:
    plain = losses(tmp_path / "plain", TRAIN)
    assert len(plain) == TRAIN["max_steps"]
    for name, change in SAME.items():
        assert losses(tmp_path / name, TRAIN | change) == pytest.approx(plain, rel=1e-5), name


def test_every_second_layer_recomputed_takes_memory_in_between() -> None:
    batch = Batch((0, 1), 64, masked=False)
    saved = [step_memory(tuned(), batch, checkpointing=every, autocast=None).saved for every in (0, 2, 1)]
    assert saved == sorted(saved, reverse=True)
    assert saved[1] == pytest.approx((saved[0] + saved[2]) / 2, rel=0.05)
