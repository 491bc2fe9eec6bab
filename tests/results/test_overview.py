"""`loracook runs` lists every run with its outcome, and a broken one with what is wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from loracook.cli import commands
from loracook.errors import LoracookError, MachineError, StoppedError
from loracook.recipe.recipe import load
from loracook.store.lock import locked
from loracook.store.record import keeping_failure, read_record, write_record
from tests.records import READS, finished_stage, sections

RECIPE = """\
version: 1
base_model: {name_or_path: org/model}
dataset: {path: org/rows, eval: {rows: 5}}
lora: {r: 8}
evaluate: {rows: 5, metrics: [json_match], require: {json_match: {at_least: 0.9}}}
"""
TRAINED = {"losses": {"loss": 0.5, "eval_loss": 0.75}}


@pytest.fixture(autouse=True)
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("soup.yaml").write_text(RECIPE)


def trained(name: str, digest: str = "0000000a") -> Path:
    recipe = load("soup.yaml")
    return finished_stage(Path("runs") / name, f"train-{digest}", result=TRAINED, **sections(recipe, *READS))


def evaluated(train: Path, json_match: float) -> Path:
    metrics = {"loss": 2.0, "perplexity": 7.4, "json_match": 0.1}
    result = {
        "base": metrics,
        "adapter": metrics | {"loss": 1.5, "json_match": json_match},
        "rows": dict.fromkeys(metrics, 5),
        **{name: {} for name in ("intervals", "wins", "ended", "answer_tokens", "adapters", "also")},
        "also_trained": 0,
        "notes": [],
    }
    of_recipe = sections(load("soup.yaml"), "evaluate")
    return finished_stage(train.parent, "evaluate-0000000a", {}, before=(train,), result=result, **of_recipe)


def runs(*arguments: str) -> list[str]:
    ran = CliRunner(env={"TZ": "UTC"}).invoke(commands, ["runs", *arguments], standalone_mode=False)
    if ran.exception:
        raise ran.exception
    return ran.stdout.splitlines()


def listed(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads("\n".join(runs(*arguments, "--format", "json")))
    return found


def outcomes() -> dict[str, tuple[str, str]]:
    """The outcome of each run, and its detail."""
    return {run["name"]: (run["outcome"], run["detail"]) for run in listed()}


def at(folder: Path, minute: int) -> None:
    """Put a folder and what is in it to a minute after the stages of `finished_stage`."""
    for path in (*folder.iterdir(), folder):
        os.utime(path, (seconds := 1_795_939_200 + 60 * minute, seconds))


def test_each_run_is_a_line_with_what_it_reached_the_newest_last() -> None:
    evaluated(trained("soup"), 0.95)
    trained("salt")
    old = Path("runs/salt/train-0000000a")
    record = read_record(old)
    write_record(old, record | {"finished": "2026-11-28T23:00:00+00:00"})
    lines = runs()
    assert [line.split()[0] for line in lines] == ["run", "salt", "soup"]
    assert [line.index("2026") for line in lines[1:]] == [lines[0].index("date")] * 2
    assert lines[1].split("  ")[-1] == "eval loss 0.75"
    assert "finished" in lines[2]
    assert lines[2].endswith("loss 2 → 1.5; json_match 10.0% → 95.0%")
    assert listed("runs/soup") == listed()[1:]
    os.chdir("runs/soup")
    assert [run["name"] for run in listed(".")] == ["soup"]


def test_sizes_are_those_of_all_files_of_a_run_folder() -> None:
    evaluated(trained("soup"), 0.95)
    trained("soup", "0000000b")
    Path("runs/soup/log.txt").write_text("x" * 5_000)
    on_disk = sum(path.lstat().st_size for path in Path("runs").rglob("*") if path.is_file())
    links = sum(path.lstat().st_size for path in Path("runs").rglob("*") if path.is_symlink())
    found = listed()
    assert [run["name"] for run in found] == ["soup/train-0000000a", "soup"]
    assert on_disk <= sum(run["bytes"] for run in found) <= on_disk + links


def test_a_stage_that_is_not_finished_is_named_with_its_checkpoint() -> None:
    started = Path("runs/new/train-0000000a")
    for step in (5, 10):
        (started / f"checkpoints/checkpoint-{step}").mkdir(parents=True)
    assert outcomes() == {"new": ("unfinished", "train")}
    (started / "checkpoints/checkpoint-5/manifest.json").write_text("{}")
    assert outcomes() == {"new": ("unfinished", "train, checkpoint-5")}

    train = trained("soup")
    (train.parent / "evaluate-0000000b").mkdir()
    assert outcomes()["soup"] == ("unfinished", "evaluate")
    at(train.parent / "evaluate-0000000b", -10)  # of an earlier run that was stopped
    assert outcomes()["soup"] == ("finished", "")


def test_a_stage_that_failed_is_named_with_its_error_until_it_is_done() -> None:
    train = trained("soup")
    failed = train.parent / "evaluate-0000000a"
    failed.mkdir()
    with pytest.raises(MachineError), keeping_failure(failed, [train]):
        raise MachineError("out of memory; set evaluate.batch_size: 1")
    assert outcomes() == {"soup": ("failed", "evaluate: out of memory; set evaluate.batch_size: 1")}
    assert runs()[-1].endswith("evaluate: out of memory; set evaluate.batch_size: 1")
    with locked(train.parent):
        assert outcomes() == {"soup": ("running", "")}
    shutil.rmtree(failed)
    evaluated(train, 0.95)
    assert outcomes() == {"soup": ("finished", "")}


def test_a_stage_that_a_signal_stopped_has_not_failed() -> None:
    train = trained("soup")
    (train.parent / "evaluate-0000000a").mkdir()
    with pytest.raises(StoppedError), keeping_failure(train.parent / "evaluate-0000000a", [train]):
        raise StoppedError("stopped")
    assert outcomes() == {"soup": ("unfinished", "evaluate")}


def test_a_training_that_was_stopped_is_listed_beside_the_finished_one() -> None:
    trained("soup")
    (Path("runs/soup") / "train-0000000b").mkdir()
    assert outcomes() == {"soup": ("finished", ""), "soup/train-0000000b": ("unfinished", "train")}


def test_a_run_at_work_is_known_by_its_lock() -> None:
    train = trained("soup")
    (train.parent / "evaluate-0000000b").mkdir()
    trained("salt")
    with locked(train.parent):
        assert outcomes() == {"soup": ("running", "evaluate"), "salt": ("finished", "")}
        assert "running: evaluate" in runs()[-1]
    Path("runs/new").mkdir()
    Path("runs/new/.lock").touch()
    with locked(Path("runs/new")):
        assert outcomes()["new"][0] == "running"


def test_a_gate_that_is_not_met_is_named_until_a_later_stage_shows_that_it_was_loosened() -> None:
    train = trained("soup")
    evaluated(train, 0.82)
    assert outcomes() == {"soup": ("gate not met", "json_match 82.0% is not at least 90.0%")}
    assert runs()[-1].endswith("json_match 10.0% → 82.0%; json_match 82.0% is not at least 90.0%")
    finished_stage(train.parent, "merge-0000000a", {}, before=(train,))
    assert outcomes() == {"soup": ("finished", "")}


def test_what_a_later_push_has_replaced_is_not_missing_from_an_earlier_one() -> None:
    fact = {"../published/README.md": {"bytes": 3, "sha256": ""}}
    for digest in ("0000000a", "0000000b"):
        train = trained("soup", digest)
        push = finished_stage(train.parent, f"push-{digest}", {}, before=(train,))
        write_record(push, read_record(push) | {"files": fact})
    assert {outcome for outcome, _ in outcomes().values()} == {"finished"}


def lose_weights(run: Path) -> None:
    next(run.glob("train-*/adapter/*")).unlink()


def cut_record(run: Path) -> None:
    (run / "train-0000000a/record.json").write_text("{")


def link_out(run: Path) -> None:
    (run / "log.txt").symlink_to("/etc/passwd")


def other_shape(run: Path) -> None:
    write_record(run / "evaluate-0000000a", read_record(run / "evaluate-0000000a") | {"result": {"base": 1}})


def other_losses(run: Path) -> None:
    write_record(run / "train-0000000a", read_record(run / "train-0000000a") | {"result": {"losses": [1]}})


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (lose_weights, "train-0000000a/adapter/adapter.safetensors is missing"),
        (cut_record, "train-0000000a/record.json is corrupt"),
        (link_out, "'runs/soup/log.txt' is a symbolic link, which no run makes"),
        (other_shape, "runs/soup/evaluate-0000000a/record.json is corrupt"),
        (other_losses, "runs/soup/train-0000000a/record.json is corrupt"),
    ],
)
def test_a_broken_run_is_listed_with_what_is_wrong(harm: Any, what: str) -> None:
    evaluated(trained("soup"), 0.95)
    trained("salt")
    harm(Path("runs/soup"))
    broken = [run for run in listed() if run["outcome"] == "broken"]
    assert [run["folder"] for run in broken] == ["runs/soup"]
    assert what in broken[0]["detail"]
    assert any(what.removeprefix("'runs/soup/") in line for line in runs())


@pytest.mark.parametrize("date", ["yesterday", "", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_date_that_is_none_is_that_of_the_files(date: str) -> None:
    train = trained("soup")
    write_record(train, read_record(train) | {"finished": date})
    assert listed()[0]["outcome"] == "finished"
    assert "soup" in runs()[-1]


def test_what_is_no_run_is_not_listed_and_a_link_is_named() -> None:
    Path("runs/notes").mkdir()
    Path("runs/.gitignore").write_text("*\n")
    assert runs() == ["no run in 'runs'"]
    trained("soup")
    Path("elsewhere").mkdir()
    Path("runs/soup").rename("elsewhere/soup")
    Path("runs/link").symlink_to("../elsewhere/soup")
    assert [(run["name"], run["outcome"]) for run in listed()] == [("link", "broken")]
    with pytest.raises(LoracookError, match="is no folder"):
        runs("nowhere")
