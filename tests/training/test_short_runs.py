"""A short run, which prepares the rows that it trains alone, is the same as one over all prepared rows."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from loracook import trainer
from loracook.errors import RecipeError
from loracook.planner import plan
from loracook.progress import Silent
from loracook.recipe.recipe import Recipe, load
from loracook.runner import run
from loracook.store.record import read_record
from loracook.training.trainer import read_inputs
from tests import processes
from tests.plans import plan as plan_of
from tests.tiny_models import LINES, write_twin
from tests.training.test_lengthened import WEIGHTS
from tests.training.test_processes import assert_same, together

STEPS, LONGER, LONG, EPOCHS = 8, 16, 75, 140
"""Of 8 rows each: the third run trains more than half of the rows, so all are prepared, and the last all."""
OF_THE_LOG = ("step", "loss", "grad_norm", "learning_rate", "epoch", "num_tokens")
pytestmark = pytest.mark.slow


def rows(name: str, count: int) -> list[dict[str, Any]]:
    """Chats, of which one in nine is fully masked and one in eleven has no room for its answer."""
    lines = [f"{number}. {LINES[number % len(LINES)][: 10 + number % 50]}" for number in range(count)]
    asked = [f"{name} {line}" * (1 + 20 * (number % 9 == 4)) for number, line in enumerate(lines)]
    turns = [[("user", question), ("assistant", line)] for question, line in zip(asked, lines, strict=True)]
    return [{"messages": [{"role": role, "content": text} for role, text in row]} for row in turns]


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe of two sources, whose model drops units at random."""
    folder = tmp_path_factory.mktemp("kitchen")
    write_twin(folder / "model", "opt")
    for name, count in (("a", 700), ("b", 300)):
        lines = (json.dumps(row) + "\n" for row in rows(name, count))
        (folder / f"{name}.jsonl").write_text("".join(lines), "utf-8")
    recipe = {
        "version": 1,
        "name": "short",
        "base_model": {"name_or_path": "./model", "dtype": "float32"},
        "dataset": {
            "sources": [{"path": "./a.jsonl"}, {"path": "./b.jsonl", "weight": 1.5}],
            "mix": "interleave",
            "limits": dict.fromkeys(("truncated", "missing_eos", "fully_masked", "duplicates"), 1.0),
        },
        "template": {"chat_template": "plain"},
        "lora": {"r": 2, "target_modules": ["q_proj"], "lora_dropout": 0.1},
        "train": {
            "max_steps": STEPS,
            "lr_scheduler_type": "constant",
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 4,
            "max_length": 64,
            "logging_steps": 1,
            "save_steps": 4,
            "bf16": False,
        },
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe), "utf-8")
    return folder


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORACOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recipe(kitchen: Path, steps: int) -> Recipe:
    return load(kitchen / "recipe.yaml", [f"train.max_steps={steps}"])


def trained(kitchen: Path, runs: Path, steps: int = STEPS) -> tuple[bytes, list[list[Any]], dict[str, Any]]:
    """The weights, the log and the result of a run."""
    book = recipe(kitchen, steps)
    result = run(book, runs=runs)["train"]["result"]
    folder = plan(book, runs).stages[0].folder
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    entries = [[entry[name] for name in OF_THE_LOG] for entry in log if "loss" in entry]
    return (folder / WEIGHTS).read_bytes(), entries, result


def prepare_all(kitchen: Path) -> None:
    assert processes.run("preview", "recipe.yaml", cwd=kitchen).returncode == 0


def part(result: dict[str, Any]) -> dict[str, int] | None:
    found: dict[str, int] | None = result["data"]["statistics"]["part"]
    return found


def test_it_has_the_bits_of_one_over_all_prepared_rows(
    kitchen: Path, empty_cache: Path, tmp_path: Path
) -> None:
    weights, log, result = trained(kitchen, tmp_path / "short")
    shutil.rmtree(empty_cache)
    prepare_all(kitchen)
    again, same_log, of_all = trained(kitchen, tmp_path / "all")
    assert part(result) == {"rows": 8 * STEPS, "of": 1150}
    assert part(of_all) is None
    assert (again, same_log, of_all["data"]["digest"]) == (weights, log, result["data"]["digest"])


def test_it_is_the_beginning_of_a_run_that_takes_most_rows(kitchen: Path, tmp_path: Path) -> None:
    _, log, result = trained(kitchen, tmp_path / "short")
    _, long_log, of_all = trained(kitchen, tmp_path / "long", LONG)
    assert part(result)
    assert part(of_all) is None
    without_epoch = [[entry[:4] for entry in each] for each in (log, long_log)]
    assert without_epoch[0] == without_epoch[1][:STEPS]


def test_dropped_rows_are_passed_over_in_every_epoch_as_the_plan_has_it(
    kitchen: Path, tmp_path: Path
) -> None:
    _, log, result = trained(kitchen, tmp_path / "runs", EPOCHS)
    statistics = result["data"]["statistics"]
    assert statistics["flaws"]["fully_masked"]["rows"] > 100
    planned = plan_of(kitchen / "recipe.yaml", "--set", f"train.max_steps={EPOCHS}")
    assert planned["tokens"]["exact"]
    assert planned["tokens"]["total"] == log[-1][-1]
    assert log[-1][4] == pytest.approx(EPOCHS / -(-statistics["rows"]["train"] // 8), rel=0.01)


@pytest.mark.parametrize("steps", [LONGER, LONG])
def test_a_longer_run_resumes_from_it(kitchen: Path, tmp_path: Path, steps: int) -> None:
    _, _, short = trained(kitchen, tmp_path / "runs")
    weights, log, result = trained(kitchen, tmp_path / "runs", steps)
    at_once, whole_log, other = trained(kitchen, tmp_path / "at once", steps)
    assert (result["resumed_from"], other["resumed_from"]) == (f"checkpoint-{STEPS}", None)
    assert result["data"]["digest"] != short["data"]["digest"]
    assert weights == at_once
    assert [entry[:4] for entry in log] == [entry[:4] for entry in whole_log]


def test_interrupted_it_goes_on_with_a_part_of_all_rows(
    kitchen: Path, empty_cache: Path, tmp_path: Path
) -> None:
    weights, log, _ = trained(kitchen, tmp_path / "runs")
    folder = plan(recipe(kitchen, STEPS), tmp_path / "runs").stages[0].folder
    (folder / "record.json").unlink()
    shutil.rmtree(folder / "checkpoints" / f"checkpoint-{STEPS}")
    shutil.rmtree(empty_cache)
    prepare_all(kitchen)
    again, same_log, result = trained(kitchen, tmp_path / "runs")
    assert (again, same_log, result["resumed_from"]) == (weights, log, "checkpoint-4")


def test_it_is_repeated_once_all_rows_are_prepared(kitchen: Path, empty_cache: Path) -> None:
    assert processes.run("run", "recipe.yaml", "--runs", "repeated", cwd=kitchen).returncode == 0
    prepare_all(kitchen)
    shutil.rmtree(empty_cache / "data" / parts(empty_cache)[0])
    again = processes.run("repeat", "repeated/short", cwd=kitchen)
    assert again.stdout.endswith(" steps are the same, bit for bit\n"), again.stderr


def parts(cache: Path) -> list[str]:
    """The folders of prepared rows that are a part."""
    found = (cache / "data").glob("*/statistics.json")
    return [file.parent.name for file in found if json.loads(file.read_text("utf-8"))["part"]]


LONG_ROWS = {
    "one row in all": ([3], ""),
    "many rows": (
        [3, *range(100, 400)],
        r"301 training rows \(25\.1%, limit 5\.0%\) exceed train.max_length",
    ),
    "none of the first": ([*range(100, 400)], ""),
}


@pytest.mark.parametrize("which", LONG_ROWS)
def test_a_part_over_a_limit_is_refused_where_all_rows_are(
    kitchen: Path, empty_cache: Path, which: str
) -> None:
    long, refused = LONG_ROWS[which]
    answers = [f"{LINES[0]} {number}" * (1 + 9 * (number in long)) for number in range(1200)]
    lines = [json.dumps({"prompt": f"{number}?", "completion": each}) for number, each in enumerate(answers)]
    (kitchen / "limited.jsonl").write_text("\n".join(lines), "utf-8")
    written = json.loads((kitchen / "recipe.yaml").read_text("utf-8"))
    written["dataset"] = {"path": "./limited.jsonl", "shuffle": False}
    (kitchen / "limited.yaml").write_text(json.dumps(written), "utf-8")
    with pytest.raises(RecipeError, match=refused) if refused else nullcontext():
        assert part_read(kitchen / "limited.yaml", empty_cache) == {"rows": 8 * STEPS, "of": 1200}


def part_read(file: Path, cache: Path) -> dict[str, int] | None:
    """The part of a recipe's rows as a run reads them."""
    inputs = read_inputs(load(file), cache, Silent(), first=8 * STEPS)
    found: dict[str, int] | None = inputs.rows.statistics["part"]
    return found


def test_limits_decide_the_same_once_all_rows_are_prepared(kitchen: Path, empty_cache: Path) -> None:
    """Rows that are not trained may exceed them: a run must not depend on what is in the cache."""
    written = json.loads((kitchen / "recipe.yaml").read_text("utf-8"))
    answers = [f"{LINES[0]} {number}" * (1 + 9 * (number >= 800)) for number in range(1200)]
    lines = [json.dumps({"prompt": f"{number}?", "completion": each}) for number, each in enumerate(answers)]
    (kitchen / "late.jsonl").write_text("\n".join(lines), "utf-8")
    written["dataset"] = {"path": "./late.jsonl", "shuffle": False}
    (kitchen / "late.yaml").write_text(json.dumps(written), "utf-8")
    first = part_read(kitchen / "late.yaml", empty_cache)
    shutil.rmtree(empty_cache)
    with pytest.raises(RecipeError, match=r"400 training rows \(33\.3%, limit 5\.0%\) exceed"):
        read_inputs(load(kitchen / "late.yaml"), empty_cache, Silent())
    assert part_read(kitchen / "late.yaml", empty_cache) == first == {"rows": 8 * STEPS, "of": 1200}


def test_a_trainer_for_a_loop_of_ones_own_has_all_rows(kitchen: Path, empty_cache: Path) -> None:
    sft = trainer(recipe(kitchen, STEPS), kitchen / "own")
    assert len(sft.train_dataset) > 1000 - 300
    assert len(list(sft.get_train_dataloader().sampler)) == len(sft.train_dataset)


def test_two_processes_train_as_one_does(kitchen: Path, empty_cache: Path) -> None:
    write_twin(kitchen / "calm", "llama")
    calm = ("--set", "base_model.name_or_path=./calm", "--set", "lora.lora_dropout=0")
    assert processes.run("run", "recipe.yaml", "--runs", "one", *calm, cwd=kitchen).returncode == 0
    shutil.rmtree(empty_cache)
    ended = together(kitchen, kitchen, runs="two", arguments=calm)
    assert [code for code, *_ in ended] == [0, 0], ended
    one, two = ((kitchen / runs / "short/latest/train").resolve() for runs in ("one", "two"))
    assert part(read_record(two)["result"]) == {"rows": 8 * STEPS, "of": 1150}
    assert read_record(one)["result"]["data"]["digest"] == read_record(two)["result"]["data"]["digest"]
    assert_same(one, two)
