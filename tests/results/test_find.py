"""A run is found by its recipe, its folder, a stage's folder or its name, with the stages that belong together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import loracook
from loracook.errors import LoracookError, MachineError, RecipeError
from loracook.recipe.recipe import load
from loracook.results.find import find
from loracook.store.runs import finished_runs
from tests.records import finished_stage

RECIPE = {
    "version": 1,
    "base_model": {"name_or_path": "org/model"},
    "dataset": {"path": "org/rows"},
    "lora": {"r": 8},
}
TRAIN, OLD = "train-0000000b", "train-0000000a"


@pytest.fixture(autouse=True)
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a run that trained and evaluated twice, the old training twice with other rows."""
    monkeypatch.chdir(tmp_path)
    run = Path("runs/soup")
    old = finished_stage(run, OLD)
    finished_stage(run, "evaluate-0000000a", {}, before=(old,))
    finished_stage(run, "evaluate-0000000b", {}, before=(old,))
    new = finished_stage(run, TRAIN)
    finished_stage(run, "evaluate-0000000c", {}, before=(new,))
    return tmp_path


def names(text: str) -> tuple[str, list[str]]:
    """The name of a run, and those of its stages' folders."""
    run = find(text)
    assert run.folder.resolve() == Path("runs/soup").resolve()
    return run.name, sorted(path.name for path in run.stages.values())


NEWEST = ("soup", ["evaluate-0000000c", TRAIN])
OLDER = (f"soup/{OLD}", ["evaluate-0000000b", OLD])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("soup", NEWEST),
        ("runs/soup", NEWEST),
        ("./runs/soup/", NEWEST),
        ("runs/soup/latest/train", NEWEST),
        ("soup/latest/evaluate", NEWEST),
        (f"soup/{TRAIN}", NEWEST),
        ("soup/evaluate-0000000c", NEWEST),
        (f"soup/{OLD}", OLDER),
        (f"runs/soup/{OLD}", OLDER),
        ("soup/evaluate-0000000b", OLDER),
        ("soup/evaluate-0000000a", ("soup/evaluate-0000000a", ["evaluate-0000000a", OLD])),
    ],
)
def test_what_belongs_together_is_found_by_any_of_its_names(text: str, found: tuple[str, list[str]]) -> None:
    assert names(text) == found


def test_the_folder_that_one_stands_in_and_an_absolute_path_are_names_too(
    kitchen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(str(kitchen / "runs/soup")) == NEWEST
    monkeypatch.chdir("runs/soup")
    assert find(".").name == "soup"
    assert find(".").stages.keys() == {"train", "evaluate"}
    monkeypatch.chdir(TRAIN)
    assert find("..").name == "soup"


def test_a_training_without_an_evaluation_of_its_own_gets_none_of_another() -> None:
    finished_stage(Path("runs/soup"), "train-0000000d")
    assert names("soup") == ("soup", ["train-0000000d"])
    assert [run.name for run in finished_runs(Path("runs/soup"))] == [f"soup/{OLD}", f"soup/{TRAIN}", "soup"]


def test_an_export_belongs_to_the_training_whose_merged_model_it_reads() -> None:
    run = Path("runs/soup")
    merged = finished_stage(run, "merge-0000000d", {}, before=(run / TRAIN,))
    finished_stage(run, "export-0000000e", {}, before=(merged,))
    assert names("soup") == ("soup", ["evaluate-0000000c", "export-0000000e", "merge-0000000d", TRAIN])
    assert [each.name for each in finished_runs(run)] == [f"soup/{OLD}", "soup"]


def test_records_that_name_one_another_are_no_endless_search() -> None:
    run = Path("runs/salt")
    first = finished_stage(run, "merge-0000000a", {})
    second = finished_stage(run, "export-0000000b", {}, before=(first,))
    shutil.rmtree(first)
    finished_stage(run, first.name, {}, before=(second,))
    assert find("salt").stages.keys() < {"merge", "export"}


def test_stages_whose_training_was_removed_are_still_a_run() -> None:
    finished_stage(Path("runs/salt"), "evaluate-0000000a", {}, before=(Path("runs/soup") / OLD,))
    assert find("salt").stages == {"evaluate": Path("runs/salt/evaluate-0000000a")}


def test_a_recipe_stands_for_its_own_stages_alone(kitchen: Path) -> None:
    Path("soup.yaml").write_text(json.dumps(RECIPE))
    with pytest.raises(LoracookError, match=r"^nothing of 'soup.yaml' is finished; run: loracook run soup"):
        find("soup.yaml")
    train = loracook.plan(load("soup.yaml")).stages[0].folder
    finished_stage(Path("runs/soup"), train.name)
    newest = finished_stage(Path("runs/soup"), "train-ffffffff")
    assert (find("soup.yaml").name, find("soup.yaml").stages) == (f"soup/{train.name}", {"train": train})
    with pytest.raises(LoracookError, match="is finished"):
        find("soup.yaml", overrides=("lora.r=4",))
    assert find("soup").stages["train"] == newest


def test_a_name_of_nothing_is_refused_with_one_that_is_close() -> None:
    with pytest.raises(LoracookError) as caught:
        find("soop")
    assert str(caught.value) == "'soop' is neither a recipe nor a run in 'runs'; did you mean 'soup'?"
    for nothing in ("", "pancakes", "runs", "soup/train-01234567", "../../etc", "a" * 5000):
        with pytest.raises(LoracookError, match=r"neither .*; to list the runs: loracook runs$"):
            find(nothing)
    with pytest.raises(RecipeError, match=r"no such file"):
        find("soop.yaml")
    with pytest.raises(LoracookError, match=r"^--set changes a recipe, and 'soup' is none"):
        find("soup", overrides=("lora.r=4",))


def test_what_is_not_finished_or_leads_elsewhere_is_not_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "runs/new/train-0000000a").mkdir(parents=True)
    for text in ("new", "new/train-0000000a"):
        with pytest.raises(LoracookError, match=r"^nothing in 'runs/new.*' is finished"):
            find(text)
    Path("runs/soup/latest/merge").symlink_to("/etc")
    for text in ("soup", "soup/latest/merge", f"soup/{OLD}"):
        with pytest.raises(MachineError, match="is a symbolic link"):
            find(text)


def test_a_corrupt_record_and_one_of_another_stage_make_nothing_finished() -> None:
    Path("runs/soup", TRAIN, "record.json").write_text("{}")
    Path("runs/soup", OLD).rename("runs/soup/train-0000000f")
    assert [sorted(run.stages) for run in finished_runs(Path("runs/soup"))] == [["evaluate"], ["evaluate"]]
