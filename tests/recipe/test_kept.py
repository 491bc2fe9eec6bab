"""The recipe that a run keeps is the effective one, wherever it lies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from loracook.recipe.allowed import Allowed
from loracook.recipe.kept import KEPT, kept
from loracook.recipe.locations import local_paths
from loracook.recipe.recipe import Recipe, load
from loracook.recipe.schema import entries

VALID = Path(__file__).parents[1] / "recipes" / "valid"
SHARED = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
ALLOWED = Allowed((Path("/"),))


def reread(recipe: Recipe, folder: Path) -> Recipe:
    """A recipe as it loads from where a run keeps it."""
    folder.mkdir(parents=True)
    (folder / KEPT).write_text(kept(recipe, folder), "utf-8")
    return load(folder / KEPT, (), ALLOWED)


def places(recipe: Recipe) -> list[tuple[object, str]]:
    """Where the recipe's local paths stand, and what they lead to."""
    found = local_paths(dict(recipe.sections))
    return [
        (path, text if "://" in text else str((recipe.reach.folder / text).resolve())) for path, text in found
    ]


@pytest.mark.parametrize("file", [*sorted(VALID.glob("*.yaml")), *SHARED], ids=lambda file: file.stem)
def test_it_has_every_value_and_its_paths_lead_where_they_did(file: Path, tmp_path: Path) -> None:
    recipe = load(file, (), ALLOWED)
    again = reread(recipe, tmp_path / "runs" / "one" / "train-01234567")
    assert again.name == recipe.name
    assert places(again) == places(recipe)
    local = {path[:3] for path, _ in local_paths(dict(recipe.sections))} | {("name",)}
    values = [
        {path: value for path, value in entries(dict(each.sections)) if not isinstance(value, dict | list)}
        for each in (recipe, again)
    ]
    differing = {path[:3] for path, value in values[1].items() if values[0].get(path) != value}
    assert (differing <= local | {("dataset", "path")}, values[0].keys() - values[1].keys()) == (True, set())


def test_files_that_a_builder_of_datasets_reads_and_columns_named_path_are_told_apart(tmp_path: Path) -> None:
    text = """\
version: 1
base_model: {name_or_path: org/model}
dataset:
  path: json
  data_files: [rows/a.json, ./b.json]
  where: {path: ./not-a-file}
  eval: {data_files: c.json}
lora: {r: 4}
"""
    (tmp_path / "soup.yaml").write_text(text)
    again = reread(load(tmp_path / "soup.yaml"), tmp_path / "runs" / "soup" / "train-01234567")
    assert again.name == "soup"
    assert again["dataset"]["data_files"] == ["../../../rows/a.json", "../../../b.json"]
    assert again["dataset"]["eval"]["data_files"] == "../../../c.json"
    assert again["dataset"]["where"] == {"path": "./not-a-file"}


def test_values_of_the_command_line_and_of_parents_are_in_it(tmp_path: Path) -> None:
    shutil.copytree(VALID / "parents", tmp_path / "parents")
    shutil.copy(VALID / "child.yaml", tmp_path)
    recipe = load(tmp_path / "child.yaml", ("lora.r=3",))
    again = reread(recipe, tmp_path / "kept")
    assert (again["lora"]["r"], again.sections.get("extends")) == (3, None)


def test_a_run_in_the_recipe_s_repository_may_read_what_the_recipe_may(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    shutil.copy(VALID / "local-model.yaml", tmp_path)
    recipe = load(tmp_path / "local-model.yaml")
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / KEPT).write_text(kept(recipe, folder), "utf-8")
    assert load(folder / KEPT)["base_model"]["name_or_path"].startswith("../../")
