"""What tuning measured as a ladder in text, and its answer as a recipe."""

from collections.abc import Iterator

from loracook.recipe.recipe import Recipe
from loracook.recipe.yaml_values import flow
from loracook.tuning.answers import sections
from loracook.tuning.candidates import (
    ALLOWED,
    CHECKPOINTING,
    KWARGS,
    OFFLOADING,
    ROWS,
    STEPS,
    UNTUNED,
    text_of,
)
from loracook.tuning.measured import DROPPED, MARGIN, OTHER, Key, Row, Trial
from loracook.tuning.tune import Tuned
from loracook.units import size

HEAD = f"{'tokens/s':>9} {'trained':>8} {'memory':>9}  {'losses':<16} {'gain':<6} setting"
TOGETHER = ((ROWS, STEPS), (CHECKPOINTING, KWARGS, OFFLOADING))
"""Keys that are changed together."""


def row_line(row: Row) -> str:
    """A row of the ladder."""
    trial, setting = row.trial, text_of(row.setting) or UNTUNED
    speed, trained = f"{trial.speed():,.0f}", f"{trial.speed() * trial.trained_share:,.0f}"
    peak = size(trial.peak) if trial.peak else ""
    gain = f"{row.gain:.2f}x" if row.gain is not None else ""
    if not trial.seconds:
        speed = trained = ""
    also = "; ".join(filter(None, (_changes(row), row.against)))
    figures = f"{speed:>9} {trained:>8} {peak:>9}  {_losses(row):<16} {gain:<6}"
    return f"{figures} {setting}{f' ({also})' if also else ''}"


def _changes(row: Row) -> str:
    return f"--allow {row.allowed}: {ALLOWED[row.allowed]}" if row.allowed else ""


def _losses(row: Row) -> str:
    if row.difference is None:
        return ""
    if row.difference == 0:
        return "same" if row.setting else "the reference"
    if row.difference == OTHER:
        return "other rows"
    if row.rounded:
        return "as near float32"
    far = row.allowed or row.against == DROPPED
    return f"{'differ by' if far else 'same to'} {row.difference:.1g}"


def end_lines(tuned: Tuned) -> Iterator[str]:
    """What the ladder comes to."""
    what = "resident memory beside the process with its libraries" if tuned.kind == "cpu" else "memory"
    if tuned.known:
        yield f"kept from {tuned.when}, when it was measured with --minutes {tuned.seconds / 60:g}"
    yield f"limit: {size(tuned.limit)} of {what} on {tuned.device}, of which {MARGIN:.0%} stay free"
    yield from tuned.doubts
    if tuned.untried:
        each = f"a trial takes up to {tuned.longest:.0f} s"
        yield f"not tried for want of time ({each}); use --minutes {tuned.minutes_for_all} or more:"
        yield from (f"  {setting}" for setting in tuned.untried)
    if tuned.again is not None and tuned.confirmed is not None:
        last, best = _figures(tuned.again), _figures(tuned.confirmed)
        yield f"once more, side by side: untuned {last}; the fastest {best}"
    yield _answer(tuned)


def _answer(tuned: Tuned) -> str:
    if not any(row.trial.seconds for row in tuned.rows):
        return "nothing was measured"
    if tuned.best.against:
        return "nothing that was measured fits"
    if tuned.is_partial and not tuned.has_compared:
        return "nothing was measured beside your recipe as it is"
    of = "of what was measured" if tuned.is_partial else "that fits"
    if not tuned.best.setting:
        return f"your recipe is the fastest {of}, as it is"
    return f"fastest {of}: {_gain(tuned, UNTUNED)}, with {text_of(tuned.best.setting)}"


def _gain(tuned: Tuned, recipe: str) -> str:
    return "fits" if tuned.gain is None else f"{tuned.gain:.2f} times as fast as {recipe} for the whole run"


def recipe_text(tuned: Tuned, recipe: Recipe) -> str:
    """The answer as a recipe beside the original, which it extends."""
    gain = _gain(tuned, recipe.file.name)
    lines = [f"# measured by loracook tune on {tuned.device}: {gain}", "version: 1"]
    lines.append(f"extends: {flow(f'./{recipe.file.name}')}")
    for section, keys in sections(tuned.best.setting).items():
        lines.append(f"{section}:")
        for key, value in keys.items():
            lines += [f"  # {_why(tuned, (section, key))}", f"  {key}: {flow(value)}"]
    return "\n".join(lines) + "\n"


def _why(tuned: Tuned, path: Key) -> str:
    """What was measured of a changed key: with it, and without it where nothing else differed."""
    best = tuned.best
    group = next((keys for keys in TOGETHER if path in keys), (path,))
    wanted = {key: best.setting[key] for key in group if key in best.setting}
    for row in (best, *reversed(tuned.rows)):
        rest = {key: value for key, value in row.setting.items() if key not in group}
        without = next((other for other in tuned.rows if other.setting == rest and other.trial.seconds), None)
        gains = without is not None and (row is best or row.speed > without.speed)
        if row.setting == {**rest, **wanted} and without and gains:
            word = f"; changes the result (--allow {best.allowed})" if best.allowed else ""
            against = f" ({without.against})" if without.against else ""
            return f"{_figures(row.trial)}; without it {_figures(without.trial)}{against}{word}"
    return f"{_figures(best.trial)}, measured together with the other changes"


def _figures(trial: Trial) -> str:
    memory = f", {size(trial.peak)}" if trial.peak else ""
    return f"{trial.speed():,.0f} tokens/s{memory}"
