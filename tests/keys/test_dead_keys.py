"""No dead keys: another value of any key changes what upstream is given, rows, answers or the plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import loracook
from loracook.errors import LoracookError
from loracook.recipe.recipe import Recipe
from tests.keys.cases import BASE, KEYS, another, changed, context, prefixes
from tests.keys.effects import EFFECTS, Kitchen, write_data
from tests.tiny_models import write_twin

pytestmark = pytest.mark.slow
ELSEWHERE = {
    "merge.safe_merge": "is PEFT's where it merges the whole model, which is tested where that is done",
    "version": "there is one",
    "extends": "joins files, which is tested where that is done",
    "lora.task_type": "there is one",
    "evaluate.adapters": "names a trained adapter, which is tested where one is made",
    "lora.start_from": "names a trained adapter, which is tested where one is made",
    "lora.start_from_revision": "names a commit of one on the hub, which is tested where there is a hub",
    "tokenizer.name_or_path": "names another tokenizer, which is tested where one is made",
    "tokenizer.revision": "names a commit of one on the hub, which is tested where there is a hub",
    "export.format": "there is one",
    "evaluate.require": "decides what goes on, which is tested where that is done",
    "lm_eval.tasks.0.output_type": "goes with other keys, which is tested where rows are rendered",
    "train.dataloader_pin_memory": "is off wherever there is no GPU",
}
REFUSING = {
    "base_model.gguf_file": "the model has no file",
    "dataset.on_bad_row": "row 13 of bad.jsonl",
    "dataset.limits": "limit 0.0%",
}
"""Keys whose other value has a recipe refused, in these words; a refusal is no effect of any other key."""


def test_every_key_is_looked_at() -> None:
    assert {key.split(".")[0] for key in KEYS.keys() - ELSEWHERE.keys()} == {
        name.split(".")[0] for name in EFFECTS
    }


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ELSEWHERE])
def test_another_value_changes_something(key: str, kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(kitchen.root)
    given = changed(BASE, context(key))
    before = _outcome(key, kitchen, given)
    after = _outcome(key, kitchen, changed(given, {key: another(key, given)}))
    assert not isinstance(before, LoracookError), before
    refusal = next((REFUSING[name] for name in prefixes(key) if name in REFUSING), None)
    assert isinstance(after, LoracookError) == (refusal is not None), after
    assert (refusal or "") in str(after)
    assert str(before) != str(after)


@pytest.mark.parametrize("effect", EFFECTS)
def test_the_same_values_change_nothing(
    effect: str, kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(kitchen.root)
    key = next(key for key in KEYS if effect in prefixes(key))
    given = changed(BASE, context(key))
    assert str(_outcome(key, kitchen, given)) == str(_outcome(key, kitchen, given))


@pytest.fixture(scope="module")
def cooked(tmp_path_factory: pytest.TempPathFactory) -> Kitchen:
    """Tiny models, small data, and the finished stages of the base recipe."""
    root = tmp_path_factory.mktemp("kitchen")
    for model_type in ("llama", "phi"):
        write_twin(root / model_type, model_type)
    write_data(root)
    sections = BASE | {"evaluate": {"generation": {"max_new_tokens": 2}, "prompts": ["soup"]}, "merge": {}}
    recipe = _recipe(root / "whole.json", sections)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("LORACOOK_CACHE", str(root / "cache"))
        loracook.run(recipe, root / "runs")
        stages = loracook.plan(recipe, root / "runs").stages
    return Kitchen(root, {stage.name: stage.folder for stage in stages}, root)


@pytest.fixture
def kitchen(cooked: Kitchen, tmp_path: Path) -> Kitchen:
    """The cooked kitchen with a clean place to work in."""
    return replace(cooked, own=tmp_path)


def _outcome(key: str, kitchen: Kitchen, sections: Mapping[str, Any]) -> Any:
    """What the recipe comes to where the key matters; an error that the user gets is an outcome as well."""
    own = kitchen.own / str(len(list(kitchen.own.iterdir())))
    own.mkdir()
    recipe = _recipe(kitchen.root / f"{own.name}.json", sections)
    effect = next(EFFECTS[name] for name in prefixes(key)[::-1] if name in EFFECTS)
    try:
        return effect(replace(kitchen, own=own), recipe)
    except LoracookError as error:
        return error


def _recipe(file: Path, sections: Mapping[str, Any]) -> Recipe:
    file.write_text(json.dumps(sections), "utf-8")
    return loracook.load(file)
