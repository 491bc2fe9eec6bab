"""How sure a mean over rows is: confidence intervals by resampling the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

LOWER_IS_BETTER = frozenset({"loss", "perplexity"})
EQUAL = "equal on every row"
RESAMPLES, COVERAGE, SEED = 2000, 0.95, 0
AT_ONCE = 1 << 22
"""Rows that are drawn at once, so that memory stays below 100 MB."""

Interval = tuple[float, float]


def interval(values: Sequence[float], weights: Sequence[float] | None = None) -> Interval | None:
    """The 95 % interval of the weighted mean of values by row; None for fewer than two rows.

    It is the percentile bootstrap (Efron 1979): the spread of the mean over rows drawn with replacement, the
    same draws in every call. For the difference of two models, give the difference of each row: paired rows
    share what makes a row hard. Weights are the tokens of each row where values are means over tokens.
    """
    import numpy as np

    rows = len(values)
    if rows < 2:
        return None
    weight = np.ones(rows) if weights is None else np.asarray(weights, dtype=float)
    weighted, random = np.asarray(values, dtype=float) * weight, np.random.default_rng(SEED)
    means: list[float] = []
    while len(means) < RESAMPLES:
        draws = random.integers(rows, size=(min(RESAMPLES - len(means), max(AT_ONCE // rows, 1)), rows))
        means.extend(weighted[draws].sum(axis=1) / weight[draws].sum(axis=1))
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def verdict(metric: str, difference: Sequence[float] | None, wins: Mapping[str, int]) -> str:
    """What the interval of a difference from another model says, unless no row tells the two apart: better,
    worse or no clear difference. `wins` are the rows on which each does better, or neither ("equal").
    """
    if 0 < sum(wins.values()) == wins.get("equal"):
        return EQUAL
    if difference is None or difference[0] <= 0 <= difference[1]:
        return "no clear difference"
    return "better" if (difference[0] > 0) != (metric in LOWER_IS_BETTER) else "worse"
