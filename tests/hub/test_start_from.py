"""An adapter on the hub that training starts from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tests import processes
from tests.hub.server import Files, Hub
from tests.tiny_recipes import twin_file

LEFT_OUT = dict.fromkeys(("r", "lora_alpha", "lora_dropout", "target_modules"))


@pytest.fixture
def recipe(hub: Hub, tmp_path: Path) -> Path:
    """A recipe that trains an adapter on the hub further."""
    lora = LEFT_OUT | {"start_from": "team/adapter"}
    file = twin_file("opt-350m-lora", tmp_path, lora=lora, dataset={"eval": None}, evaluate=None)
    hub.create("team/adapter", files=adapter(tmp_path, seed=1))
    return file


def adapter(folder: Path, seed: int) -> Files:
    """The files of an adapter that PEFT has made itself."""
    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(folder / "model")
    config = LoraConfig(r=3, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(base, config).save_pretrained(folder / "adapter")
    file = folder / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"init_lora_weights": True}))
    return {path.name: path.read_bytes() for path in (folder / "adapter").iterdir()}


@pytest.mark.slow
def test_a_second_round_from_the_hub_names_the_commit_and_asks_no_more(
    hub: Hub, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hub.repositories["team/adapter"].branches["main"]
    done = processes.run("run", recipe.name, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(next(tmp_path.glob("runs/*/train-*/record.json")).read_text())
    assert record["sections"]["lora"]["start_from_revision"] == first
    assert (record["sections"]["lora"]["r"], record["origins"]["lora.r"]) == (3, "start_from")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = processes.run("run", recipe.name, cwd=tmp_path)
    assert "everything is done; nothing was run" in again.stdout
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    hub.repositories["team/adapter"].commit("main", adapter(tmp_path, seed=2))
    assert "to do" in processes.run("plan", recipe.name, cwd=tmp_path).stdout
    pinned = processes.run("plan", recipe.name, "--set", f"lora.start_from_revision={first}", cwd=tmp_path)
    assert "everything is done" in pinned.stdout


def test_pickles_and_what_is_no_adapter_are_refused(hub: Hub, recipe: Path, tmp_path: Path) -> None:
    files = adapter(tmp_path, seed=1)
    files["adapter_model.bin"] = files.pop("adapter_model.safetensors")
    hub.create("team/pickled", files=files)
    for name, says in (
        ("team/pickled", "has no adapter_model.safetensors; name the folder of a LoRA adapter"),
        ("team/none", "no 'team/none', or it is private; check the id, or run: hf auth login"),
    ):
        refused = processes.run("plan", recipe.name, "--set", f"lora.start_from={name}", cwd=tmp_path)
        assert refused.returncode == 2
        assert refused.stderr.endswith(f"lora.start_from: {says}\n")
