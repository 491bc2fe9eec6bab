"""Problems with the line that they speak of and a caret below the place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from loracook.errors import SECRET, Position, Problem, clean

WIDTH = 100


@dataclass(frozen=True)
class Ink:
    """What comes before a text to colour it, and after it to end that."""

    error: str = ""
    warning: str = ""
    place: str = ""
    end: str = ""


PLAIN = Ink()
COLOURED = Ink(error="\x1b[31m", warning="\x1b[33m", place="\x1b[1m", end="\x1b[0m")


def as_snippets(problems: Sequence[Problem], ink: Ink = PLAIN) -> str:
    """Each problem's line, then the recipe's own line with a caret below the place."""
    return "\n".join(line for problem in problems for line in _snippet(problem, ink))


def _snippet(problem: Problem, ink: Ink) -> list[str]:
    colour = ink.error if problem.severity == "error" else ink.warning
    place, _, rest = str(problem).partition(": ")
    head = f"{ink.place}{place}{ink.end}: {rest}" if problem.position else str(problem)
    line = _line(problem.position) if problem.position else None
    if problem.position is None or line is None:
        return [head]
    code, caret, marks = _marked(line, problem.position)
    return [head, code, f"{caret}{colour}{marks}{ink.end}"]


def _marked(line: str, position: Position) -> tuple[str, str, str]:
    """The line, what stands before its caret, and the caret; all cut to the part around the place."""
    line = SECRET.sub(lambda found: "…" * len(found[0]), line)
    start = position.column - 1
    cut = max(0, start - WIDTH // 2) if len(line) > WIDTH else 0
    shown = clean(line[cut : cut + WIDTH])
    before = len(clean(line[cut:start]))
    length = max(1, min(len(clean(line[start : position.end_column - 1])), len(shown) - before))
    number = f"{position.line:>6} | "
    return f"{number}{shown}", f"{'| ':>{len(number)}}{' ' * before}", "^" * length


def _line(position: Position) -> str | None:
    lines = _lines(position.file)
    return lines[position.line - 1] if position.line <= len(lines) else None


@cache
def _lines(file: str) -> list[str]:
    try:
        with open(file, encoding="utf-8-sig", errors="replace", newline=None) as opened:
            return opened.read(1 << 20).replace("\t", " ").split("\n")
    except OSError:
        return []
