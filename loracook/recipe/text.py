"""The text of a recipe file, and what the YAML parser reports about it, in plain words."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

import yaml

from loracook.errors import INVISIBLE, Position, Problem, RecipeError, clean, quote

BYTES = 256 * 1024
SHOWN = 20
JOINERS = "\u200c\u200d"  # parts of emoji and of Persian words; allowed when they are written as escapes


def text_of(file: str) -> str:
    """The decoded content of a file; raises RecipeError when it cannot be read as text."""
    return _decoded(_content(file), file)


def _content(file: str) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise _refused(file, "this is not a file; name a recipe, a text file in YAML")
        with open(file, "rb") as opened:
            content = opened.read(BYTES + 1)
    except (OSError, ValueError) as error:
        raise _refused(file, _reason(error)) from error
    if len(content) > BYTES:
        raise _refused(file, f"the file is larger than {BYTES // 1024} KiB; write a smaller recipe")
    return content


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file; check the spelling and the folder"
    if isinstance(error, PermissionError):
        return "the file may not be read; give yourself the right to read it"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "the symbolic links run in a circle; name the file itself"
    return f"the file cannot be read ({getattr(error, 'strerror', None) or error}); check the name"


def _decoded(content: bytes, file: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode("utf-8")) + 1
        place = Position(file, line, column, column + 1)
        message = f"the byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise RecipeError([Problem((), message, "encoding", position=place)]) from error


def invisible(text: str, file: str) -> Iterator[Problem]:
    """The first invisible characters of a text; the rest can wait until those are gone."""
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return
    lines = text.replace("\r\n", "\n").replace("\t", " ").split("\n")
    places = ((number, found) for number, line in enumerate(lines, 1) for found in INVISIBLE.finditer(line))
    for number, found in islice(places, SHOWN):
        place = Position(file, number, found.start() + 1, found.start() + 2)
        yield Problem((), _hidden(found[0]), "text", position=place)


def _hidden(character: str) -> str:
    escaped = f"write '{clean(character)}' in double quotes, or " if character in JOINERS else ""
    return f"there is an invisible character {quote(character)} here; {escaped}remove it"


def _refused(file: str, message: str) -> RecipeError:
    return RecipeError([Problem((), message, "file", position=Position(file, 1, 1, 2))])


class Mark(Protocol):
    """A place in a text; lines and columns count from 0."""

    line: int
    column: int


# Each row: what libyaml or PyYAML says, what it means, and whether the place is where the thing began.
WORDS = (
    ("unknown escape", "this backslash stands for nothing; write '\\\\' or use single quotes", False),
    (
        "Unicode character escape",
        "this escape is no character; write one of '\\u0000' to '\\U0010ffff'",
        False,
    ),
    (
        "decimal number",
        "this backslash begins an escape that does not go on; write '\\\\' or use single quotes",
        False,
    ),
    ("quoted scalar", "this quote is never closed; write the closing quote", True),
    ("expected ',' or ']'", "this list is not closed where it should be; write ',' or ']'", True),
    ("expected ',' or '}'", "this mapping is not closed where it should be; write ',' or '}'", True),
    (
        "mapping values are not allowed",
        "a ':' is not possible here; put the text in quotes or check the indentation",
        False,
    ),
    (
        "sequence entries are not allowed",
        "a '-' is not possible here; start the list on a line of its own",
        False,
    ),
    (
        "cannot start any token",
        "text cannot start like this; put it in quotes, and indent with spaces, not tabs",
        False,
    ),
    ("could not find expected ':'", "this line has no ':'; write 'key: value'", True),
    ("document start", "this does not belong to what stands above; check the indentation", False),
    ("expected '-' indicator", "this does not belong to the list above; check the indentation", False),
    ("expected key", "a key is expected here; check the indentation, quotes and brackets", False),
    ("expected <block end>", "a key is expected here; check the indentation, quotes and brackets", False),
    ("node content", "a value is expected here; put text that starts like this in quotes", False),
    ("block scalar", "nothing may follow '|' or '>' on their line; write the text on the next line", False),
    ("anchor", "anchors are not read; write the value out", True),
    ("alias", "aliases are not read; write the value out", True),
    ("tag", "tags are not read; write the plain value, in quotes when it is text", True),
    ("directive", "lines that start with '%' are not read; remove this one", False),
    ("incompatible YAML document", "lines that start with '%' are not read; remove this one", False),
)
UNKNOWN = "this is not YAML that can be read; check the indentation, quotes and brackets"


def explain(error: yaml.YAMLError | ValueError | OverflowError) -> tuple[str, Mark | None]:
    """Plain words for a parser's error, and the place that they speak of."""
    context, problem = (str(getattr(error, name, None) or "") for name in ("context", "problem"))
    start, end = (getattr(error, name, None) for name in ("context_mark", "problem_mark"))
    for words, meaning, at_start in WORDS:
        if words in problem or words in context:
            return meaning, start if at_start and start else end
    return UNKNOWN, end
