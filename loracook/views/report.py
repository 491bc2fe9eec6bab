"""The report of a run: one self-contained page, made from the records and logs in its folder."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from loracook.errors import LockedError, LoracookError, dotted
from loracook.evaluation.gates import CONDITIONS, checked
from loracook.planner import Plan
from loracook.progress import Progress
from loracook.recipe.yaml_values import rows as yaml_rows
from loracook.report.answers import read_answers, rows
from loracook.report.curves import charts, not_finite, read_log
from loracook.report.generations import in_other_batch, measured_on
from loracook.report.outcome import figures, sentences
from loracook.report.task_scores import TaskScore, stage_scores
from loracook.store.files import write_atomic
from loracook.store.read_back import NUMBER, check_shape
from loracook.store.record import read_metrics, reason
from loracook.views.adapter_chart import bars
from loracook.views.page import page
from loracook.views.report_commands import commands, serving, servings_of
from loracook.views.report_facts import data_facts, training_facts
from loracook.views.serving import serving_lines
from loracook.views.shown_run import Shown, of_plan

FILE = "report.html"
LINES = 2000
"""Lines of a recipe that are shown; a stranger's record may hold more."""
Part = TypeVar("Part")


@contextmanager
def reported(planned: Plan, progress: Progress) -> Iterator[None]:
    """Write the report once what is inside has run, however it ended; a fault of its own is only noted."""
    try:
        yield
    except LockedError:  # the run is another's
        raise
    except Exception as error:
        _write_anyhow(planned, progress, ended=reason(error))
        raise
    if planned.to_do:  # a run that is done is left as it is
        _write_anyhow(planned, progress, ended="")


def _write_anyhow(planned: Plan, progress: Progress, *, ended: str) -> None:
    if not any(stage.folder.exists() for stage in planned.stages):  # refused before anything ran
        return
    try:
        write(of_plan(planned, ended))
    except Exception:  # noqa: BLE001  # a run that is done does not fail over a page; log.txt has the traceback
        traceback.print_exc()
        progress.note(f"{FILE} was not written; log.txt says why; try: loracook report {planned.folder}")


def write(shown: Shown) -> Path:
    """Write the report into the run folder, and return its path."""
    path = shown.folder / FILE
    write_atomic(path, as_html(shown))
    return path


def as_html(shown: Shown) -> str:
    """The report as a page; a part that cannot be read is named in its place."""
    faults: list[str] = []

    def part(what: str, build: Callable[[], Part]) -> Part | None:
        try:
            return build()
        except (OSError, LookupError, TypeError, ValueError, ArithmeticError, LoracookError) as error:
            faults.append(f"{what} cannot be shown: {error}")
            return None

    measured = part("the evaluation", lambda: _measured(shown))
    all_figures = part("the metrics", lambda: list(figures(measured))) if measured else None
    servings = part("what can serve it", lambda: servings_of(shown)) or []
    values = {
        "sentences": sentences(all_figures) if all_figures else [],
        "figures": all_figures or [],
        "measured": measured,
        "findings": part("the findings", lambda: _findings(shown.record("evaluate"))) or [],
        "tasks": part("the scores on tasks", lambda: _tasks(shown)) or [],
        "measured_on": measured_on(measured) if measured else "",
        "in_other_batch": part("the other batch", lambda: in_other_batch(measured or {})),
        "gates": part("the gates", lambda: _gates(shown, measured)) if measured else [],
        "answers": part("the answers", lambda: _answers(shown)),
        "curves": part("the curves", lambda: _curves(shown)),
        "changed": part("what the adapter changed", lambda: bars(shown.record("train"))),
        "data": part("the data", lambda: data_facts(shown.record("train"))),
        "facts": part("what training took", lambda: training_facts(shown.record("train"))),
        "notes": part("the warnings", lambda: _notes(shown)),
        "recipe": part("the recipe", lambda: _recipe(shown)) or [],
        "commands": [*commands(shown), *serving(shown, servings)],
        "serving": list(serving_lines(servings)),
    }
    return page("report.html.jinja", script="report.js", shown=shown, faults=faults, **values)


def _measured(shown: Shown) -> dict[str, Any] | None:
    return None if shown.record("evaluate") is None else read_metrics(_folder(shown, "evaluate"))


def _tasks(shown: Shown) -> list[TaskScore]:
    """The scores on tasks of lm-evaluation-harness."""
    return [] if shown.record("lm_eval") is None else stage_scores(_folder(shown, "lm_eval"))


def _folder(shown: Shown, name: str) -> Path:
    folder = shown.place(name)
    if folder is None:
        raise LoracookError(f"the run has no {name}")
    return folder


def _gates(shown: Shown, measured: Mapping[str, Any]) -> list[Any]:
    evaluate = shown.sections.get("evaluate", {})
    check_shape(evaluate, dict)
    require = evaluate.get("require", {})
    check_shape(require, {str: {str: NUMBER}})
    known = {
        name: {condition: bound for condition, bound in conditions.items() if condition in CONDITIONS}
        for name, conditions in require.items()
    }
    return list(checked(known, measured))


def _answers(shown: Shown) -> dict[str, Any] | None:
    if shown.record("evaluate") is None:
        return None
    lines = read_answers(_folder(shown, "evaluate"))
    shown_rows = rows(lines)
    sets = sorted({row.row_set for row in shown_rows})
    return {"rows": shown_rows, "all": len(lines), "sets": sets}


def _curves(shown: Shown) -> dict[str, Any] | None:
    log_file = _folder(shown, "train") / "log.jsonl"
    if not log_file.is_file():
        return None
    log, record = read_log(log_file), shown.record("train")
    resumed = str((record and record["result"].get("resumed_from")) or "").rpartition("-")[2]
    marks = [int(resumed)] if resumed.isascii() and resumed.isdigit() else []
    return {"charts": charts(log, marks), "not_finite": not_finite(log)}


def _notes(shown: Shown) -> list[tuple[str, str]]:
    """Every warning and note of the stages that are done, each once, with the stage's name."""
    found: dict[str, str] = {}
    for stage in shown.stages:
        record = stage.record or {}
        for note in (*record.get("warnings", ()), *record.get("notes", ())):
            check_shape(note, str)
            found.setdefault(note, stage.name)
    return [(name, note) for note, name in found.items()]


def _findings(record: Mapping[str, Any] | None) -> list[str]:
    """What an evaluation found wrong, as an adapter that changes nothing."""
    found = record["result"].get("notes", []) if record else []
    check_shape(found, [str])
    return list(found)


def _recipe(shown: Shown) -> list[tuple[str, str]]:
    """The lines of the effective recipe, each with the origin of its value."""
    lines = yaml_rows(dict(shown.sections))
    shortened = (line for line, _ in zip(lines, range(LINES), strict=False))
    return [(text, shown.origins.get(dotted(path), "") if path else "") for text, path in shortened]
