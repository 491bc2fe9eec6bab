"""The figures of a comparison: means over tokens or rows, paired intervals, wins, and models that are one."""

import math

import pytest

from loracook.evaluation.comparison import RowScores, compared, indistinct, with_perplexity

HARD = [3.0, 1.0, 2.0, 5.0, 4.0, 2.5, 1.5, 3.5]
"""The losses of a base model: rows differ more from each other than models do."""
BETTER = [value - 0.1 for value in HARD]


def test_a_loss_is_a_mean_over_tokens_and_its_difference_is_paired() -> None:
    tokens = [10, 20, 30, 40, 10, 20, 30, 40]
    figures = compared({"loss": RowScores({"base": HARD, "adapter": BETTER}, tokens)})
    assert figures["base"]["loss"] == pytest.approx(
        sum(loss * count for loss, count in zip(HARD, tokens, strict=True)) / sum(tokens)
    )
    assert figures["rows"] == {"loss": 8}
    assert figures["wins"] == {"loss": {"adapter": 8, "base": 0, "equal": 0}}
    low, high = figures["intervals"]["loss"]["base"]
    assert high - low > 1
    assert figures["intervals"]["loss"]["difference"] == pytest.approx([-0.1, -0.1])


def test_more_is_better_for_every_other_metric() -> None:
    scores = RowScores({"base": [0.0, 1.0, 0.5], "adapter": [1.0, 0.0, 0.5], "old": [1.0, 1.0, 1.0]})
    figures = compared({"chrf": scores})
    assert figures["wins"] == {"chrf": {"adapter": 1, "base": 1, "equal": 1}}
    assert figures["adapters"] == {"old": {"chrf": 1.0}}
    assert set(figures["intervals"]["chrf"]) == {"base", "adapter", "old", "difference"}


def test_one_row_has_no_interval_and_no_row_no_figures() -> None:
    assert compared({"chrf": RowScores({"base": [0.1], "adapter": [0.2]})})["intervals"] == {}
    assert with_perplexity(compared({})) == {
        "base": {}, "adapter": {}, "adapters": {}, "rows": {}, "intervals": {}, "wins": {},
    }  # fmt: skip


def test_perplexity_follows_from_the_loss() -> None:
    figures = with_perplexity(compared({"loss": RowScores({"base": HARD, "adapter": [800.0] * 8})}))
    assert figures["base"]["perplexity"] == pytest.approx(math.exp(sum(HARD) / 8))
    assert math.isfinite(figures["adapter"]["perplexity"])
    assert "difference" not in figures["intervals"]["perplexity"]


def test_models_that_do_exactly_the_same_are_named() -> None:
    measured = {
        "base": [1.0, 2.0],
        "adapter": [1.0, 2.0],
        "old": [1.0, 2.0 + 1e-12],
        "new": [1.0, 2.0 + 1e-12],
    }
    assert list(indistinct(measured)) == [
        "'adapter' gives exactly the losses and answers of 'base'; it changes nothing",
        "'new' gives exactly the losses and answers of 'old'",
    ]
