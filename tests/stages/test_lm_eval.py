"""The stage lm_eval on a tiny model: scores, state of the process, and what is refused before training."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from loracook import model, runner
from loracook.errors import LoracookError, MachineError, RecipeError
from loracook.evaluation import harness
from loracook.planner import plan
from loracook.recipe.recipe import Recipe, load
from loracook.store.record import read_record
from loracook.views.result_text import made_lines
from tests.tiny_models import LINES, write_twin

ROWS = [
    {"question": f"How many cups are {n}?", "answers": [line[n : n + 20].strip() for line in LINES[:2]], "right": n % 2, "word": "milk"}
    for n in range(40)
]  # fmt: skip
OWN = {"dataset_path": "./rows.jsonl"}
CHOOSE = OWN | {
    "task": "choose",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}\nAnswer:",
    "doc_to_target": "right",
    "doc_to_choice": "answers",
}
WRITE = OWN | {
    "task": "write",
    "doc_to_text": "{{question}}",
    "doc_to_target": "word",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 3},
}
TEMPLATE = (
    "{% for turn in messages %}{% if turn.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ turn.role }}: {{ turn.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
PLAIN = {"chat_template": "none"}
PLANTED = {
    "ctx_a": "a", "ctx_b": "b", "activity_label": "soup", "endings": ["a", "b"], "label": "0", "ctx": "a b", "ind": 1,
}  # fmt: skip


def write_recipe(
    folder: Path, *tasks: Any, template: Any = MappingProxyType(PLAIN), **section: Any
) -> Recipe:
    """A recipe on a tiny model that trains on few lines, and evaluates these tasks."""
    if not folder.exists():
        write_twin(folder / "model", "llama")
        (folder / "lines.jsonl").write_text(
            "".join(json.dumps({"text": line}) + "\n" for line in LINES), "utf-8"
        )
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    sections = {
        "version": 1,
        "name": "soup",
        "base_model": {"name_or_path": "./model", "dtype": "float32"},
        "dataset": {"path": "./lines.jsonl", "format": "text"},
        "template": dict(template),
        "lora": {"r": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]},
        "train": {"max_steps": 16, "learning_rate": 0.02, "max_length": 64, "save_strategy": "no"},
        "lm_eval": {"tasks": list(tasks), **section},
    }
    (folder / "recipe.yaml").write_text(json.dumps(sections), "utf-8")
    return load(folder / "recipe.yaml")


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    pytest.importorskip("lm_eval")
    folder = tmp_path_factory.mktemp("soup") / "kitchen"
    recipe = write_recipe(folder, CHOOSE, WRITE)
    runner.run(recipe, runs=folder / "runs", cache=folder / "cache")
    return folder


def _state() -> Any:
    """What lm-evaluation-harness could leave changed for everyone else in this process."""
    loggers = (logging.getLogger(), logging.getLogger("lm_eval"))
    logs = [(logger.level, list(logger.handlers)) for logger in loggers]
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist(), logs, os.getcwd()


def result_of(folder: Path) -> dict[str, Any]:
    return dict(read_record((folder / "runs/soup/latest/lm_eval").resolve())["result"])


def chosen(causal: Any, tokenizer: Any) -> float:
    """The share of rows whose likeliest choice is right, one forward pass for each choice."""
    right = 0
    for row in ROWS:
        asked = tokenizer(f"{row['question']}\nAnswer:")["input_ids"]
        sums = []
        for answer in row["answers"]:
            ids = torch.tensor([tokenizer(f"{row['question']}\nAnswer: {answer}")["input_ids"]])
            with torch.no_grad():
                logs = causal(input_ids=ids).logits[0].float().log_softmax(-1)
            taken = logs[:-1].gather(-1, ids[0, 1:, None])[:, 0]
            sums.append(float(taken[len(asked) - 1 :].sum()))
        right += int(np.argmax(sums)) == row["right"]
    return right / len(ROWS)


@pytest.mark.slow
def test_both_scores_are_those_of_a_computation_by_hand(kitchen: Path) -> None:
    recipe = load(kitchen / "recipe.yaml")
    adapter = kitchen / "runs/soup/latest/train/adapter"
    tuned = model.load_tuned(recipe, model.load_model(recipe, kitchen / "model"), adapter)
    tokenizer = model.saved_tokenizer(recipe, adapter)
    with tuned.disable_adapter():
        base = chosen(tuned, tokenizer)
    (score,) = [each for each in result_of(kitchen)["scores"] if each["metric"] == "acc"]
    assert (score["base"], score["adapter"]) == (base, chosen(tuned, tokenizer))
    assert base != score["adapter"]
    assert score["low"] <= score["adapter"] - score["base"] <= score["high"]
    assert score["base_stderr"] > 0


@pytest.mark.slow
def test_a_second_run_gives_the_same_to_the_bit_and_tells_nothing_of_this_machine(kitchen: Path) -> None:
    first = (kitchen / "runs/soup/latest/lm_eval").resolve()
    results, before = (first / "results.json").read_bytes(), result_of(kitchen)
    shutil.rmtree(first)
    runner.run(load(kitchen / "recipe.yaml"), runs=kitchen / "runs", cache=kitchen / "cache")
    assert (first / "results.json").read_bytes() == results
    assert result_of(kitchen) == before
    assert str(kitchen).encode() not in results
    assert set(json.loads(results)) == {"base", "adapter"}
    assert {each["task"] for each in before["scores"]} == {"choose", "write"}


@pytest.mark.slow
def test_the_result_lines_have_the_scores(kitchen: Path) -> None:
    lines = made_lines(plan(load(kitchen / "recipe.yaml"), kitchen / "runs"))
    assert [line.split()[0] for line in lines if line.startswith(("  choose.", "  write."))] == [
        "choose.acc", "choose.acc_norm", "write.exact_match",
    ]  # fmt: skip
    assert any(line.endswith("results.json") for line in lines)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Any, Any]:
    """A recipe with solved examples in turns, its tokenizer with a chat template, and a model to ask."""
    pytest.importorskip("lm_eval")
    folder = tmp_path_factory.mktemp("raw") / "kitchen"
    recipe = write_recipe(folder, CHOOSE, WRITE, num_fewshot=2, limit=4)
    tokenizer = model.load_tokenizer(recipe, folder / "model")
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = TEMPLATE
    causal = model.load_model(recipe, folder / "model")
    return recipe, tokenizer, harness.language_model(causal, tokenizer, 2)


@pytest.mark.slow
def test_both_models_are_asked_the_same_and_the_process_is_left_as_it_was(
    untrained: tuple[Recipe, Any, Any],
) -> None:
    recipe, _, lm = untrained
    tasks = harness.load_tasks(recipe)
    before = _state()
    first, second = (harness.evaluate(recipe, lm, tasks) for _ in range(2))
    assert _state() == before
    assert first["samples"] == second["samples"]
    asked = first["samples"]["write"][0]["arguments"][0][0]
    assert (asked.count("How many cups"), asked.count("milk"), len(first["samples"]["write"])) == (3, 2, 4)


@pytest.mark.slow
def test_questions_are_written_with_the_chat_template_within_limits(
    untrained: tuple[Recipe, Any, Any],
) -> None:
    _, tokenizer, lm = untrained
    chat = [{"role": "user", "content": "Which soup? {{ 7 * 7 }}"}]
    assert lm.apply_chat_template(chat) == tokenizer.apply_chat_template(
        chat, tokenize=False, add_generation_prompt=True
    )
    started = [*chat, {"role": "assistant", "content": "It is"}]
    assert lm.apply_chat_template(started, add_generation_prompt=False).endswith("It is")
    with pytest.raises(LoracookError, match=r"set lm_eval.apply_chat_template: false"):
        lm.apply_chat_template([{"role": "system", "content": "Be brief."}, *chat])


def test_without_the_package_nothing_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    recipe = write_recipe(tmp_path / "kitchen", CHOOSE)
    with pytest.raises(MachineError, match=r'run: pip install "loracook\[lm-eval\]"') as error:
        runner.run(recipe, runs=tmp_path / "runs")
    assert error.value.exit_code == 3
    assert not (tmp_path / "runs").exists()


def test_rows_that_do_not_fit_and_a_missing_chat_template_are_found_before_training(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    recipe = write_recipe(tmp_path / "kitchen", CHOOSE | {"doc_to_target": "rihgt"})
    with pytest.raises(RecipeError, match=r"row 1 of rows.jsonl: neither a choice"):
        runner.run(recipe, runs=tmp_path / "runs")
    recipe = write_recipe(tmp_path / "kitchen", CHOOSE, template={}, apply_chat_template=True)
    with pytest.raises(RecipeError, match="the base model has no chat template"):
        runner.run(recipe, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The folders of tasks that lm-evaluation-harness looks into: all of its own take half a minute."""
    manager = pytest.importorskip("lm_eval.tasks.manager")
    build, folders = manager.TaskIndex.build, list[Path]()
    monkeypatch.setattr(manager.TaskIndex, "build", staticmethod(lambda _: build(folders)))
    harness._manager.cache_clear()
    yield folders
    harness._manager.cache_clear()


def test_a_task_of_lm_eval_is_tried_on_a_question_before_training(
    index: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    recipe = write_recipe(tmp_path / "kitchen", "few", CHOOSE, limit=2)
    (tmp_path / "index").mkdir()
    index.append(tmp_path / "index")
    task = {
        "task": "few", "dataset_path": "json", "test_split": "test", "output_type": "generate_until",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "kitchen" / "rows.jsonl")}},
        "doc_to_text": "{{question}}", "doc_to_target": "{{word}}", "generation_kwargs": {"until": ["\n"]},
    }  # fmt: skip
    (tmp_path / "index" / "few.yaml").write_text(json.dumps(task), "utf-8")
    assert set(harness.load_tasks(recipe)["tasks"]) == {"few", "choose"}
    with pytest.raises(MachineError, match="cannot load the task 'few'"):
        runner.run(write_recipe(tmp_path / "kitchen", "few", num_fewshot=50), runs=tmp_path / "runs")
    (tmp_path / "index" / "few.yaml").write_text(json.dumps(task | {"unsafe_code": True}), "utf-8")
    harness._manager.cache_clear()
    with pytest.raises(RecipeError, match="runs code that the model writes"):
        runner.run(recipe, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_name_is_looked_up_and_a_folder_of_the_user_is_no_data_set_of_the_hub(
    index: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.append(Path(import_module("lm_eval.tasks").__file__ or "").parent / "hellaswag")
    recipe = write_recipe(tmp_path / "kitchen", "hellaswagg", CHOOSE, "utils")
    with pytest.raises(RecipeError, match=r"did you mean 'hellaswag'?") as error:
        runner.run(recipe, runs=tmp_path / "runs")
    assert [problem.path for problem in error.value.problems] == [
        ("lm_eval", "tasks", 0),
        ("lm_eval", "tasks", 2),
    ]
    planted = tmp_path / "kitchen" / "Rowan" / "hellaswag"
    planted.mkdir(parents=True)
    for split in ("train", "validation"):
        (planted / f"{split}.jsonl").write_text(json.dumps(PLANTED) + "\n", "utf-8")
    monkeypatch.chdir(tmp_path / "kitchen")
    with pytest.raises(MachineError, match="cannot load the task 'hellaswag'"):
        runner.run(write_recipe(tmp_path / "kitchen", "hellaswag"), runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
