"""`loracook explain`: of a recipe, of one with errors elsewhere, and without any; and the module as a command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loracook.cli import commands
from loracook.errors import RecipeError
from loracook.recipe.schema import all_keys

GOOD = "version: 1\nbase_model: {name_or_path: org/model}\ndataset: {path: org/rows}\nlora: {r: 8}\n"


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(commands, ["explain", *arguments], standalone_mode=False)


def test_a_key_is_explained_without_a_recipe() -> None:
    assert explain("lora.r").stdout.splitlines()[::4] == ["lora.r", "Passed as peft.LoraConfig(r=…)"]
    for path, part in all_keys():
        assert part["description"] in explain(".".join(map(str, path))).stdout


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (GOOD + "train: {lr: 1}\n", "lora.r: 8  # a.yaml:4"),
        (GOOD.replace("version: 1\n", ""), "lora.r: 8  # a.yaml:3"),
        (GOOD.replace("r: 8", "r: x"), "lora.r: x  # a.yaml:4"),
        (GOOD.replace("{r: 8}", "{}") + "dataset: 3\n", "lora.r"),
        (GOOD.replace("{r: 8}", "3"), "lora.r is not set"),
        (GOOD.replace("{r: 8}", "{}") + "push: {}\n", "lora.r: 16  # loracook"),
        (GOOD + "train: [\n", "lora.r"),
        ("- 1\n", "lora.r is not set"),
        (GOOD + "extends: gone.yaml\n", "lora.r"),
    ],
)
def test_a_key_is_explained_in_a_recipe_with_errors_elsewhere(text: str, first: str) -> None:
    Path("a.yaml").write_text(text)
    ran = explain("a.yaml", "lora.r")
    *lines, last = ran.stdout.splitlines()
    assert (lines[0], last) == (first, "a.yaml has 1 problem; run: loracook validate a.yaml")


def test_a_recipe_that_is_not_there_and_a_key_that_is_missing_are_refused() -> None:
    assert isinstance(explain("gone.yaml", "lora.r").exception, RecipeError)
    assert "a key alone" in str(explain("a.yaml").exception)


def test_python_runs_the_package_as_the_command() -> None:
    def said(*command: str) -> str:
        return subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout

    assert said(sys.executable, "-m", "loracook") == said(str(Path(sys.executable).parent / "loracook"))
