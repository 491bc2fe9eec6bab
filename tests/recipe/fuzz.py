"""Shipped recipes changed at random: each is valid or refused in short printable lines, and quickly.

`python -m tests.recipe.fuzz [seconds] [seed]` goes on until the time is up or a recipe breaks something, which it leaves behind.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from loracook.errors import LINE_LIMIT
from loracook.recipe.validate import problems_of

ROOT = Path(__file__).parents[2]
SEEDS = sorted([*ROOT.glob("recipes/*.yaml"), *ROOT.glob("tests/recipes/valid/*.yaml")])
SLOW = 0.05
"""Seconds of processor time that no recipe may take."""
PIECES = (
    "\n", " ", "  ", "\t", ":", ": ", "- ", "[", "]", "{", "}", ",", "#", "&a", "*a", "!!str ", "!x ", "|", ">", "'", '"',
    "\\", "%", "@", "`", "?", "<<: ", "---\n", "...\n", "null", "~", "true", "no", "0", "-1", "1e-4", "1e999", ".nan", ".inf",
    "0x1f", "017", "9" * 50, "é", "\u202e", "\u200b", "\ufeff", "\x00", "\x1b[31m", "\x85", "🍞", "../", "/etc/passwd", "~/",
    "${HOME}", "hf_abcdefghijklmnopqrstuv", "::error::", "x" * 300, "lora_r", "extends: a.yaml\n", "r: 8\n", "version: 2\n",
)  # fmt: skip

Change = Callable[[random.Random, str], str]


def _place(draw: random.Random, text: str) -> int:
    return draw.randrange(len(text) + 1)


def _insert(draw: random.Random, text: str) -> str:
    place = _place(draw, text)
    return text[:place] + draw.choice(PIECES) + text[place:]


def _delete(draw: random.Random, text: str) -> str:
    place = _place(draw, text)
    return text[:place] + text[place + draw.randint(1, 12) :]


def _replace(draw: random.Random, text: str) -> str:
    place = _place(draw, text)
    return text[:place] + draw.choice(PIECES) + text[place + draw.randint(1, 12) :]


def _swap_lines(draw: random.Random, text: str) -> str:
    lines = text.split("\n")
    one, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return "\n".join(lines)


def _repeat_line(draw: random.Random, text: str) -> str:
    lines = text.split("\n")
    lines.insert(draw.randrange(len(lines)), draw.choice(lines))
    return "\n".join(lines)


def _indent(draw: random.Random, text: str) -> str:
    lines = text.split("\n")
    number = draw.randrange(len(lines))
    lines[number] = draw.choice(("", " ", "    ", "\t")) + lines[number].lstrip()
    return "\n".join(lines)


def _value(draw: random.Random, text: str) -> str:
    lines = text.split("\n")
    number = draw.randrange(len(lines))
    key, colon, _ = lines[number].partition(":")
    lines[number] = f"{key}{colon} {draw.choice(PIECES)}"
    return "\n".join(lines)


def _double(draw: random.Random, text: str) -> str:
    place = _place(draw, text)
    piece = text[place : place + draw.randint(1, 6)]
    return text[:place] + piece * draw.choice((2, 50, 2000)) + text[place:]


CHANGES: tuple[Change, ...] = (
    _insert,
    _delete,
    _replace,
    _swap_lines,
    _repeat_line,
    _indent,
    _value,
    _value,
    _double,
)


def mutants(seed: int) -> Iterator[bytes]:
    """Recipes changed in one to four places, the same ones for a seed; for ever."""
    draw = random.Random(seed)
    texts = [file.read_text("utf-8") for file in SEEDS]
    while True:
        text = draw.choice(texts)
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            text = draw.choice(CHANGES)(draw, text)
        content = text.encode("utf-8", "surrogatepass")
        yield content if draw.random() < 0.97 else _flip(draw, content)


def _flip(draw: random.Random, content: bytes) -> bytes:
    place = draw.randrange(len(content) or 1)
    return content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]


def fault(content: bytes, file: Path) -> str | None:
    """What is wrong with how loracook takes a recipe; None when it is valid or refused as it should be."""
    file.unlink(missing_ok=True)  # some file systems wait for the disk when a file is written over
    file.write_bytes(content)
    began = time.process_time()
    try:
        problems = problems_of(str(file))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if time.process_time() - began > SLOW and _again(file) > SLOW:
        return f"took {time.process_time() - began:.3f} s"
    odd = [line for line in map(str, problems) if len(line) > LINE_LIMIT or not line.isprintable()]
    return f"an odd line: {odd[0]!r}" if odd else None


def _again(file: Path) -> float:
    """The least of three more times, in which nothing else of the process is counted along."""
    times = []
    for _ in range(3):
        began = time.process_time()
        problems_of(str(file))
        times.append(time.process_time() - began)
    return min(times)


def main(seconds: float, seed: int) -> None:
    """Try mutants until the time is up; the first that breaks something is left in the working folder."""
    ends, count = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mutant.yaml"
        for count, content in enumerate(mutants(seed), 1):
            if found := fault(content, file):
                Path("broken.yaml").write_bytes(content)
                sys.exit(f"mutant {count} of seed {seed}: {found}; left as broken.yaml")
            if time.monotonic() > ends:
                break
    print(f"{count} mutants of seed {seed}: nothing broke")


if __name__ == "__main__":
    given = dict(enumerate(sys.argv[1:]))
    main(float(given.get(0, 600)), int(given.get(1, time.time())))
