"""Runs side by side as plain values, for `--format json`."""

from dataclasses import asdict
from typing import Any

from loracook.evaluation.comparison import ADAPTER, BASE
from loracook.results.compare import Comparison
from loracook.views.compare_text import recipe_changes


def as_json(comparison: Comparison, rows: int) -> dict[str, Any]:
    """Each run's figures, who is best by which metric, what differs in the recipes, and rows."""
    return {
        "runs": [
            {
                "name": run.title,
                "stages": {name: str(folder) for name, folder in run.run.stages.items()},
                BASE: run.figures(BASE),
                ADAPTER: run.figures(ADAPTER),
                "rows": run.figures("rows"),
                "intervals": run.figures("intervals"),
                "tasks": {name: asdict(score) for name, score in run.tasks.items()},
            }
            for run in comparison.runs
        ],
        "metrics": {
            name: {key: value for key, value in asdict(one).items() if key != "metric"}
            | {"clear": one.is_clear}
            for name, one in comparison.standings.items()
        },
        "changes": recipe_changes(comparison),
        "notes": list(comparison.notes()),
        "rows": [asdict(row) for row in comparison.rows(rows)],
    }
