"""The shipped recipes cook end to end on tiny models of the same architecture."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import loracook
from loracook import model
from loracook.model.adapter_effect import effects
from loracook.model.base_weights import open_weights
from loracook.model.lora_factors import read_adapter
from loracook.store.record import read_record
from tests.tiny_recipes import RECIPES, TWINS, twin

SHORT = {"rows": 2, "generation": {"max_new_tokens": 4}}


@pytest.mark.parametrize("shipped", TWINS)
def test_every_shipped_recipe_trains_two_steps_on_a_tiny_model(shipped: str, tmp_path: Path) -> None:
    written = yaml.safe_load((RECIPES / f"{shipped}.yaml").read_text("utf-8"))
    sections = {name: None for name in ("evaluate", "merge", "push") if name in written}
    recipe = twin(shipped, tmp_path, **sections)
    record = loracook.run(recipe, tmp_path / "runs")["train"]
    log = next((tmp_path / "runs").glob("*/train-*/log.jsonl"))
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    assert record["result"]["steps"] == 2
    assert sum("loss" in entry for entry in logged) == 2
    assert record["result"]["parameters"]["trainable"] > 0
    assert record["sections"]["lora"] == recipe["lora"]


@pytest.fixture(scope="module")
def phi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of phi2-oasst on a tiny Phi, NF4 and all, published to a folder."""
    folder = tmp_path_factory.mktemp("phi")
    recipe = twin(
        "phi2-oasst", folder, evaluate=SHORT, push={"repo_id": None, "private": None, "folder": "published"}
    )
    loracook.run(recipe, folder / "runs")
    return folder


def test_a_recipe_runs_through_every_stage(phi: Path) -> None:
    run = phi / "runs" / "phi2-oasst"
    assert sorted(path.name for path in (run / "latest").iterdir()) == ["evaluate", "merge", "push", "train"]
    assert {path.name for path in (run / "published").iterdir()} >= {"README.md", "adapter_model.safetensors"}
    generations = [
        json.loads(line) for line in (run / "latest/evaluate/generations.jsonl").read_text().splitlines()
    ]
    assert len(generations) == 4
    assert set(generations[0]) == {"prompt", "reference", "base", "adapter", "cut", "tokens", "scores", "set"}
    metrics = json.loads((run / "latest/evaluate/metrics.json").read_text())
    assert set(metrics["base"]) == set(metrics["adapter"]) == {"loss", "perplexity", "rouge", "chrf"}


def test_the_report_draws_what_the_adapter_changed_as_inspect_computes_it(phi: Path) -> None:
    run = phi / "runs" / "phi2-oasst"
    stated = read_record(run / "latest/train")["result"]["effects"]
    found, _ = effects(read_adapter(run / "latest/train/adapter"), open_weights(phi / "model"))
    assert stated == [asdict(each) for each in found]
    assert all(each["norm"] > 0 and each["base_norm"] > 0 for each in stated)
    assert "What the adapter changed" in (run / "report.html").read_text("utf-8")


def test_the_merged_model_answers_as_the_adapter_does(phi: Path, cache: Path) -> None:
    recipe = loracook.load(phi / "recipe.yaml")
    run = phi / "runs" / "phi2-oasst" / "latest"
    tokenizer = AutoTokenizer.from_pretrained(run / "merge/model")
    merged = AutoModelForCausalLM.from_pretrained(run / "merge/model", dtype="auto").eval()
    base = model.load_model(recipe, model.fetch(recipe, cache))  # in 4 bit, as it was trained
    tuned = model.load_tuned(recipe, base, run / "train/adapter")
    assert merged.dtype == torch.bfloat16
    assert tokenizer.eos_token_id in merged.generation_config.eos_token_id
    for text in ("Why?", "The soup", "720 ml", "helpful assistant", '{"table": 4}'):
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            a, b = merged(**inputs).logits.float(), tuned(**inputs).logits.float()
        assert (a - b).norm() / b.norm() < 0.02


def test_the_adapter_loads_with_plain_peft_and_names_its_base(phi: Path) -> None:
    config = json.loads((phi / "runs/phi2-oasst/latest/train/adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "./model"
    assert config["task_type"] == "CAUSAL_LM"


def test_a_finished_run_changes_nothing(phi: Path) -> None:
    recipe = loracook.load(phi / "recipe.yaml")
    before = {path: path.stat().st_mtime_ns for path in (phi / "runs").rglob("*")}
    assert loracook.plan(recipe, phi / "runs").to_do == ()
    loracook.run(recipe, phi / "runs")
    after = {path: path.stat().st_mtime_ns for path in (phi / "runs").rglob("*")}
    assert after == before
