"""The losses of repeated steps beside those of the training, as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from loracook.errors import shorten

if TYPE_CHECKING:
    from loracook.results.repeated import Repeated

SHOWN = 20


def as_lines(repeated: Repeated) -> Iterator[str]:
    """A row for each logged step, then what follows from them."""
    yield f"{'step':>6}  {'loss then':>12}  {'loss now':>12}  difference"
    for step in list(repeated.was)[:SHOWN]:
        then, now, apart = repeated.was[step], repeated.now[step], repeated.difference(step)
        yield f"{step:>6}  {then:>12.6f}  {now:>12.6f}  {f'{apart:.1e}' if apart else 'none'}"
    if more := len(repeated.was) - SHOWN:
        yield from [f"{'':>6}  … {more} more steps"] if more > 0 else []
    yield ""
    if differs := repeated.differs:
        yield shorten(f"not expected to be the same bits: {'; '.join(differs)}", 300)


def verdict(repeated: Repeated) -> str:
    """Whether the losses are the same, in a sentence."""
    largest, steps = repeated.largest_difference, max(repeated.was)
    these = f"the losses of the first {steps} steps are" if steps > 1 else "the loss of the first step is"
    if not largest:
        return f"{these} the same, bit for bit"
    bound = f"at most {repeated.bound:.1%} apart" if repeated.bound else "the same, bit for bit"
    return f"{these} up to {largest:.2%} apart; expected: {bound}"
