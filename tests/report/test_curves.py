"""A log becomes lines of few points over the steps of all attempts; what is no number is counted, not drawn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from loracook.report.curves import POINTS, charts, not_finite, read_log


def test_lines_have_the_values_of_the_log_and_few_points() -> None:
    log = [{"loss": 1000.0 - step, "learning_rate": 0.5, "step": step} for step in range(1, 1000)]
    loss, rate = charts([*log, {"eval_loss": 7.0, "step": 500}], resumed_at=[300, 5000])
    training, evaluation = loss.lines
    assert (loss.title, training.name, evaluation.name, evaluation.points) == (
        "Loss", "training", "evaluation", [(500.0, 7.0)],
    )  # fmt: skip
    assert len(training.points) <= POINTS
    assert (training.points[0], training.points[-1]) == ((4.0, 997.5), (999.0, 2.0))
    assert loss.marks == (300,)
    assert [loss.place(point, 100, 50) for point in (training.points[0], training.points[-1])] == [
        (0.0, 0.0), (100.0, 50.0),
    ]  # fmt: skip
    assert (rate.y, rate.place(rate.lines[0].points[0], 100, 50)[1]) == ((0.5, 0.5), 50.0)


def test_what_is_not_finite_is_counted_and_not_drawn() -> None:
    log: list[dict[str, Any]] = [
        {"loss": 1.0, "step": 1}, {"loss": math.nan, "grad_norm": math.inf, "step": 2}, {"loss": "x", "step": 3},
    ]  # fmt: skip
    (loss,) = charts(log)
    assert (loss.lines[0].points, not_finite(log)) == ([(1.0, 1.0)], 2)


def test_a_log_of_nothing_has_no_chart() -> None:
    assert charts([{"train_runtime": 1.0, "step": 2}]) == []


def test_a_line_that_a_killed_process_left_half_written_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_log(file) == [{"step": 1, "loss": 2.0}]
    file.write_text('{"loss": 2.0}\n')
    with pytest.raises(ValueError, match="expected"):
        read_log(file)
