"""What a run shows at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from loracook.planner import Plan, PlannedStage
from loracook.recipe.recipe import load
from loracook.views.report import write
from loracook.views.result_text import made_lines, result_lines
from loracook.views.shown_run import of_plan
from tests.finished_runs import TRAINED, finished_run
from tests.records import finished_stage

RECIPE = """\
version: 1
base_model: {name_or_path: org/model}
dataset: {path: org/rows, eval: {rows: 4}}
lora: {r: 8}
evaluate: {rows: 4}
"""


@pytest.mark.parametrize("stages", [["train"], ["train", "evaluate"]])
def test_a_finished_run_ends_with_what_to_open_first(tmp_path: Path, stages: list[str]) -> None:
    (tmp_path / "soup.yaml").write_text(RECIPE)
    run = finished_run(tmp_path, result={**TRAINED, "losses": {"loss": 0.5}, "loss_steps": 2})
    done = [PlannedStage(name, next(run.glob(f"{name}-*")), "", "", before={}, done=True) for name in stages]
    plan = Plan(load(tmp_path / "soup.yaml"), run, tuple(done))
    start, text = {
        1: ("look at the losses", run / "train-00000000/log.jsonl"),
        2: ("compare the answers", run / "evaluate-00000001/generations.md"),
    }[len(stages)]
    assert result_lines(plan, None)[-1] == f"{start}:  less {text}"
    report = write(of_plan(plan))
    assert result_lines(plan, None)[-1] == f"{start}:  open {report} in a browser"


def test_a_finished_run_says_what_can_load_its_adapter(tmp_path: Path) -> None:
    (tmp_path / "soup.yaml").write_text(RECIPE)
    stated = [
        {"result": "adapter", "server": "vLLM", "flags": ["--enable-lora"], "reasons": []},
        {"result": "adapter", "server": "SGLang", "flags": [], "reasons": [{"text": "refuses it", "source": "x.py"}]},
    ]  # fmt: skip
    run = finished_run(tmp_path, result={**TRAINED, "losses": {}, "loss_steps": 1, "serving": stated})
    done = PlannedStage("train", next(run.glob("train-*")), "", "", before={}, done=True)
    lines = result_lines(Plan(load(tmp_path / "soup.yaml"), run, (done,)), None)
    assert "  serving   adapter: vLLM (--enable-lora)" in lines
    assert "            not SGLang: it refuses it (x.py)" in lines


def test_an_exported_model_is_shown_with_the_commands_that_serve_it(tmp_path: Path) -> None:
    (tmp_path / "soup.yaml").write_text(RECIPE)
    export = finished_stage(tmp_path / "runs", "export-0000000a", {}, result={"file": "soup-f16.gguf"})
    stage = PlannedStage("export", export, "", "", before={}, done=True)
    plan = Plan(load(tmp_path / "soup.yaml"), tmp_path / "runs", (stage,))
    assert made_lines(plan)[-2:] == [
        f"  llama.cpp llama-server -m {export}/soup-f16.gguf --jinja",
        f"  Ollama    ollama create soup -f {export}/Modelfile",
    ]
