"""loracook is built as docs/architecture.md says: imports point down only, and light modules stay light."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import architecture

ROOT = Path(__file__).parents[2]
LOOP = {"a.py": "from loracook import b", "b.py": "def f() -> None:\n    from loracook.a import g"}
RECIPE_WALK = {
    "estimate/forecast.py": "from loracook import data\ndef forecast(recipe): data.prepare(recipe)",
    "data/__init__.py": "from loracook.data.rows import prepare",
    "data/rows.py": "from loracook.model import size\ndef prepare(recipe): size(recipe['train'])",
    "model.py": "def size(train): ...",
}


@pytest.fixture(scope="module")
def loracook() -> architecture.Package:
    return architecture.package()


def written(folder: Path, files: dict[str, str]) -> architecture.Package:
    """A package called loracook of the given files."""
    for name, text in {"__init__.py": "", **files}.items():
        (folder / "loracook" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "loracook" / name).write_text(text + "\n")
    return architecture.package(folder / "loracook")


def test_every_folder_and_top_level_file_has_a_layer(loracook: architecture.Package) -> None:
    assert architecture.unknown_folders(loracook) == []


def test_no_module_imports_from_a_higher_layer(loracook: architecture.Package) -> None:
    assert architecture.upward_imports(loracook) == []


def test_no_module_names_a_stage_but_the_list_of_them(loracook: architecture.Package) -> None:
    assert architecture.named_stages(loracook) == []


def test_a_recipe_enters_at_most_15_modules_on_its_way_through_a_plan(loracook: architecture.Package) -> None:
    assert len(architecture.recipe_walk(loracook)) <= 15


def test_no_modules_import_each_other_in_a_circle(loracook: architecture.Package) -> None:
    assert architecture.circles(loracook.imports) == []


def test_commands_and_the_public_functions_import_click_and_yaml_alone(
    loracook: architecture.Package,
) -> None:
    assert architecture.heavy_imports(loracook) == []


def test_the_picture_is_that_of_the_imports(loracook: architecture.Package) -> None:
    drawn = (ROOT / "docs" / "architecture.svg").read_text("utf-8")
    assert drawn == architecture.picture(loracook), "run make architecture"


def test_a_circle_through_a_function_is_seen(tmp_path: Path) -> None:
    circles = architecture.circles(written(tmp_path, LOOP).imports)
    assert circles == [["loracook.a", "loracook.b"]]


def test_an_upward_import_under_type_checking_is_seen(tmp_path: Path) -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from loracook.cli import run"
    package = written(tmp_path, {"store/files.py": text, "cli/run.py": "", "cli/__init__.py": ""})
    assert architecture.upward_imports(package) == [("loracook.store.files", "loracook.cli.run")]


def test_an_unlisted_folder_and_an_unlisted_file_are_seen(tmp_path: Path) -> None:
    package = written(tmp_path, {"utils/text.py": "", "data/write/rows.py": "", "helpers.py": ""})
    assert architecture.unknown_folders(package) == ["data/write", "helpers", "utils"]


def test_a_heavy_import_is_seen_through_light_modules_but_not_in_functions(tmp_path: Path) -> None:
    files = {
        "cli/__init__.py": "from loracook.store.files import read",
        "store/files.py": "import numpy\ndef read() -> None:\n    import torch",
    }
    assert architecture.heavy_imports(written(tmp_path, files)) == [("loracook.store.files", "numpy")]


def test_the_walk_follows_the_recipe_through_reexports_and_no_further_than_the_recipe(tmp_path: Path) -> None:
    package = written(tmp_path, RECIPE_WALK)
    assert architecture.recipe_walk(package) == ["loracook.estimate.forecast", "loracook.data"]
