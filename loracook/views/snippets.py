"""Problems with the recipe's line and a caret under the place."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from loracook.errors import SECRET, Position, Problem, clean

WIDTH = 100


@dataclass(frozen=True)
class Colours:
    """Terminal codes that colour a text; empty for plain text."""

    error: str = ""
    warning: str = ""
    place: str = ""
    end: str = ""


PLAIN = Colours()
COLOURED = Colours(error="\x1b[31m", warning="\x1b[33m", place="\x1b[1m", end="\x1b[0m")


def as_snippets(problems: Sequence[Problem], colours: Colours = PLAIN) -> str:
    """Each problem, followed by the line of the recipe with a caret under the place."""
    return "\n".join(line for problem in problems for line in _snippet(problem, colours))


def _snippet(problem: Problem, colours: Colours) -> list[str]:
    colour = colours.error if problem.severity == "error" else colours.warning
    place, _, rest = str(problem).partition(": ")
    head = f"{colours.place}{place}{colours.end}: {rest}" if problem.position else str(problem)
    if problem.position is None or problem.rule == "file":  # which is not to be read
        return [head]
    line = _line(problem.position)
    if line is None:
        return [head]
    code, caret, marks = _marked(line, problem.position)
    return [head, code, f"{caret}{colour}{marks}{colours.end}"]


def _marked(line: str, position: Position) -> tuple[str, str, str]:
    """The line, the indentation of its caret, and the caret, cut to the part around the place."""
    line = SECRET.sub(lambda match: "…" * len(match[0]), line)
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
