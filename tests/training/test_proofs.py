"""What goes wrong between the processes of a training is found out, and named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from loracook.errors import MachineError
from loracook.progress import Silent
from loracook.recipe.recipe import load
from loracook.training.save import check_saved
from loracook.training.trainer import trainer
from tests.training.test_processes import kitchen

SABOTAGE = """
import os, sys, torch, loracook
from loracook.machine.signals import leave
from transformers import TrainerCallback

def trained(model):
    return next(weight for name, weight in model.named_parameters() if weight.requires_grad and "lora_B" in name)

class Sabotage(TrainerCallback):
    def on_train_begin(self, args, state, control, model, **_):
        if kind == "seed":
            torch.manual_seed(7)
        if kind == "adapter":
            trained(model).data += 0.01

    def on_pre_optimizer_step(self, args, state, control, model, **_):
        if kind == "later gradient" and state.global_step == 2:
            trained(model).grad.zero_()

kind = sys.argv[1]
callbacks = [Sabotage()] if os.environ["RANK"] == "1" else []
loracook.run(loracook.load("recipe.yaml"), callbacks=callbacks)
leave(0)
"""
FOUND = {
    "seed": None,
    "adapter": "the trained weights of process 1 are not those of process 0 after step 1",
    "later gradient": "the trained weights of process 1 are not those of process 0 at the end",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FOUND)
def test_a_process_that_trains_something_else_is_found_out(tmp_path: Path, kind: str) -> None:
    """Another state of random numbers is no harm: the order of rows is that of the first process."""
    folder = kitchen(tmp_path)
    (folder / "sabotage.py").write_text(SABOTAGE)
    ran = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "sabotage.py", kind],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
    )
    records = list(folder.glob("runs/*/train-*/record.json"))
    found = FOUND[kind]
    assert (ran.returncode == 0, len(records)) == ((False, 0) if found else (True, 1)), ran.stderr
    assert found is None or found in ran.stderr


def test_a_saved_adapter_that_is_not_the_trained_one_is_named(tmp_path: Path) -> None:
    folder = kitchen(tmp_path)
    sft = trainer(load(folder / "recipe.yaml"), tmp_path / "out", cache=tmp_path / "cache", progress=Silent())
    saved = tmp_path / "adapter"
    sft.model.save_pretrained(saved)
    check_saved(sft.model, saved)
    file = saved / "adapter_model.safetensors"
    whole = load_file(file)
    name = min(whole)
    slices = {
        "a slice": {name: whole[name][:1].clone()},
        "another": {name: whole[name] + 1},
        "none": {name: None},
    }
    for change in slices.values():
        save_file({key: value for key, value in (whole | change).items() if value is not None}, file)
        with pytest.raises(MachineError, match=f"does not hold the trained weight {name}"):
            check_saved(sft.model, saved)
