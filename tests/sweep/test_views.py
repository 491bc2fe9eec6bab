"""What is shown of a sweep: its lines, its page, and the recipe of its best trial."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from loracook.planner import plan
from loracook.recipe.recipe import load
from loracook.sweep.file import load_sweep
from loracook.sweep.table import ENDED, FAILED, FINISHED, STOPPED, Row, Table, finished, read_table
from loracook.views.sweep_html import as_html
from loracook.views.sweep_text import best_recipe, head, line, summary

SWEEP = """\
recipe: recipe.yaml
method: grid
metric: {name: exact_match, goal: maximize}
seeds: [3, 4]
parameters:
  train.learning_rate: {values: [0.001, 0.0001]}
  lora.target_modules: {values: [all-linear, [q_proj]]}
"""
LINES = """\
trial  learning_rate  target_modules  state        exact_match       time
    1  0.001          all-linear      finished     0.6 ± 0.14        1m30s
    2  0.001          [q_proj]        ended early  at step 8         50s
    3  0.0001         all-linear      failed       at step 3         10s  training diverged </script><b>
    4  0.0001         [q_proj]        stopped

1 finished, 1 ended early, 1 failed, 1 stopped; runs/sweeps/rates.DIGEST/sweep.html shows all
best: trial 1, exact_match 0.6 ± 0.14 with train.learning_rate=0.001, lora.target_modules=all-linear
next: loracook run rates-best.yaml"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    invalid = Path(__file__).parent / "invalid"
    for name in ("recipe.yaml", "rows.jsonl"):
        (tmp_path / name).write_text((invalid / name).read_text())
    (tmp_path / "rates.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    sweep = load_sweep(Path("rates.yaml"))
    first, second, third, fourth = map(Row, sweep.points)
    failed = replace(third, state=FAILED, step=3, seconds=10, reason="training diverged </script><b>", code=4)
    rows = [
        finished(replace(first, seconds=90), [0.5, 0.7]),
        replace(second, state=ENDED, step=8, seconds=50),
        failed,
        replace(fourth, state=STOPPED),
    ]
    return Table(sweep, Path("runs"), rows)


def test_the_table_and_its_summary(table: Table) -> None:
    lines = [head(table.sweep), *(line(table.sweep, n, row) for n, row in enumerate(table.rows)), ""]
    text = "\n".join([*lines, *summary(table, "rates-best.yaml")])
    assert text.replace(table.sweep.digest, "DIGEST") == LINES


def test_nothing_on_the_page_is_markup_of_somebody_else(table: Table) -> None:
    page = as_html(table)
    assert "</script><b>" not in page
    assert "&lt;/script&gt;&lt;b&gt;" in page


def test_the_best_recipe_plans_the_folders_of_the_trials_run(table: Table) -> None:
    Path("rates-best.yaml").write_text(best_recipe(table, table.rows[0]))
    best = plan(load("rates-best.yaml"), Path("runs"))
    run = plan(table.sweep.load_run(table.rows[0].point, 3), Path("runs"))
    assert [stage.folder for stage in best.stages] == [stage.folder for stage in run.stages]
    assert best.recipe["train"]["seed"] == 3


def test_what_a_sweep_left_is_read_back_and_what_is_not_there_runs_again(table: Table) -> None:
    table.folder.mkdir(parents=True)
    table.write()
    states = [row.state for row in read_table(table.sweep, table.runs).rows]
    assert states == ["waiting", "ended early", "waiting", "waiting"]
    assert table.rows[0].state == FINISHED  # whose runs are not there
