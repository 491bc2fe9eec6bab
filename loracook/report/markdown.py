"""Text of others inside Markdown, so that it reads as it is and does nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from loracook.errors import clean

MARKS = re.compile(r"[\\`*_\[\]<>&$~@]|(?<=:)/(?=/)|(?<=www)\.")
"""What makes markup, HTML, formulas or links inside of a line."""
AT_START = re.compile(r"^(?:[-+=#]|\d+(?=[.)]))")
"""What makes a list or a heading at the start of one."""


def prose(text: str) -> str:
    """A text as one paragraph without markup, HTML or links."""
    line = MARKS.sub(r"\\\g<0>", clean(" ".join(text.split())))
    return AT_START.sub(lambda found: f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}", line)


def code(text: str) -> str:
    """A text as a code span."""
    text = clean(text)
    ticks = "`" * (_longest_run(text) + 1)
    room = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{room}{text}{room}{ticks}"


def block(text: str, language: str) -> str:
    """Lines as a fenced code block."""
    lines = "\n".join(map(clean, text.rstrip().split("\n")))
    fence = "`" * max(3, _longest_run(lines) + 1)
    return f"{fence}{language}\n{lines}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, align: str = "---") -> str:
    """A table; every cell is Markdown already, and `align` is the rule below the columns after the first."""
    rule = ["---", *[align] * (len(head) - 1)]
    lines = [head, rule, *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
