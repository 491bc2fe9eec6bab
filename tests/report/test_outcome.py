"""The outcome in words: by how much each metric changed, how sure that is, and what got worse."""

from __future__ import annotations

from typing import Any

import pytest

from loracook.report.outcome import figures, sentences

RISES = {"base": 0.1, "adapter": 0.9, "difference": [0.7, 0.9]}
FALLS = {"base": 0.9, "adapter": 0.8, "difference": [-0.2, -0.05]}
SAME = {"base": 0.0, "adapter": 0.0, "difference": [0.0, 0.0]}
STAYS = {"base": 0.5, "adapter": 0.55, "difference": [-0.1, 0.2]}


def measured(also: dict[str, Any] | None = None, **metrics: dict[str, Any]) -> dict[str, Any]:
    """An evaluation of these metrics."""
    return {
        "base": {name: of["base"] for name, of in metrics.items()},
        "adapter": {name: of["adapter"] for name, of in metrics.items()},
        "rows": dict.fromkeys(metrics, 20), "wins": {}, "adapters": {"other": dict.fromkeys(metrics, 0.2)},
        "intervals": {name: {"difference": of["difference"]} for name, of in metrics.items() if of["difference"]},
        "also": also or {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        (
            measured(chrf=RISES),
            ["Better than the base model: chrf 10.0% → 90.0%, +80.0 points (95% interval +70.0 to +90.0).",
             "Nothing that was measured got worse."],
        ),
        (
            measured(chrf=RISES, loss=RISES),
            ["Better than the base model: chrf 10.0% → 90.0%, +80.0 points (95% interval +70.0 to +90.0).",
             "Worse than the base model: loss 0.1 → 0.9, +0.800 (95% interval +0.700 to +0.900)."],
        ),
        (
            measured(chrf=STAYS, also={"general": measured(loss=FALLS)}),
            ["Better than the base model: general.loss 0.9 → 0.8, -0.100 (95% interval -0.200 to -0.050).",
             "Nothing that was measured got worse.", "No clear difference from the base model: chrf."],
        ),
        (measured(chrf={**RISES, "difference": None}), ["No clear difference from the base model: chrf."]),
        (
            {**measured(chrf=STAYS, rouge=SAME), "wins": {"rouge": {"adapter": 0, "base": 0, "equal": 20}}},
            ["No clear difference from the base model: chrf.", "Equal to the base model on every row: rouge."],
        ),
        (measured(), []),
    ],
)  # fmt: skip
def test_the_outcome_says_what_changed_and_how_sure_that_is(
    evaluation: dict[str, Any], said: list[str]
) -> None:
    assert [sentence for _, sentence in sentences(list(figures(evaluation)))] == said


def test_every_adapter_has_a_value() -> None:
    (figure,) = figures(measured(chrf=RISES))
    assert [(side.name, side.text) for side in figure.sides] == [
        ("base", "10.0%"), ("adapter", "90.0%"), ("other", "20.0%"),
    ]  # fmt: skip
