"""The search for the fastest setting: one key after the other, the best kept, and no grid."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from loracook.recipe.recipe import Recipe
from loracook.tuning.candidates import Group, over
from loracook.tuning.measured import Row, Setting

WORTH = 1.01
"""How many times as fast a setting has to be to be chosen over another one."""

HOPELESS = 0.8
"""The share of the best speed below which an option is not tried over other settings as well."""

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
        before, left = best, list[Group]()
        for group in groups:
            row, hopeful = (_neighbours if group.ordered else _options)(recipe, group, best, measure=measure)
            best, left = row, [*left, hopeful]
        if best is before:
            return best
        groups = left


def _faster(best: Row, row: Row) -> Row:
    return row if row.speed > best.speed * WORTH else best


def _options(recipe: Recipe, group: Group, best: Row, *, measure: Measure) -> tuple[Row, Group]:
    """The best row once every option of a group was measured over it, and the group without hopeless ones."""
    start, hopeful = best.setting, list[Setting]()
    for option in group.options:
        row = measure(over(recipe, start, option))
        if row.gain is None or row.gain >= HOPELESS * best.speed:
            hopeful.append(option)
        best = _faster(best, row)
    return best, replace(group, options=tuple(hopeful))


def _neighbours(recipe: Recipe, group: Group, best: Row, *, measure: Measure) -> tuple[Row, Group]:
    """The best row once neighbours were measured in both directions, each as far as they are faster."""
    settings = [over(recipe, best.setting, option) for option in group.options]
    here = settings.index(best.setting)
    for way in (settings[:here][::-1], settings[here + 1 :]):
        for setting in way:
            if (row := measure(setting)) is not (best := _faster(best, row)):
                break
    return best, group
