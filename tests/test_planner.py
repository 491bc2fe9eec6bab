"""Which changes make a new folder, and which leave a stage done."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import loracook
from loracook.planner import PlannedStage, examined
from loracook.store.files import MANIFEST, file_facts
from loracook.store.record import RECORD, weight_hashes, why_not_done, write_record
from loracook.views.plan_details import PlanDetails
from loracook.views.plan_json import as_json
from loracook.views.plan_text import detail_lines
from tests.records import record

WEIGHTS = "adapter/adapter.safetensors"
RECIPE: dict[str, Any] = {
    "version": 1,
    "name": "soup",
    "base_model": {"name_or_path": "org/model"},
    "dataset": {"path": "./rows.jsonl", "format": "prompt_completion", "eval": {"rows": 2}},
    "template": {"chat_template": "./chat.jinja"},
    "lora": {"r": 8},
    "train": {"learning_rate": 2e-4},
    "evaluate": {"rows": 2, "metrics": ["exact_match"]},
    "merge": {"dtype": "float32"},
    "push": {"folder": "published"},
}


@pytest.fixture
def kitchen(tmp_path: Path) -> Path:
    folder = tmp_path / "kitchen"
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 4)
    (folder / "chat.jinja").write_text("{{ messages[0].content }}")
    return folder


def digests(folder: Path, recipe: dict[str, Any], name: str = "recipe.yaml") -> dict[str, str]:
    """The digest of each stage of a recipe."""
    (folder / name).write_text(json.dumps(recipe))
    return {stage.name: stage.digest for stage in loracook.plan(loracook.load(folder / name)).stages}


def changed(folder: Path, section: str, values: dict[str, Any]) -> set[str]:
    """The stages whose folder changes with these values of a section."""
    before = digests(folder, RECIPE)
    after = digests(folder, RECIPE | {section: RECIPE.get(section, {}) | values})
    return {name for name in after if after[name] != before.get(name)}


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("base_model", {"dtype": "float32"}),
        ("base_model", {"revision": "abc"}),
        ("tokenizer", {"pad_token": "<pad>"}),
        ("dataset", {"rows": 3}),
        ("dataset", {"eval": {"rows": 3}}),
        ("template", {"system": "Cook."}),
        ("quantization", {"load_in_4bit": True}),
        ("lora", {"r": 16}),
        ("train", {"learning_rate": 1e-4}),
        ("train", {"seed": 7}),
    ],
)
def test_what_training_reads_makes_every_folder_new(
    kitchen: Path, section: str, values: dict[str, Any]
) -> None:
    assert changed(kitchen, section, values) == {"train", "evaluate", "merge", "push"}


@pytest.mark.parametrize(
    "values", [{"save_total_limit": 1}, {"logging_steps": 1}, {"save_steps": 7}, {"save_strategy": "epoch"}]
)
def test_what_changes_no_weights_changes_no_folder(values: dict[str, Any], kitchen: Path) -> None:
    assert changed(kitchen, "train", values) == set()


def test_where_the_best_checkpoint_is_the_result_what_is_saved_decides(kitchen: Path) -> None:
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 4}
    every_step, every_second = (
        digests(kitchen, RECIPE | {"train": {**best, "save_steps": steps}}) for steps in (1, 2)
    )
    assert every_step["train"] != every_second["train"]


@pytest.mark.parametrize("file", ["rows.jsonl", "chat.jinja"])
def test_the_content_of_local_files_makes_every_folder_new(kitchen: Path, file: str) -> None:
    before = digests(kitchen, RECIPE)
    with (kitchen / file).open("a") as opened:
        opened.write('{"prompt": "c", "completion": "d"}\n')
    after = digests(kitchen, RECIPE)
    assert {name for name in after if after[name] != before[name]} == set(after)


def test_the_names_of_local_files_make_every_folder_new(kitchen: Path) -> None:
    (kitchen / "rows").mkdir()
    (kitchen / "rows.jsonl").rename(kitchen / "rows" / "soup.jsonl")
    recipe = RECIPE | {"dataset": RECIPE["dataset"] | {"path": "./rows"}}
    before = digests(kitchen, recipe)
    (kitchen / "rows" / "soup.jsonl").rename(kitchen / "rows" / "soup.txt")
    after = digests(kitchen, recipe)
    assert {name for name in after if after[name] != before[name]} == set(after)


def test_a_recipe_that_is_moved_with_its_files_has_the_same_folders(kitchen: Path, tmp_path: Path) -> None:
    before = digests(kitchen, RECIPE)
    kitchen.rename(tmp_path / "elsewhere")
    assert digests(tmp_path / "elsewhere", RECIPE) == before


@pytest.mark.parametrize(
    ("section", "values", "stages"),
    [
        ("evaluate", {"seed": 3}, {"evaluate", "push"}),
        ("merge", {"dtype": "bfloat16"}, {"merge"}),
        ("push", {"what": "merged"}, {"push"}),
    ],
)
def test_later_sections_leave_the_stages_before_them(
    kitchen: Path, section: str, values: dict[str, Any], stages: set[str]
) -> None:
    assert changed(kitchen, section, values) == stages


def test_comments_order_and_the_files_name_change_nothing(kitchen: Path) -> None:
    before = digests(kitchen, RECIPE)
    turned = {name: RECIPE[name] for name in reversed(RECIPE)}
    assert digests(kitchen, turned, "other.yaml") == before
    (kitchen / "recipe.yaml").write_text("# a comment\n" + json.dumps(RECIPE) + "\n# another\n")
    again = loracook.plan(loracook.load(kitchen / "recipe.yaml"))
    assert {stage.name: stage.digest for stage in again.stages} == before


def test_writing_out_a_default_value_changes_nothing(kitchen: Path) -> None:
    assert changed(kitchen, "train", {"seed": 42}) == set()


def test_a_record_with_all_its_files_makes_a_stage_done(kitchen: Path) -> None:
    assert planned(kitchen, finished(kitchen)).done


def turn_a_bit(file: Path) -> None:
    """Change a file as a failing disk might: its size and its time of writing stay."""
    before, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def put_another_in_its_place(folder: Path) -> None:
    """Move a folder that was made earlier to where the adapter's was."""
    shutil.rmtree(folder / "adapter")
    (folder.parent / "older").rename(folder / "adapter")


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda folder: (folder / WEIGHTS).unlink(), f"{WEIGHTS} is missing"),
        (lambda folder: (folder / WEIGHTS).write_text("ab"), f"{WEIGHTS} is corrupt (size mismatch)"),
        (lambda folder: turn_a_bit(folder / WEIGHTS), f"{WEIGHTS} is corrupt (hash mismatch)"),
        (put_another_in_its_place, f"{WEIGHTS} is corrupt (hash mismatch)"),
        (lambda folder: turn_a_bit(folder / RECORD), "record.json is corrupt"),
        (lambda folder: (folder / RECORD).write_text("{"), "record.json is corrupt"),
        (lambda folder: (folder / RECORD).write_text("[]"), "record.json is corrupt"),
        (lambda folder: (folder / RECORD).write_text("null"), "record.json is corrupt"),
        (lambda folder: (folder / RECORD).write_text('{"files": []}'), "record.json is corrupt"),
        (lambda folder: (folder / RECORD).write_bytes(b"\xff"), "record.json is corrupt"),
        (lambda folder: (folder / RECORD).unlink(), ""),
    ],
)
def test_a_stage_with_a_fault_is_to_do_and_says_why(kitchen: Path, harm: Any, why: str) -> None:
    runs = finished(kitchen)
    harm(planned(kitchen, runs).folder)
    again = planned(kitchen, runs)
    assert state(again) == (False, why)


def test_the_plan_names_the_checkpoint_that_an_interrupted_run_resumes_from(kitchen: Path) -> None:
    runs = finished(kitchen)
    folder = planned(kitchen, runs).folder
    for step in (8, 16, 24, 100):
        (folder / f"checkpoints/checkpoint-{step}").mkdir(parents=True)
    assert planned(kitchen, runs).resumes_from == ""
    (folder / RECORD).unlink()
    assert planned(kitchen, runs).resumes_from == ""  # none is sealed
    for step in (8, 16):
        (folder / f"checkpoints/checkpoint-{step}/{MANIFEST}").write_text("{}")
    before = sorted(folder.rglob("*"))
    details = PlanDetails(loracook.plan(loracook.load(kitchen / "recipe.yaml"), runs), None)
    assert detail_lines(details) == ["resumes   train from checkpoint-16, if its files are intact"]
    assert [stage["resumes_from"] for stage in as_json(details)["stages"]] == ["checkpoint-16", "", "", ""]
    assert sorted(folder.rglob("*")) == before


def test_a_record_that_a_kill_left_half_written_is_no_file_of_the_stage(tmp_path: Path) -> None:
    (tmp_path / f".{RECORD}.part").write_text("{")
    write_record(tmp_path, record(files=file_facts(tmp_path)))
    assert why_not_done(tmp_path, ()) is None


def test_a_copied_run_is_done(kitchen: Path) -> None:
    runs = finished(kitchen)
    shutil.copytree(runs, kitchen / "copy")  # the record before the weights, or after them
    (kitchen / "copy" / planned(kitchen, runs).folder.relative_to(runs) / WEIGHTS).touch()
    assert planned(kitchen, kitchen / "copy").done


def test_a_stage_is_done_until_those_before_it_come_out_otherwise(kitchen: Path) -> None:
    train, _, merge, _ = stages(kitchen, finished(kitchen))
    merge.folder.mkdir()
    write_record(merge.folder, record(before=weight_hashes([train.folder])))
    kept = (train.folder / RECORD).rename(train.folder / "kept")
    assert state(examined(merge)) == (True, "")
    kept.rename(train.folder / RECORD)
    assert state(examined(merge)) == (True, "")

    write_record(train.folder, record(files={WEIGHTS: {"bytes": 3, "sha256": "another"}}))
    assert state(examined(merge)) == (False, f"the weights in {train.folder.name} have changed")


def state(stage: PlannedStage) -> tuple[bool, str]:
    return stage.done, stage.fault


def stages(kitchen: Path, runs: Path) -> tuple[PlannedStage, ...]:
    """The stages as planned below a runs folder."""
    (kitchen / "recipe.yaml").write_text(json.dumps(RECIPE))
    return loracook.plan(loracook.load(kitchen / "recipe.yaml"), runs).stages


def planned(kitchen: Path, runs: Path) -> PlannedStage:
    """The train stage as planned below a runs folder."""
    return stages(kitchen, runs)[0]


def finished(kitchen: Path) -> Path:
    """A runs folder in which the train stage is done, and an older adapter that looks alike lies about."""
    runs = kitchen / "runs"
    folder = planned(kitchen, runs).folder
    for place, content in ((folder.parent / "older", "cba"), (folder / "adapter", "abc")):
        place.mkdir(parents=True)
        (place / "adapter.safetensors").write_text(content)
    write_record(folder, record(files=file_facts(folder)))
    return runs
