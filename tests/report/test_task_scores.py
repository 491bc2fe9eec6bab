"""Scores on tasks: what is taken from lm-evaluation-harness, and how it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loracook.report.task_scores import SCORES, as_markdown, read_scores, scores
from loracook.results.compare import compared
from loracook.results.overview import overviews
from loracook.store.read_back import check_shape
from loracook.store.runs import Run, newest
from loracook.views.compare_text import as_lines as compare_lines
from loracook.views.report import as_html
from loracook.views.runs_text import as_lines as runs_table
from loracook.views.shown_run import of_run
from tests.finished_runs import finished_run
from tests.records import finished_stage


def results(*right: float, **others: Any) -> dict[str, Any]:
    """What lm_eval.evaluate gives for one task with a score for each row."""
    mean = sum(right) / len(right)
    values = {
        "alias": "soup",
        "sample_len": len(right),
        "acc,none": mean,
        "acc_stderr,none": 0.1,
        "f1,none": "N/A",
    }
    return {
        "results": {"soup": values, "kitchen": {"acc,none": mean, "acc_stderr,none": "N/A"}},
        "group_subtasks": {"kitchen": ["soup"]},
        "higher_is_better": {"soup": {"acc": True}},
        "n-samples": {"soup": {"original": 90, "effective": len(right)}},
        "samples": {"soup": [{"filter": "none", "acc": each} for each in right]},
        **others,
    }  # fmt: skip


def score(task: str = "soup", **facts: Any) -> dict[str, Any]:
    """A score as a record has it."""
    own = {"metric": "acc", "filter": "none", "group": "", "rows": 20, "higher_is_better": True}
    values = {
        "base": 0.25,
        "adapter": 0.75,
        "base_stderr": 0.1,
        "adapter_stderr": None,
        "low": 0.3,
        "high": 0.7,
    }
    return {"task": task, **own, **values, **facts}


def test_both_sides_of_each_metric_are_taken_with_the_interval_of_their_difference_by_row() -> None:
    found = scores({"base": results(*[0, 1] * 10), "adapter": results(*[1, 1] * 10)})
    check_shape(found, SCORES)
    soup, kitchen = read_scores(found)
    assert (soup.task, soup.metric, soup.group, soup.rows, soup.base, soup.adapter) == (
        "soup", "acc", "kitchen", 20, 0.5, 1.0
    )  # fmt: skip
    assert (soup.base_stderr, kitchen.base_stderr) == (0.1, None)
    assert soup.low is not None
    assert 0.2 < soup.low < 0.5
    assert (soup.verdict, kitchen.verdict) == ("better", "")


def test_a_metric_that_is_no_mean_of_rows_has_no_interval() -> None:
    rows = {"samples": {"soup": [{"filter": "none", "acc": (0, [1.0])}] * 2}}
    (soup, _) = read_scores(scores({"base": results(0, 1), "adapter": results(1, 1) | rows}))
    assert (soup.low, soup.high, soup.verdict) == (None, None, "")


def test_what_is_better_depends_on_the_metric() -> None:
    verdicts = [
        read_scores([score(higher_is_better=higher, low=low, high=0.7)])[0].verdict
        for higher in (True, False, None)
        for low in (0.3, -0.1)
    ]
    assert verdicts == ["better", "no clear difference", "worse", "no clear difference", "", ""]


def test_the_report_lists_them_and_a_strangers_names_stay_text(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs")
    nasty = "</td></table><script>alert(1)</script>{{ 7 * 7 }}"
    result = {"lm_eval": "0.4.13", "scores": [score(), score(nasty, group=nasty, low=None)]}
    finished_stage(run, "lm_eval-00000002", {}, before=(run / "train-00000000",), result=result)
    text = as_html(of_run(Run(run.name, run, newest(run))))
    assert 'soup.acc<td>0.25 ± 0.1<td>0.75<td>+0.5 (+0.3 to +0.7)<td>20<td class="better">better' in " ".join(
        text.split()
    )
    assert '<p class="better">Better than the base model on tasks: soup.acc.</p>' in text
    assert "<script>alert(1)" not in text
    assert "{{ 7 * 7 }}" in text


def test_scores_of_another_shape_are_named_in_their_place(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs")
    result = {"scores": [score() | {"base": "high"}]}
    finished_stage(run, "lm_eval-00000002", {}, before=(run / "train-00000000",), result=result)
    assert "the scores on tasks cannot be shown" in as_html(of_run(Run(run.name, run, newest(run))))


def test_runs_compare_and_cards_show_them(tmp_path: Path) -> None:
    runs = []
    for name, value in {"soup": 0.75, "salt": 0.5}.items():
        run, trained = tmp_path / name / name, {"losses": {"loss": 0.5}, "steps": 2}
        train = finished_stage(run, "train-00000000", result=trained)
        result = {"scores": [score(adapter=value, adapter_stderr=0.05)]}
        finished_stage(run, "lm_eval-00000002", {}, before=(train,), result=result)
        runs.append(run)
        (line,) = runs_table(overviews(tmp_path / name))[1:]
        assert f"soup.acc 0.25 → {value}" in line
    compared_runs = compared([Run(str(run), run, newest(run)) for run in runs])
    (line,) = (line for line in compare_lines(compared_runs, 0) if line.startswith("soup.acc"))
    assert line.split() == ["soup.acc", "0.25", "±", "0.1", "0.75", "±", "0.05", "0.5", "±", "0.05", "-", "-"]
    nasty = read_scores([score("a|b<script>", adapter_stderr=0.05)])
    assert as_markdown(nasty).splitlines()[2:] == [
        r"| a\|b\<script\>.acc | 0.25 ± 0.1 | 0.75 ± 0.05 | +0.5 (+0.3 to +0.7) | 20 |"
    ]
