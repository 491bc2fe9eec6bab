"""Other adapters on the same base model, evaluated beside the recipe's own in one load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from loracook import model, runner
from loracook.errors import LoracookError, RecipeError
from loracook.recipe.recipe import Recipe, load
from tests.tiny_recipes import twin

SHORT: dict[str, Any] = {"prompts": ["Why?", "The soup"], "generation": {"max_new_tokens": 4}}
ADAPTERS = {"last-week": "./last-week", "copy": "./copy"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training with two adapters beside it: one of another rank, and its own once more."""
    folder = tmp_path_factory.mktemp("kitchen")
    recipe = twin("opt-350m-lora", folder, evaluate=SHORT, dataset={"eval": {"rows": 4}})
    runner.run(recipe, runs=folder / "runs", only="train")
    own = next((folder / "runs").glob("*/train-*/adapter"))
    shutil.copytree(own, folder / "copy")
    torch.manual_seed(1)
    base = model.load_model(recipe, folder / "model")
    config = LoraConfig(r=3, target_modules=["q_proj", "fc1"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(base, config).save_pretrained(folder / "last-week")
    file = folder / "last-week" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"init_lora_weights": True}))
    return folder


def with_adapters(folder: Path, adapters: dict[str, str]) -> Recipe:
    """The recipe of that training, with other adapters to evaluate."""
    sections = json.loads((folder / "recipe.yaml").read_text())
    sections["evaluate"] = SHORT | {"adapters": adapters}
    (folder / "more.yaml").write_text(json.dumps(sections | {"name": "opt-350m-lora"}))
    return load(folder / "more.yaml")


def test_each_adapter_is_measured_and_two_that_are_one_are_named(trained: Path) -> None:
    records = runner.run(with_adapters(trained, ADAPTERS), runs=trained / "runs")
    measured = records["evaluate"]["result"]
    assert set(measured["adapters"]) == set(ADAPTERS)
    assert measured["adapters"]["copy"] == measured["adapter"]
    assert measured["adapters"]["last-week"]["loss"] != measured["base"]["loss"]
    assert measured["notes"] == ["'copy' gives exactly the losses and answers of 'adapter'"]
    assert set(measured["intervals"]["loss"]) == {"base", "adapter", *ADAPTERS, "difference"}
    lines = next((trained / "runs").glob("*/evaluate-*/generations.jsonl")).read_text().splitlines()
    assert {"base", "adapter", *ADAPTERS} <= set(json.loads(lines[0]))


def test_the_figures_of_an_adapter_are_those_of_its_own_evaluation(trained: Path) -> None:
    """No side's weights are another's: what `last-week` measures is what it measures alone."""
    recipe = with_adapters(trained, ADAPTERS)
    measured = runner.run(recipe, runs=trained / "runs")["evaluate"]["result"]
    base = model.load_model(recipe, trained / "model")
    tuned = get_peft_model(base, LoraConfig.from_pretrained(trained / "last-week")).eval()
    tuned.load_adapter(trained / "last-week", "default")
    rows = next((trained / "runs").glob("*/evaluate-*/metrics.json"))
    assert json.loads(rows.read_text())["adapters"] == measured["adapters"]
    assert measured["adapters"]["last-week"]["loss"] == pytest.approx(_loss(tuned, recipe, trained), rel=1e-3)


def _loss(tuned: Any, recipe: Recipe, folder: Path) -> float:
    from loracook import data
    from loracook.progress import Silent

    tokenizer = model.load_tokenizer(recipe, next((folder / "runs").glob("*/train-*/adapter")))
    rows = data.prepare(recipe, tokenizer, folder / "cache", progress=Silent()).evaluation
    assert rows is not None
    total = tokens = 0.0
    for row in rows:
        labels = torch.tensor([row["labels"]])
        with torch.no_grad():
            loss = float(tuned(torch.tensor([row["input_ids"]]), labels=labels).loss)
        count = int((labels[:, 1:] != -100).sum())
        total, tokens = total + loss * count, tokens + count
    return total / tokens


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft_type": "IA3"}, "it is of another kind"),
        ({"r": 2_000_000}, "r: .* is too large"),
        ({"target_modules": "(.*.*)*Z"}, "target_modules"),
        ({"use_qalora": True}, "'use_qalora' is not supported"),
        ({"r": 5}, "its weights do not fit this base model"),
    ],
    ids=str,
)
def test_an_adapter_that_no_recipe_could_make_is_refused(
    change: dict[str, Any], says: str, trained: Path
) -> None:
    folder = trained / "strange"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(trained / "last-week", folder)
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    recipe = with_adapters(trained, {"strange": "./strange"})
    with pytest.raises(RecipeError, match=rf"evaluate\.adapters\.strange: no LoRA adapter .*{says}"):
        runner.run(recipe, runs=trained / "runs")


def test_a_pickle_or_a_link_elsewhere_is_no_adapter(trained: Path) -> None:
    folder = trained / "pickled"
    shutil.copytree(trained / "last-week", folder, dirs_exist_ok=True)
    weights = folder / "adapter_model.safetensors"
    torch.save(load_file(weights), folder / "adapter_model.bin")
    weights.unlink()
    recipe = with_adapters(trained, {"pickled": "./pickled"})
    with pytest.raises(LoracookError, match=r"pickled: has no adapter_model\.safetensors"):
        runner.run(recipe, runs=trained / "runs")
    save_file({"x": torch.zeros(1)}, trained.parent / "elsewhere.safetensors")
    weights.symlink_to(trained.parent / "elsewhere.safetensors")
    with pytest.raises(RecipeError, match=r"evaluate\.adapters\.pickled: "):
        runner.run(recipe, runs=trained / "runs")
