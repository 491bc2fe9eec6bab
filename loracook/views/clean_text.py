"""What could go, or has gone, as aligned lines with their sum."""

from collections.abc import Sequence

from loracook.results.clean import Spare
from loracook.units import size


def as_lines(spare: Sequence[Spare], ending: str) -> list[str]:
    """Each path with its size and why it could go, then the sum and an ending."""
    if not spare:
        return ["nothing to remove"]
    rows = [(str(each.path), size(each.bytes), each.why) for each in spare]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{path:<{first}}  {bytes:>{second}}  {why}" for path, bytes, why in rows]
    return [*lines, f"{size(sum(each.bytes for each in spare))} in all; {ending}"]
