"""Intervals of a mean over rows: their width, their pairing, and what they decide."""

import numpy as np
import pytest

from loracook.report.bootstrap import interval, verdict


def test_an_interval_is_that_of_the_normal_distribution_for_many_rows() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 4000)
    low, high = interval(values.tolist()) or (0, 0)
    margin = 1.96 * values.std() / 4000**0.5
    assert low == pytest.approx(values.mean() - margin, abs=0.05 * margin)
    assert high == pytest.approx(values.mean() + margin, abs=0.05 * margin)


def test_intervals_hold_the_true_mean_as_often_as_they_say() -> None:
    random, held = np.random.default_rng(2), 0
    for _ in range(200):
        low, high = interval((random.random(60) < 0.7).astype(float).tolist()) or (0, 0)
        held += low <= 0.7 <= high
    assert 180 <= held <= 198


def test_weights_count_as_rows_of_that_many_tokens() -> None:
    low, high = interval([1.0] * 20 + [5.0] * 20, [9.0] * 20 + [1.0] * 20) or (0, 0)
    assert 1 < low < 1.4 < high < 2
    assert interval([2.0, 2.0, 2.0], [1.0, 9.0, 3.0]) == pytest.approx((2.0, 2.0))


def test_one_row_says_nothing_of_others() -> None:
    assert interval([1.0]) is None


@pytest.mark.parametrize(
    ("metric", "difference", "says"),
    [
        ("loss", (-0.3, -0.1), "better"),
        ("loss", (0.1, 0.3), "worse"),
        ("chrf", (0.1, 0.3), "better"),
        ("chrf", (-0.3, -0.1), "worse"),
        ("chrf", (-0.1, 0.3), "no clear difference"),
        ("chrf", (0.0, 0.3), "no clear difference"),
        ("chrf", None, "no clear difference"),
    ],
)
def test_a_difference_counts_where_its_interval_leaves_out_zero(
    metric: str, difference: tuple[float, float] | None, says: str
) -> None:
    assert verdict(metric, difference, {}) == says


def test_what_no_row_tells_apart_is_equal() -> None:
    assert verdict("chrf", (0.0, 0.0), {"adapter": 0, "base": 0, "equal": 40}) == "equal on every row"
    assert verdict("chrf", (0.0, 0.0), {"adapter": 1, "base": 0, "equal": 4000}) == "no clear difference"
