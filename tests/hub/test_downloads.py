"""A base model and data that come from a hub: one on the loopback, asked by the real client."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import processes
from tests.hub.server import Files, Hub
from tests.tiny_recipes import twin_file


@pytest.fixture
def recipe(hub: Hub, tmp_path: Path) -> Path:
    """A recipe whose model and rows are on the hub and nowhere else."""
    sections: dict[str, Any] = {
        "base_model": {"name_or_path": "team/opt"},
        "dataset": {"path": "team/quotes", "eval": None},
        "evaluate": None,
    }
    file = twin_file("opt-350m-lora", tmp_path, **sections)
    hub.create("team/opt", files=taken(tmp_path / "model"))
    hub.create("team/quotes", files={"train.jsonl": (tmp_path / "rows.jsonl").read_bytes()})
    (tmp_path / "rows.jsonl").unlink()
    return file


def taken(folder: Path) -> Files:
    """The files of a folder, which is no more."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    return files


def loracook(recipe: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A verb in a process of its own."""
    return processes.run(*command, recipe.name, cwd=recipe.parent)


def test_a_run_fetches_model_and_rows_and_records_their_commit(hub: Hub, recipe: Path) -> None:
    done = loracook(recipe, "run")
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(next(recipe.parent.glob("runs/*/train-*/record.json")).read_text())
    assert record["result"]["base_commit"] == hub.repositories["team/opt"].branches["main"]
    assert record["result"]["data"]["statistics"]["rows"]["train"] == 160
    asked = len(hub.asked)
    again = loracook(recipe, "run")
    assert "everything is done; nothing was run" in again.stdout
    assert len(hub.asked) == asked


@pytest.mark.slow
def test_several_processes_fetch_and_prepare_once(hub: Hub, recipe: Path) -> None:
    done = loracook(recipe, "run", "--processes", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert (hub.read["model.safetensors"], hub.read["train.jsonl"]) == (1, 1)
    assert done.stdout.count("using cached prepared rows") == 1


def test_a_plan_fetches_no_weights(hub: Hub, home: Path, recipe: Path) -> None:
    planned = loracook(recipe, "plan", "--format", "json")
    assert (planned.returncode, planned.stderr) == (0, "")
    assert json.loads(planned.stdout)["steps"]["total"] == 2
    assert not list(home.glob("**/*.safetensors"))


def test_what_was_fetched_once_is_enough_without_a_network(
    hub: Hub, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loracook(recipe, "run").returncode == 0
    asked = len(hub.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = loracook(recipe, "run", "--set", "train.max_steps=3")
    assert (again.returncode, again.stderr) == (0, "")
    assert len(hub.asked) == asked


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_gated_model_says_what_to_do(hub: Hub, recipe: Path, verb: str) -> None:
    hub.repositories["team/opt"].gated = True
    refused = loracook(recipe, verb)
    assert refused.returncode == 2
    assert refused.stderr.endswith(
        "base_model.name_or_path: 'team/opt' is gated; accept its terms on its page, then log in: hf auth login\n"
    )


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_missing_model_says_what_to_do(hub: Hub, recipe: Path, verb: str) -> None:
    del hub.repositories["team/opt"]
    refused = loracook(recipe, verb)
    assert refused.returncode == 2
    assert "base_model.name_or_path: no 'team/opt'" in refused.stderr


def test_a_hub_that_fails_on_the_data_says_so(hub: Hub, recipe: Path) -> None:
    hub.faults["tree"] = ["", *["500"] * 20]
    refused = loracook(recipe, "run")
    assert refused.returncode == 3
    assert "dataset.path: the hub returned HTTP 500; " in refused.stderr


def test_a_missing_data_set_says_so_before_weights_are_fetched(hub: Hub, home: Path, recipe: Path) -> None:
    del hub.repositories["team/quotes"]
    refused = loracook(recipe, "run")
    assert refused.returncode == 2
    assert "dataset.path: not found on the Hub" in refused.stderr
    assert not list(home.glob("**/*.safetensors"))


@pytest.mark.parametrize("fault", ["500", "429", "cut", "page"])
@pytest.mark.parametrize("asked", ["base_model.name_or_path: the hub ", "dataset.path: the hub "])
def test_a_hub_that_does_not_answer_is_no_fault_of_the_recipe(
    asked: str, fault: str, hub: Hub, recipe: Path
) -> None:
    first = [] if asked.startswith("base_model") else [""]
    hub.faults["info"] = [*first, *[fault] * 99]
    refused = loracook(recipe, "preview")
    assert (refused.returncode, asked in refused.stderr, refused.stderr.count("\n")) == (3, True, 1)


@pytest.mark.parametrize("asked", ["base_model.name_or_path: the hub ref", "dataset.path: the Hub ref"])
def test_a_hub_that_says_no_is_heard(asked: str, hub: Hub, recipe: Path) -> None:
    first = [] if asked.startswith("base_model") else [""]
    hub.faults["info"] = [*first, *["403"] * 99]
    refused = loracook(recipe, "preview")
    assert (refused.returncode, asked in refused.stderr, refused.stderr.count("\n")) == (2, True, 1)


@pytest.mark.slow
def test_a_locked_run_refuses_a_moved_branch_with_both_commits(hub: Hub, home: Path, recipe: Path) -> None:
    assert loracook(recipe, "lock").returncode == 0
    model = hub.repositories["team/opt"]
    before = model.branches["main"]
    after = model.commit("main", {**model.commits[before], "note.txt": b"new"})
    refused = loracook(recipe, "run", "--locked")
    assert refused.returncode == 2
    assert f"team/opt@main was {before}, now {after}" in refused.stderr
    assert not list(home.glob("**/*.safetensors"))
