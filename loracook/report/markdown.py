"""Untrusted text in Markdown, escaped so that it is shown literally."""

import re
from collections.abc import Iterable, Sequence

from loracook.errors import clean, clean_lines

MARKUP = re.compile(r"[\\`*_\[\]<>&$~@]|(?<=:)/(?=/)|(?<=www)\.")
"""Characters that form markup, HTML, formulas or links within a line."""
LINE_START = re.compile(r"^(?:[-+=#]|\d+(?=[.)]))")
"""Characters that form a list or a heading at the start of a line."""


def prose(text: str) -> str:
    """A text as one paragraph without markup, HTML or links."""
    line = MARKUP.sub(r"\\\g<0>", clean(" ".join(text.split())))
    return LINE_START.sub(lambda match: f"{match[0]}\\" if match[0].isdigit() else f"\\{match[0]}", line)


def code(text: str) -> str:
    """A text as a code span."""
    text = clean(text)
    ticks = "`" * (_longest_run(text) + 1)
    room = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{room}{text}{room}{ticks}"


def block(text: str, language: str) -> str:
    """Lines as a fenced code block."""
    lines = clean_lines(text.rstrip())
    fence = "`" * max(3, _longest_run(lines) + 1)
    return f"{fence}{language}\n{lines}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Iterable[str]], *, align: str = "---") -> str:
    """A table of cells that are Markdown already; `align` is the alignment of all columns but the first."""
    rule = ["---", *[align] * (len(head) - 1)]
    lines = [head, rule, *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
