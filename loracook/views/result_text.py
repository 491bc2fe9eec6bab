"""What a run leaves, as the lines shown at its end."""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from loracook.planner import Plan
from loracook.report.generations import figures, head
from loracook.report.task_scores import SIDES, stage_scores
from loracook.runner import upload_to_allow
from loracook.store.read_back import NUMBER
from loracook.store.record import read_metrics, read_result
from loracook.views.report import FILE
from loracook.views.serving import SHAPE, read_servings, serving_lines

MAIN = {
    "train": "adapter", "evaluate": "generations.md", "lm_eval": "results.json", "merge": "model",
    "export": "Modelfile",
}  # fmt: skip
"""The file or folder of a stage to look at first; others name it in their result, or it is their folder."""
TRAINED = {
    "losses": {str: NUMBER}, "loss_steps": int, "data": {"statistics": {"rows": {"evaluation": int}}},
}  # fmt: skip
"""What is shown of training."""


PROVEN = {"processes": {"count": int, "strategy": str, "first_loss": NUMBER, "first_loss_alone": NUMBER}}


def result_lines(plan: Plan, only: str | None) -> list[str]:
    """The table of metrics before and after, what is where, and a command to try next.

    Args:
        plan: the plan as it is now.
        only: the stage that alone was to be run.
    """
    done = {stage.name: stage.folder for stage in plan.stages if stage.done}
    return [*made_lines(plan), "", *_next(plan, done, only)]


def unmet_lines(plan: Plan) -> list[str]:
    """What a run has left whose gate is not met: the same, and what was not run."""
    left = ", ".join(stage.name for stage in plan.to_do)
    return [*made_lines(plan), *([f"  {'not run':<10}{left}"] if left else []), ""]


def made_lines(plan: Plan) -> list[str]:
    """The table of metrics before and after, and what is where."""
    done = {stage.name: stage.folder for stage in plan.stages if stage.done}
    places = [f"  {name:<10}{_place(plan, name, folder)}" for name, folder in done.items()]
    places += _exported(plan, done["export"]) if "export" in done else []
    report = plan.folder / FILE
    places += [f"  {'report':<10}{report}"] if report.is_file() else []
    losses = [*_losses(done["train"]), *_processes(done["train"])] if "train" in done else []
    tables = [*_table(done.get("evaluate")), *_scores(done.get("lm_eval"))]
    return [*losses, *tables, "", *places, *_serving(done)]


def _serving(done: dict[str, Path]) -> list[str]:
    """What loads the adapter, and the merged model where there is one."""
    made = [_with_serving(done[name]) for name in ("train", "merge") if name in done]
    lines = serving_lines(read_servings(made))
    return [f"  {'' if number else 'serving':<10}{line}" for number, line in enumerate(lines)]


def _with_serving(folder: Path) -> dict[str, Any]:
    """The result of a stage, checked for what it says of serving; those of before say nothing."""
    stated = "serving" in read_result(folder, {})
    return read_result(folder, {"serving": SHAPE} if stated else {})


def _place(plan: Plan, name: str, folder: Path) -> str:
    if name in MAIN:
        return str(folder / MAIN[name])
    result = read_result(folder, {"folder": str | None, "url": str | None})
    published = plan.folder / result["folder"] if result.get("folder") else folder
    return str(result.get("url") or published)


def _exported(plan: Plan, export: Path) -> list[str]:
    """The commands that serve an exported model."""
    file = export / read_result(export, {"file": str})["file"]
    return [
        f"  {'llama.cpp':<10}llama-server -m {quote(str(file))} --jinja",
        f"  {'Ollama':<10}ollama create {plan.recipe.name} -f {quote(str(export / MAIN['export']))}",
    ]


def _losses(train: Path) -> list[str]:
    """The losses that training ended with, and what each was measured on."""
    result = read_result(train, TRAINED)
    steps, rows = result["loss_steps"], result["data"]["statistics"]["rows"]["evaluation"]
    measured_on = {
        "loss": f"over the last {steps:,} steps" if steps > 1 else "in the last step",
        "eval_loss": f"on {rows:,} evaluation row{'s' * (rows != 1)}",
    }
    losses = {name: result["losses"][name] for name in measured_on if name in result["losses"]}
    lines = [f"  {name.replace('_', ' '):<10}{losses[name]:.4g} {measured_on[name]}" for name in losses]
    return ["", *lines] if lines else []


def _processes(train: Path) -> list[str]:
    """What several processes have proven of themselves."""
    if "first_loss" not in read_result(train, {}).get("processes", {}):
        return []  # one, or several that resumed after the last step
    proven = read_result(train, PROVEN)["processes"]
    losses = f"first loss {proven['first_loss']:.6g}, {proven['first_loss_alone']:.6g} in one process"
    return [f"  {'processes':<10}{proven['count']} ({proven['strategy']}), with the same weights; {losses}"]


def _table(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    metrics = read_metrics(folder)
    notes = [f"  note: {note}" for note in metrics["notes"]]
    measured = figures(metrics)
    table = _aligned([("", *head(metrics)[1:]), *measured]) if measured else []
    return ["", *table, *notes] if table or notes else []


def _scores(folder: Path | None) -> list[str]:
    """The scores on tasks; those of a group stand for its parts."""
    if folder is None:
        return []
    scores = stage_scores(folder)
    rows = [(each.name, *each.texts, each.verdict) for each in scores if not each.group]
    return ["", *_aligned([("", *SIDES, ""), *rows])]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ([name.ljust(widths[0]), *map(str.rjust, values, widths[1:])] for name, *values in rows)
    return [f"  {'   '.join(line)}".rstrip() for line in lines]


def _next(plan: Plan, done: dict[str, Path], only: str | None) -> list[str]:
    to_do = [stage.name for stage in plan.to_do]
    if len(to_do) == 1 and upload_to_allow(plan):
        return [f"to upload it, run the same command with --push{' and without --only' if only else ''}"]
    if to_do:
        return [f"still to do: {', '.join(to_do)}; run the same command without --only"]
    report, evaluated = plan.folder / FILE, "evaluate" in done
    text = done["evaluate"] / "generations.md" if evaluated else done["train"] / "log.jsonl"
    how = f"open {report} in a browser" if report.is_file() else f"less {text}"
    return [f"{'compare the answers' if evaluated else 'look at the losses'}:  {how}"]
