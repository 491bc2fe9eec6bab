"""What an evaluation left of each row, read back: answers with their scores, and losses."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loracook.errors import MachineError
from loracook.evaluation.comparison import ADAPTER
from loracook.report.task_scores import TaskScore, stage_scores
from loracook.store.read_back import NUMBER, check_shape, read_json_lines
from loracook.store.record import read_metrics
from loracook.store.runs import Run

EVALUATE, TASKS = "evaluate", "lm_eval"
"""The stages whose results are compared."""
ANSWER = {"prompt": str | list, "reference": str | None, ADAPTER: str}
MESSAGES = [{"role": str, "content": str | None}]
SCORES = {str: {ADAPTER: NUMBER}}
LOSS = {"set": str, "row": str, "tokens": int, ADAPTER: NUMBER}
Row = tuple[str, int]
"""What a row is known by in every evaluation: its content, and which one of its kind it is."""
Scores = Mapping[Row, tuple[float, float]]
"""A metric's value of each row, and the weight of the row in the mean."""


@dataclass(frozen=True)
class Evaluated:
    """A run under its title with the metrics of its evaluation, empty without one, and what it left of rows.

    `answers` has the lines of generations.jsonl, `scores` those of their metrics and the losses by metric;
    `tasks` has the scores of lm-evaluation-harness by their names.
    """

    title: str
    run: Run
    measured: Mapping[str, Any]
    answers: Mapping[Row, Mapping[str, Any]]
    scores: Mapping[str, Scores]
    tasks: Mapping[str, TaskScore]

    def figures(self, table: str) -> dict[str, Any]:
        """A table of the evaluation over all row sets: general.loss is the loss of the set general."""
        if not self.measured:
            return {}
        further = self.measured["also"].items()
        names = {f"{name}.{metric}": each[table][metric] for name, each in further for metric in each[table]}
        return {**self.measured[table], **names}


def evaluated(title: str, run: Run) -> Evaluated:
    """What the evaluation of a run left; raises MachineError where that is corrupt."""
    folder = run.stages.get(EVALUATE)
    tasks = {each.name: each for each in stage_scores(run.stages[TASKS])} if TASKS in run.stages else {}
    if folder is None:
        return Evaluated(title, run, {}, {}, {}, tasks)
    try:
        measured = read_metrics(folder)
        answers = _numbered(_lines(folder / "generations.jsonl", ANSWER), _question)
        losses = _numbered(_lines(folder / "losses.jsonl", LOSS), lambda line: f"{line['set']} {line['row']}")
        return Evaluated(title, run, measured, answers, _scores(answers, losses), tasks)
    except (OSError, ValueError) as error:
        raise MachineError(f"what {folder} holds is corrupt; remove it to run the stage again") from error


def _lines(file: Path, shape: Any) -> list[dict[str, Any]]:
    """The lines of a file, none where an earlier version did not write one."""
    return read_json_lines(file, shape) if file.exists() else []


def _numbered(
    lines: Sequence[dict[str, Any]], content: Callable[[Mapping[str, Any]], str]
) -> dict[Row, dict[str, Any]]:
    """Lines by what their rows are known by."""
    seen: Counter[str] = Counter()
    found = {}
    for line in lines:
        key = content(line)
        found[key, seen[key]] = line
        seen[key] += 1
    return found


def _question(line: Mapping[str, Any]) -> str:
    if not isinstance(line["prompt"], str):
        check_shape(line["prompt"], MESSAGES)
        for message in line["prompt"]:
            check_shape(message.get("tool_calls", []), [{"function": dict}])
    return json.dumps([line.get("set", ""), line["prompt"], line["reference"]], sort_keys=True)


def _scores(
    answers: Mapping[Row, Mapping[str, Any]], losses: Mapping[Row, Mapping[str, Any]]
) -> dict[str, dict[Row, tuple[float, float]]]:
    found: dict[str, dict[Row, tuple[float, float]]] = {}
    for row, name, line, value, weight in (*_scored(answers), *_lost(losses)):
        if not (math.isfinite(value) and weight > 0):
            raise ValueError("a score that is none")
        label = f"{line['set']}.{name}" if line.get("set") else name
        found.setdefault(label, {})[row] = value, weight
    return found


Scored = tuple[Row, str, Mapping[str, Any], float, float]


def _scored(answers: Mapping[Row, Mapping[str, Any]]) -> Iterator[Scored]:
    for row, line in answers.items():
        check_shape(line.get("scores", {}), SCORES)
        for name, values in line.get("scores", {}).items():
            yield row, name, line, values[ADAPTER], 1.0


def _lost(losses: Mapping[Row, Mapping[str, Any]]) -> Iterator[Scored]:
    for row, line in losses.items():
        yield row, "loss", line, line[ADAPTER], line["tokens"]
