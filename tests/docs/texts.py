"""The texts that people read outside of the program's own output, and what they name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"), *(ROOT / ".github").glob("**/*.md")],
    key=str,
)
SITE = "https://loracook.github.io/"
REPOSITORY = re.compile(
    r"https://(?:github\.com/loracook/loracook/(?:blob|tree)|raw\.[^/]+/loracook/loracook)/main/"
)


def name(file: Path) -> str:
    """A file as tests name it."""
    return str(file.relative_to(ROOT))


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a language."""
    indented = re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [dedent(block) for block in indented]


def links(text: str) -> list[str]:
    """Where the links and pictures of a page lead."""
    return re.findall(r"\]\(([^)\s]+)\)", text)


def command_lines(text: str) -> Iterator[str]:
    """Every call of loracook that stands as code: in a block, or between backquotes."""
    for block in re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        yield from re.findall(r"^\s*(?:\$ |- run: )?(loracook [a-z].*)$", block, re.MULTILINE)
    yield from re.findall(r"`(loracook [a-z][^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def strings(file: Path) -> Iterator[str]:
    """The strings of a module, those of f-strings in pieces."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
