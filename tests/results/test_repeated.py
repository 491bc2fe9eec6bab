"""What repeating the first steps of a training says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from loracook.store.files import file_facts
from loracook.store.record import read_record, write_record
from tests import processes
from tests.tiny_recipes import twin_file

TRAIN = {"max_steps": 5, "logging_steps": 2, "lr_scheduler_type": "cosine", "save_steps": 1}
SAME = "the losses of the first 4 steps are the same, bit for bit\n"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, whose model drops units at random, and a finished run of it."""
    folder = tmp_path_factory.mktemp("kitchen")
    twin_file("opt-350m-lora", folder, train=TRAIN, evaluate=None, dataset={"rows": 24})
    assert processes.run("run", "recipe.yaml", cwd=folder).returncode == 0
    return folder


@pytest.fixture
def kitchen(trained: Path, tmp_path: Path) -> Path:
    """The same in a place of its own."""
    return Path(shutil.copytree(trained, tmp_path / "kitchen", symlinks=True))


def state(kitchen: Path) -> dict[str, int]:
    """The time at which each file of the runs was changed last."""
    return {str(path): path.stat().st_mtime_ns for path in (kitchen / "runs").rglob("*")}


def test_the_first_steps_have_the_same_losses_and_leave_the_run_as_it_is(kitchen: Path) -> None:
    before = state(kitchen)
    for name in ("opt-350m-lora", "runs/opt-350m-lora", "recipe.yaml"):
        again = processes.run("repeat", name, cwd=kitchen)
        assert (again.returncode, again.stdout.endswith(SAME)) == (0, True), again.stderr
    assert re.findall(r"^ +(\d+) .* none$", again.stdout, re.MULTILINE) == ["2", "4"]
    to_the_end = processes.run("repeat", "opt-350m-lora", "--steps", "9", cwd=kitchen)
    assert "first 5 steps are the same, bit for bit" in to_the_end.stdout
    assert state(kitchen) == before


def test_a_changed_row_is_named_and_one_that_is_not_trained_does_not_matter(kitchen: Path) -> None:
    rows = (kitchen / "rows.jsonl").read_text().splitlines(keepends=True)
    outcomes = []
    for number in range(12):
        changed = [line.replace("a", "A", 1) if number == place else line for place, line in enumerate(rows)]
        (kitchen / "rows.jsonl").write_text("".join(changed))
        again = processes.run("repeat", "opt-350m-lora", cwd=kitchen)
        outcomes.append(again.returncode)
        if again.returncode:
            break
    assert outcomes[-1] == 2
    assert re.search(
        r"rows\.jsonl was \w+…, now \w+…; prepared training row \d+ was '.*', now '.*A", again.stderr
    )


def test_a_changed_base_model_is_named(kitchen: Path) -> None:
    config = kitchen / "model/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dropout": 0.3}))
    again = processes.run("repeat", "opt-350m-lora", cwd=kitchen)
    assert again.returncode == 2
    assert re.search(
        r"train-\w+ cannot be repeated: config\.json was \w+…, now \w+…; change it back", again.stderr
    )


@pytest.mark.parametrize(
    ("factor", "threads", "code", "says"),
    [
        (1.001, None, 3, "up to 0.10% apart; expected: the same, bit for bit"),
        (1.001, 99, 0, "not expected to be the same bits: threads was 99, now 1"),
        (1.2, 99, 3, "up to 16.67% apart; expected: at most 3.0% apart"),
    ],
)
def test_other_losses_fail_beyond_what_another_machine_explains(
    kitchen: Path, factor: float, threads: int | None, code: int, says: str
) -> None:
    train = (kitchen / "runs/opt-350m-lora/latest/train").resolve()
    log = [json.loads(line) for line in (train / "log.jsonl").read_text().splitlines()]
    changed = [entry | ({"loss": entry["loss"] * factor} if "loss" in entry else {}) for entry in log]
    (train / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in changed))
    record = read_record(train)
    if threads:
        record["result"]["computed_on"]["threads"] = threads
    reseal(train, record)
    again = processes.run("repeat", "opt-350m-lora", cwd=kitchen)
    assert again.returncode == code
    assert says in again.stdout + again.stderr


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([{"step": 2, "loss": float("nan")}], "log.jsonl is corrupt; run its recipe again"),
        ([{"step": 2, "loss": float("inf")}], "log.jsonl is corrupt; run its recipe again"),
        ([{"step": -2, "loss": 1.0}], "log.jsonl is corrupt; run its recipe again"),
        ([{"step": 10**15, "loss": 1.0}], "has the loss of step 1000000000000000, which training does not log"),
    ],
)  # fmt: skip
def test_a_log_that_no_training_writes_is_refused(
    kitchen: Path, entries: list[dict[str, float]], says: str
) -> None:
    train = (kitchen / "runs/opt-350m-lora/latest/train").resolve()
    (train / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    reseal(train, read_record(train))
    again = processes.run("repeat", "opt-350m-lora", cwd=kitchen)
    assert again.returncode in (2, 3)
    assert again.stderr.count("\n") == 1
    assert says in again.stderr


def test_a_record_whose_files_are_no_pairs_is_refused(kitchen: Path) -> None:
    train = (kitchen / "runs/opt-350m-lora/latest/train").resolve()
    reseal(train, read_record(train) | {"read": [["config.json"], []]})
    again = processes.run("repeat", "opt-350m-lora", cwd=kitchen)
    assert (again.returncode, "does not say what training read" in again.stderr) == (2, True)


def reseal(train: Path, record: dict[str, Any]) -> None:
    """Write a record with the hashes of the files as they are now."""
    files = file_facts(train, exclude=train / "checkpoints")
    write_record(train, record | {"files": {name: files[name] for name in record["files"]}})
