"""The weights that no adapter trains, in words."""

from collections.abc import Iterator, Sequence

from loracook.model.parameters import WeightGroup

LARGE = 0.05
"""The share of the weights from which a group is named."""


def unadapted_lines(groups: Sequence[WeightGroup], parameters: int) -> Iterator[str]:
    """The share of a base model's `parameters` that is not adapted, and what adapts experts."""
    large = [group for group in groups if group.number >= LARGE * parameters]
    if not large:
        return
    total = sum(group.number for group in groups) / parameters
    named = ", ".join(f"{group.pattern} ({group.number / parameters:.0%})" for group in large)
    yield f"not adapted: {total:.0%} of the base model's parameters, in {named}"
    if experts := [group.pattern.rpartition("*.")[2] for group in large if group.bare]:
        yield f"experts are no modules; to adapt them, add target_parameters: [{', '.join(experts)}]"
