"""`loracook compare` says which run is better, by how much, whether that is chance, and what differed."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from loracook.cli import commands
from loracook.errors import LoracookError, MachineError
from loracook.evaluation.comparison import RowScores, compared
from loracook.planner import plan
from loracook.recipe.recipe import load
from loracook.store.record import read_record, write_record
from tests.records import READS, finished_stage, sections

RECIPE = """\
version: 1
base_model: {name_or_path: org/model}
dataset: {path: org/rows, eval: {rows: 40}}
lora: {r: 8}
train: {learning_rate: 1e-4}
evaluate: {rows: 40, metrics: [exact_match]}
"""
ROWS = 40
HARD = [random.Random(min(row, ROWS - 2)).uniform(1, 5) for row in range(ROWS)]
"""The losses of a base model: rows differ more from each other than runs do; the last two are the same row."""
TRAINED = {"losses": {"loss": 0.5}, "steps": 20}
TABLE = """\
salt is better: loss by 0.200 (0.162 to 0.237)
no clear difference: exact_match

               base   soup                    salt                    best                                        rows
loss           2.999  2.899 (2.516 to 3.273)  2.699 (2.354 to 3.035)  salt by 0.200 (0.162 to 0.237)              40
exact_match    0.0%   50.0% (35.0% to 65.0%)  52.5% (37.5% to 67.5%)  no clear difference (-27.5 to 32.5 points)  40
training loss         0.5                     0.5
steps                 20                      20
training time         1m10s                   1m10s

train.learning_rate: 0.0001 (soup.yaml:5) → 0.0002 (salt.yaml:5)
"""


def trained(name: str, losses: Sequence[float], right: Sequence[bool], *, rate: str = "1e-4") -> Path:
    """The folder of a run of that learning rate with these losses and answers by row."""
    Path(f"{name}.yaml").write_text(RECIPE.replace("1e-4", rate))
    run, recipe = Path("runs") / name, load(f"{name}.yaml")
    train = finished_stage(run, "train-0000000a", seconds=70, result=TRAINED, **sections(recipe, *READS))
    evaluation(run, train, losses, right, **sections(recipe, "evaluate"))
    return run


def evaluation(run: Path, train: Path, losses: Sequence[float], right: Sequence[bool], **facts: Any) -> None:
    """An evaluation with these losses and answers by row."""
    folder = facts.pop("folder", "evaluate-0000000a")
    scored = [
        {
            "prompt": [{"role": "user", "content": f"{min(row, ROWS - 2)}?"}],
            "reference": "yes",
            "base": "no",
            "adapter": "yes" if right else "no",
            "scores": {"exact_match": {"base": 0.0, "adapter": float(right)}},
            "set": "",
        }
        for row, right in enumerate(right)
    ]
    lost = [
        {
            "set": "",
            "row": f"{min(row, ROWS - 2):016}",
            "tokens": 50 - min(row, ROWS - 2),
            "base": HARD[row],
            "adapter": loss,
        }
        for row, loss in enumerate(losses)
    ]
    values = {
        "loss": RowScores({"base": HARD[: len(losses)], "adapter": losses}, [row["tokens"] for row in lost]),
        "exact_match": RowScores({"base": [0.0] * len(right), "adapter": [*map(float, right)]}),
    }
    files = {"generations.jsonl": scored, "losses.jsonl": lost}
    texts = {name: "".join(json.dumps(line) + "\n" for line in lines) for name, lines in files.items()}
    more = {"ended": {}, "answer_tokens": {}}
    measured = compared({name: each for name, each in values.items() if each.rows})
    result = measured | more | {"also": {}, "also_trained": 0, "notes": []}
    finished_stage(run, folder, texts, before=(train,), result=result, **facts)


@pytest.fixture(autouse=True)
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of two learning rates: salt has the lower loss by far, and one right answer more."""
    monkeypatch.chdir(tmp_path)
    trained("soup", [loss - 0.1 for loss in HARD], [row % 2 == 0 for row in range(ROWS)])
    better = [loss * 0.9 for loss in HARD]
    trained("salt", better, [row % 2 == 1 or row == 0 for row in range(ROWS)], rate="2e-4")


def compare(*arguments: str) -> list[str]:
    ran = CliRunner().invoke(commands, ["compare", *arguments], standalone_mode=False)
    if ran.exception:
        raise ran.exception
    return ran.stdout.splitlines()


def as_json(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads("\n".join(compare(*arguments, "--format", "json")))
    return found


@pytest.mark.parametrize("first", ["soup", "runs/soup", "soup/latest/train"])
def test_one_command_says_which_is_better_by_how_much_and_what_differed(first: str) -> None:
    assert compare(first, "salt") == TABLE.splitlines()


def test_the_documentation_shows_what_is_printed() -> None:
    page = Path(__file__).parents[2] / "docs/guides/several-recipes.md"
    assert f"$ loracook compare soup salt\n{TABLE}```" in page.read_text("utf-8")


def test_the_order_of_the_names_changes_no_outcome() -> None:
    assert compare("salt", "soup")[:2] == compare("soup", "salt")[:2]


def test_a_difference_is_paired_by_row_whatever_the_order_and_number_of_rows() -> None:
    run = Path("runs/salt")
    for name in ("generations.jsonl", "losses.jsonl"):
        file = run / "evaluate-0000000a" / name
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[:3:-1]))  # 36 rows, from the last to the first
    found = as_json("soup", "salt")
    assert found["metrics"]["loss"]["rows"] == 36
    assert found["metrics"]["loss"]["best"] == "salt"
    assert 0.15 < -found["metrics"]["loss"]["interval"][1] < 0.25
    assert found["notes"] == [
        "loss: 36 of 40 rows are the same in all runs",
        "exact_match: 36 of 40 rows are the same in all runs",
    ]


def test_what_is_the_same_on_every_row_is_called_equal() -> None:
    trained("stew", HARD, [False] * ROWS)
    trained("soda", HARD, [False] * ROWS, rate="2e-4")
    lines = compare("stew", "soda")
    assert lines[0] == "equal on every row: loss, exact_match"
    (row,) = (line for line in lines if line.startswith("exact_match "))
    assert row.endswith("  equal on every row  40")


def test_of_three_runs_the_best_is_held_against_the_next() -> None:
    trained("stew", HARD, [False] * ROWS, rate="4e-4")
    lines = compare("stew", "soup", "salt")
    assert lines[:2] == [
        "salt is better: loss by 0.200 (0.162 to 0.237)",
        "no clear difference: exact_match",
    ]
    assert lines[-1] == (
        "train.learning_rate: 0.0004 (stew.yaml:5) → 0.0001 (soup.yaml:5) → 0.0002 (salt.yaml:5)"
    )
    assert as_json("stew", "soup", "salt")["metrics"]["exact_match"]["next"] == "soup"


def test_what_each_is_better_at_is_said_of_each() -> None:
    trained("stew", HARD, [True] * ROWS)
    assert compare("soup", "stew")[:2] == [
        "soup is better: loss by 0.100 (0.100 to 0.100)",
        "stew is better: exact_match by 50.0 points (35.0 to 65.0)",
    ]


def test_rows_that_the_runs_are_furthest_apart_on_are_shown_first() -> None:
    assert len(as_json("soup", "salt", "--rows", "99")["rows"]) == ROWS
    rows = as_json("soup", "salt", "--rows", "39")["rows"]
    assert [row["answers"]["soup"] == row["answers"]["salt"] for row in rows] == [False] * 39
    assert compare("soup", "salt", "--rows", "1")[-9:] == [
        "",
        *("prompt:", "  user: 1?", "reference:", "  yes"),
        *("soup, exact_match 0.0%:", "  no", "salt, exact_match 100.0%:", "  yes"),
    ]


def test_a_run_is_not_compared_with_itself_or_alone() -> None:
    with pytest.raises(LoracookError, match=r"^name two runs or more; to list them: loracook runs$"):
        compare("soup")
    for other in ("soup", "runs/soup", "soup/train-0000000a", "soup/latest/evaluate"):
        with pytest.raises(LoracookError, match="is named twice; name two different runs"):
            compare("salt", "soup", other)


def test_a_recipe_with_and_without_a_changed_value_is_compared_by_its_stages() -> None:
    for rate, right in (("1e-4", False), ("2e-4", True)):
        recipe = load("soup.yaml", [f"train.learning_rate={rate}"])
        train, evaluate = (stage.folder for stage in plan(recipe).stages)
        finished_stage(train.parent, train.name, result=TRAINED, **sections(recipe, *READS))
        own = sections(recipe, "evaluate")
        evaluation(train.parent, train, HARD, [right] * ROWS, folder=evaluate.name, **own)
    lines = compare("soup.yaml", "soup.yaml", "--set", "train.learning_rate=2e-4")
    assert lines[0] == "soup is better: exact_match by 100.0 points (100.0 to 100.0)"
    assert lines[-1] == "train.learning_rate: 0.0001 (--set:1) → 0.0002 (--set:1)"
    with pytest.raises(LoracookError, match=r"nothing of 'soup.yaml' is finished"):
        compare("soup", "soup.yaml", "--set", "train.learning_rate=3e-4")


def test_runs_of_one_name_below_different_folders_are_told_apart() -> None:
    Path("runs").rename("old")
    trained("soup", HARD, [True] * ROWS)
    assert compare("old/soup", "soup")[0].startswith("old/soup is better: loss by")


def test_a_run_without_evaluation_and_one_of_an_earlier_version_are_shown_as_far_as_they_go() -> None:
    finished_stage(Path("runs/new"), "train-0000000a", result=TRAINED, **sections(load("soup.yaml"), *READS))
    Path("runs/salt/evaluate-0000000a/losses.jsonl").unlink()
    lines = compare("soup", "new")
    assert lines[0] == "no metric was measured on rows that all of them have"
    assert lines[-1] == "new has no finished evaluation"
    assert compare("soup", "salt")[-1] == (
        "the losses of salt were not kept by row; remove runs/salt/evaluate-0000000a to evaluate it again"
    )


def test_other_base_figures_on_the_same_rows_are_named() -> None:
    run = Path("runs/salt/evaluate-0000000a")
    record = read_record(run)
    record["result"]["base"]["exact_match"] = 0.5
    write_record(run, record)
    assert compare("soup", "salt")[-1] == (
        "exact_match: the base model's figures differ, so the base models or settings do"
    )


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_decide_nothing(rows: int) -> None:
    trained("few", [0.1] * rows, [True] * rows)
    first = compare("soup", "few")[0]
    assert first == ("no clear difference: loss" if rows else
                     "no metric was measured on rows that all of them have")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("generations.jsonl", "{"),
        ("generations.jsonl", "[" * 10_000),
        ("generations.jsonl", "{}"),
        ("generations.jsonl", '{"prompt": [{}], "reference": null, "adapter": ""}'),
        ("generations.jsonl", '{"prompt": "", "reference": null, "adapter": "", "scores": {"a": 1}}'),
        ("generations.jsonl", '{"prompt": "", "reference": null, "adapter": "", "scores": {"a": {"adapter": NaN}}}'),
        ("generations.jsonl", '{"prompt": [{"role": "", "content": "", "tool_calls": [1]}], "reference": null, '
                              '"adapter": ""}'),
        ("losses.jsonl", '{"set": "", "row": "", "tokens": 0, "adapter": 1.0}'),
        ("losses.jsonl", '{"set": "", "row": "", "tokens": 1, "adapter": Infinity}'),
        ("losses.jsonl", "\udcff"),
    ],
)  # fmt: skip
def test_what_a_stranger_wrote_of_rows_is_refused(name: str, line: str) -> None:
    (Path("runs/salt/evaluate-0000000a") / name).write_bytes(f"{line}\n".encode("utf-8", "surrogateescape"))
    with pytest.raises(MachineError, match="is corrupt; remove it to run the stage again"):
        compare("soup", "salt")


def test_hostile_answers_stay_text() -> None:
    file = Path("runs/salt/evaluate-0000000a/generations.jsonl")
    file.write_text(file.read_text().replace('"adapter": "no"', '"adapter": "\\u001b[2J\\u202e\\n[red]"'))
    lines = compare("soup", "salt", "--rows", "2")
    assert lines[-2:] == ["  \\x1b[2J\\u202e", "  [red]"]
    assert "\u202e" not in "".join(compare("soup", "salt", "--rows", "2", "--format", "json"))
