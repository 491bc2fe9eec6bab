"""Gates: each condition at its bound, what a gate that is not met says, and that nothing after it is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import loracook
from loracook import runner
from loracook.errors import GateError, LoracookError
from loracook.evaluation.gates import CONDITIONS, unmet
from loracook.recipe.recipe import load
from tests.tiny_recipes import twin

RECIPE = """\
version: 1
base_model: {name_or_path: org/model}
dataset: {path: org/rows, eval: {rows: 5}}
lora: {r: 8}
evaluate:
  rows: 5
  metrics: [json_match]
  also: {general: {path: org/text, format: text}}
  require:
    json_match: {at_least: 0.9}
    loss: {below_base_by: 0.05}
    general.loss: {not_above_base: true}
"""
FOLDER = {"repo_id": None, "private": None, "folder": "published"}
LATER: dict[str, Any] = {"dataset": {"eval": {"rows": 2}}, "merge": {}, "push": {"folder": "published"}}


def figures(**metrics: tuple[float, float]) -> dict[str, Any]:
    """The base model's and the adapter's values of some metrics."""
    sides = {"base": 0, "adapter": 1}
    return {side: {name: pair[number] for name, pair in metrics.items()} for side, number in sides.items()}


def test_a_gate_says_what_was_reached_and_where_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "soup.yaml").write_text(RECIPE)
    recipe = load(tmp_path / "soup.yaml")
    measured = figures(json_match=(0.1, 0.82), loss=(1.0, 0.96)) | {
        "also": {"general": figures(loss=(2.0, 2.1))}
    }
    assert [str(problem).replace(str(tmp_path), "") for problem in unmet(recipe, measured)] == [
        "/soup.yaml:10:28: evaluate.require.json_match.at_least: 82.0% is not at least 90.0%",
        "/soup.yaml:11:27: evaluate.require.loss.below_base_by: 0.96 is not 0.05 below the base's 1",
        '/soup.yaml:12:36: evaluate.require."general.loss".not_above_base: 2.1 is above the base\'s 2',
    ]
    reached = figures(json_match=(0.1, 0.9), loss=(1.0, 0.95)) | {
        "also": {"general": figures(loss=(2.0, 2.0))}
    }
    assert list(unmet(recipe, reached)) == []


def test_a_metric_without_rows_meets_no_gate(tmp_path: Path) -> None:
    (tmp_path / "soup.yaml").write_text(RECIPE)
    problems = list(unmet(load(tmp_path / "soup.yaml"), figures() | {"also": {}}))
    assert {problem.message for problem in problems} == {
        "no row could be measured; give rows that have an answer"
    }
    assert len(problems) == 3


@pytest.mark.parametrize(
    ("condition", "bound", "meets", "misses"),
    [
        ("at_least", 0.5, 0.5, 0.4999),
        ("at_most", 0.5, 0.5, 0.5001),
        ("above_base_by", 0.1, 0.5, 0.49),
        ("below_base_by", 0.1, 0.3, 0.31),
        ("above_base_by", -0.1, 0.31, 0.29),
        ("not_below_base", True, 0.4, 0.39),
        ("not_above_base", True, 0.4, 0.41),
    ],
)
def test_a_bound_itself_meets_its_condition(
    condition: str, bound: float, meets: float, misses: float
) -> None:
    check, _ = CONDITIONS[condition]
    assert check(meets, 0.4, bound)
    assert not check(misses, 0.4, bound)


def test_nothing_is_merged_or_pushed_behind_a_gate_and_a_lower_one_goes_on(tmp_path: Path) -> None:
    runs, evaluation = tmp_path / "runs", {"rows": 2, "metrics": ["exact_match"]}
    short = {"generation": {"max_new_tokens": 4}}

    def attempt(bound: float, only: str | None = None) -> dict[str, Any]:
        gates = {"require": {"exact_match": {"at_least": bound}, "loss": {"at_most": 1000}}}
        recipe = twin("phi2-oasst", tmp_path, evaluate=evaluation | short | gates, push=FOLDER)
        return runner.run(recipe, runs=runs, only=only)

    with pytest.raises(GateError, match=r"exact_match\.at_least: 0\.0% is not at least 100\.0%") as error:
        attempt(1.0)
    assert error.value.exit_code == 7
    made = {path.name.partition("-")[0] for path in (runs / "phi2-oasst").iterdir() if path.is_dir()}
    assert made == {"train", "evaluate", "latest"}
    with pytest.raises(GateError):
        attempt(1.0, only="merge")

    before = {path: path.stat().st_mtime_ns for path in runs.rglob("record.json")}
    assert set(attempt(0.0)) == {"train", "evaluate", "merge", "push"}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(GateError):
        attempt(0.5)


def test_a_gate_that_was_not_checked_lets_nothing_through(tmp_path: Path) -> None:
    gates = {"prompts": ["?"], "require": {"loss": {"at_most": 1000}}}
    recipe = twin("opt-350m-lora", tmp_path, evaluate=gates, **LATER)
    runner.run(recipe, runs=tmp_path / "runs", only="train")
    with pytest.raises(LoracookError, match=r"evaluate\.require is checked by evaluate, which is not done"):
        runner.run(recipe, runs=tmp_path / "runs", only="merge")


def test_further_rows_are_measured_like_the_recipe_s_own(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(9)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = [{"text": f"The soup number {n} is served."} for n in range(30)]
    (tmp_path / "general.jsonl").write_text("".join(json.dumps(row) + "\n" for row in text))
    also = {
        "sums": {"path": "./sums.jsonl", "rows": 4, "metrics": ["contains"]},
        "general": {"path": "./general.jsonl", "format": "text"},
    }
    section = {"prompts": ["?"], "also": also, "generation": {"max_new_tokens": 4}}
    recipe = twin("opt-350m-lora", tmp_path, evaluate=section)
    measured = runner.run(recipe, runs=tmp_path / "runs")["evaluate"]["result"]
    assert measured["also"]["sums"]["rows"] == {"loss": 4, "contains": 4, "perplexity": 4}
    assert measured["also"]["general"]["rows"] == {"loss": 30, "perplexity": 30}
    assert measured["also"]["general"]["base"]["loss"] > 1
    lines = next((tmp_path / "runs").glob("*/evaluate-*/generations.jsonl")).read_text().splitlines()
    assert [json.loads(line)["set"] for line in lines] == ["", "sums", "sums", "sums", "sums"]
    losses = next((tmp_path / "runs").glob("*/evaluate-*/losses.jsonl")).read_text().splitlines()
    of_rows = [json.loads(line) for line in losses]
    assert {row["set"] for row in of_rows} == {"", "sums", "general"}
    general = [row for row in of_rows if row["set"] == "general"]
    mean = sum(row["base"] * row["tokens"] for row in general) / sum(row["tokens"] for row in general)
    assert (len(general), mean) == (30, pytest.approx(measured["also"]["general"]["base"]["loss"]))

    (tmp_path / "general.jsonl").write_text(json.dumps(text[0]) + "\n")
    stages = {stage.name: stage.done for stage in loracook.plan(recipe, tmp_path / "runs").stages}
    assert stages == {"train": True, "evaluate": False}


def test_plain_text_is_measured_beside_chats_whose_answers_are_trained(tmp_path: Path) -> None:
    (tmp_path / "general.jsonl").write_text('{"text": "The soup is served."}\n' * 3)
    section = {
        "also": {"general": {"path": "./general.jsonl"}},
        "rows": 2,
        "generation": {"max_new_tokens": 2},
    }
    recipe = twin("phi2-oasst", tmp_path, evaluate=section, push=FOLDER)
    assert recipe["template"]["loss"] == "assistant"
    measured = (
        runner.run(recipe, runs=tmp_path / "runs", only="train")
        and runner.run(recipe, runs=tmp_path / "runs", only="evaluate")["evaluate"]["result"]
    )
    assert measured["also"]["general"]["rows"] == {"loss": 3, "perplexity": 3}

    sections = json.loads((tmp_path / "recipe.yaml").read_text())
    adapter = next((tmp_path / "runs").glob("*/train-*/adapter")).relative_to(tmp_path)
    sections["evaluate"] |= {"adapters": {"same": f"./{adapter}"}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(sections))
    again = runner.run(load(tmp_path / "recipe.yaml"), runs=tmp_path / "runs", only="evaluate")["evaluate"]
    assert again["result"]["notes"] == ["'same' gives exactly the losses and answers of 'adapter'"]


def test_what_is_wrong_with_further_rows_is_said_of_them(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    section = {"prompts": ["?"], "also": {"sums": {"path": "./empty.jsonl"}}}
    recipe = twin("opt-350m-lora", tmp_path, evaluate=section)
    with pytest.raises(LoracookError, match=r"evaluate\.also\.sums\.path: no readable rows"):
        runner.run(recipe, runs=tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*/train-*/adapter"))
