"""Layers compiled one by one: the same losses, and a sentence where nothing can compile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loracook.errors import MachineError
from loracook.recipe.recipe import load
from loracook.training.compiled import LAYERS, check_compiler
from tests import processes
from tests.tiny_recipes import twin_file

TRAIN = {"max_steps": 4, "logging_steps": 1, "bf16": False, "activation_checkpointing": True}


@pytest.mark.slow
def test_compiled_layers_have_the_losses_of_uncompiled_ones(tmp_path: Path) -> None:
    """The compiler's own code is another matter: this is what is compiled, and that no length is compiled anew."""
    losses, speedups = {}, {}
    for compiles in (False, True):
        train = TRAIN | ({"torch_compile": True, "torch_compile_backend": "aot_eager"} if compiles else {})
        folder = tmp_path / str(compiles)
        twin_file("quickstart", folder, train=train, merge=None, push=None, evaluate=None)
        ran = processes.run("run", "recipe.yaml", cwd=folder)
        assert ran.returncode == 0, ran.stderr
        trained = next(folder.glob("runs/*/train-*"))
        log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
        losses[compiles] = [entry["loss"] for entry in log if "loss" in entry]
        speedups[compiles] = json.loads((trained / "record.json").read_text())["result"]["speedups"]
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)
    assert [LAYERS in each for each in speedups.values()] == [False, True]


def test_a_machine_without_a_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load(twin_file("quickstart", tmp_path, train={"torch_compile": True}))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        MachineError, match=r"requires a C\+\+ compiler; install g\+\+, or write torch_compile"
    ):
        check_compiler(recipe)
