"""The search for the fastest setting: one key after the other, the best kept, and no grid."""

from collections.abc import Callable, Iterable, Sequence

from loracook.recipe.recipe import Recipe
from loracook.tuning.candidates import Group, over
from loracook.tuning.measured import Row, Setting

WORTH = 1.01
"""How many times as fast a setting has to be to be chosen over another one."""

Measure = Callable[[Setting], Row]
"""Gives the row of a setting; of one that was measured before, the same row at once."""


def fastest(recipe: Recipe, guesses: Iterable[Setting], groups: Sequence[Group], *, measure: Measure) -> Row:
    """The fastest row that coordinate steps lead to, from the untuned recipe or a better guess.

    Group after group, its options are measured over the best so far, until a whole round changes nothing.
    """
    best = measure({})
    for guess in guesses:
        best = _faster(best, measure(guess))
    while True:
        before = best
        for group in groups:
            best = (_neighbours if group.ordered else _options)(recipe, group, best, measure=measure)
        if best is before:
            return best


def _faster(best: Row, row: Row) -> Row:
    return row if row.speed > best.speed * WORTH else best


def _options(recipe: Recipe, group: Group, best: Row, *, measure: Measure) -> Row:
    """The best row once every option of a group was measured over it."""
    start = best.setting
    for option in group.options:
        best = _faster(best, measure(over(recipe, start, option)))
    return best


def _neighbours(recipe: Recipe, group: Group, best: Row, *, measure: Measure) -> Row:
    """The best row once neighbours were measured in both directions, each as far as they are faster."""
    settings = [over(recipe, best.setting, option) for option in group.options]
    here = settings.index(best.setting)
    for way in (settings[:here][::-1], settings[here + 1 :]):
        for setting in way:
            if (row := measure(setting)) is not (best := _faster(best, row)):
                break
    return best
