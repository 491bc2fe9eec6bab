"""`loracook diff` compares recipes and the recipes that runs were made from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loracook.cli import commands
from loracook.errors import LoracookError, MachineError
from loracook.recipe.recipe import load
from tests.records import READS, finished_stage, sections

SOUP = """\
version: 1
base_model: {name_or_path: org/model}
dataset: {path: org/rows, eval: {rows: 5}}
lora: {r: 8}
train: {learning_rate: 1e-4}
evaluate: {rows: 5}
merge: {}
"""
SALT = SOUP.replace("1e-4", "2e-4").replace("rows: 5}\nmerge: {}", "rows: 3}")


@pytest.fixture(autouse=True)
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two recipes and the runs made from them, of which one was merged, too."""
    monkeypatch.chdir(tmp_path)
    for name, text in {"soup": SOUP, "salt": SALT}.items():
        Path(f"{name}.yaml").write_text(text)
        recipe, run = load(f"{name}.yaml"), Path("runs") / name
        train = finished_stage(run, "train-0000000a", **sections(recipe, *READS))
        finished_stage(run, "evaluate-0000000a", {}, before=(train,), **sections(recipe, "evaluate"))
    finished_stage(
        Path("runs/soup"), "merge-0000000a", {}, before=(train,), **sections(load("soup.yaml"), "merge")
    )


def diff(*arguments: str) -> list[str]:
    ran = invoked(*arguments)
    assert ran.exception is None, ran.exception
    return ran.stdout.splitlines()


def invoked(*arguments: str) -> Result:
    return CliRunner().invoke(commands, ["diff", *arguments], standalone_mode=False)


@pytest.mark.parametrize("first", ["soup.yaml", "runs/soup", "soup", "soup/train-0000000a"])
@pytest.mark.parametrize("second", ["salt.yaml", "runs/salt/", "salt"])
def test_recipes_run_folders_and_names_are_compared_alike(first: str, second: str) -> None:
    lines = diff(first, second)
    assert "train.learning_rate: 0.0001 (soup.yaml:5) → 0.0002 (salt.yaml:5)" in lines
    assert "evaluate.rows: 5 (soup.yaml:6) → 3 (salt.yaml:6)" in lines
    # Records say nothing of stages that were not run; the recipe says that it has none.
    assert any(line.startswith("merge.") for line in lines) == second.endswith(".yaml")


def test_a_run_and_its_recipe_do_not_differ_and_set_changes_the_second() -> None:
    assert diff("soup", "soup.yaml") == ["no difference in effective values"]
    assert diff("soup", "soup.yaml", "--set", "lora.r=16") == [
        "lora.r: 8 (soup.yaml:4) → 16 (--set:1)",
        "effect on a run:",
        "  trainable params: 2 times as many",
    ]
    assert isinstance(invoked("soup.yaml", "soup", "--set", "lora.r=16").exception, LoracookError)


@pytest.mark.parametrize(
    "claimed",
    [
        {},
        {"base_model": {"name_or_path": "../../../etc"}},
        {"base_model": {"name_or_path": "org/model"}, "dataset": [], "lora": {"r": "many"}},
        {"base_model": {"name_or_path": "org/model"}, "dataset": {"path": "org/rows"}, "lora": {"rank": 8}},
        {"lora": {"r": 8}, "train": {"learning_rate": "hf_abcdefghijklmnop"}},
    ],
)
def test_records_of_a_stranger_that_hold_no_recipe_are_refused(claimed: dict[str, object]) -> None:
    finished_stage(Path("runs/odd"), "train-0000000b", {}, sections=claimed)
    error = invoked("soup", "odd").exception
    assert isinstance(error, MachineError)
    assert str(error) == "the records of 'odd' do not hold a valid recipe; name the recipe itself"


def test_records_that_leave_values_out_get_loracook_s_own(tmp_path: Path) -> None:
    few = json.loads(json.dumps({key: load("soup.yaml")[key] for key in ("base_model", "dataset", "lora")}))
    finished_stage(Path("runs/few"), "train-0000000b", {}, sections=few)
    assert any(line.startswith("train.learning_rate: 0.0002 (loracook)") for line in diff("few", "soup.yaml"))
    finished_stage(Path("runs/later"), "evaluate-0000000a", {}, sections=few)
    assert isinstance(invoked("later", "soup").exception, MachineError)
