"""The text of a recipe file, and the YAML parser's errors in plain words."""

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
ALIAS = "YAML aliases are not supported; write the value out"
ANCHOR = "YAML anchors are not supported; write the value out where it is used"
TAG = "YAML tags are not supported; remove it, and quote the value if it is a string"
DIRECTIVE = "YAML directives (lines starting with '%') are not supported; remove this line"
EXPECTED_KEY = "expected a key; check the indentation, quotes and brackets"
PARSER_ERRORS = (
    ("unknown escape", "invalid escape sequence; write '\\\\' or use single quotes", False),
    ("Unicode character escape", "invalid Unicode escape; use '\\u0000' to '\\U0010ffff'", False),
    ("decimal number", "incomplete escape sequence; write '\\\\' or use single quotes", False),
    ("quoted scalar", "unclosed quote; add the closing quote", True),
    ("expected ',' or ']'", "unclosed list; add ',' or ']'", True),
    ("expected ',' or '}'", "unclosed mapping; add ',' or '}'", True),
    ("mapping values are not allowed", "unexpected ':'; quote the string or check the indentation", False),
    ("sequence entries are not allowed", "unexpected '-'; start the list on its own line", False),
    (
        "cannot start any token",
        "a value cannot start with this character; quote it, and indent with spaces, not tabs",
        False,
    ),
    ("could not find expected ':'", "missing ':'; write 'key: value'", True),
    ("document start", "does not belong to the lines above; check the indentation", False),
    ("expected '-' indicator", "not an entry of the list above; check the indentation", False),
    ("expected key", EXPECTED_KEY, False),
    ("expected <block end>", EXPECTED_KEY, False),
    ("node content", "expected a value; quote a string that starts with a special character", False),
    ("block scalar", "unexpected text after '|' or '>'; start the text on the next line", False),
    ("anchor", ANCHOR, True),
    ("alias", ALIAS, True),
    ("tag", TAG, True),
    ("directive", DIRECTIVE, False),
    ("incompatible YAML document", DIRECTIVE, False),
)
"""What libyaml or PyYAML reports, our message, and whether it is shown where the construct begins."""
INVALID_YAML = "invalid YAML; check the indentation, quotes and brackets"


class Mark(Protocol):
    """A place in a text; lines and columns count from 0."""

    line: int
    column: int


def text_of(file: str) -> str:
    """The decoded content of a recipe file; raises RecipeError when it is not a readable UTF-8 file."""
    return _decoded(_content(file), file)


def invisible_characters(text: str, file: str) -> Iterator[Problem]:
    """A problem for each of the first invisible characters of a text."""
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return
    lines = text.replace("\r\n", "\n").replace("\t", " ").split("\n")
    matches = ((number, match) for number, line in enumerate(lines, 1) for match in INVISIBLE.finditer(line))
    for number, match in islice(matches, SHOWN):
        position = Position(file, number, match.start() + 1, match.start() + 2)
        yield Problem((), _invisible(match[0]), "text", position=position)


def plain_words(error: yaml.YAMLError | ValueError | OverflowError) -> tuple[str, Mark | None]:
    """Our message for an error of the YAML parser, and the place to show it at."""
    context, problem = (str(getattr(error, name, None) or "") for name in ("context", "problem"))
    start, end = (getattr(error, name, None) for name in ("context_mark", "problem_mark"))
    for reported, message, at_start in PARSER_ERRORS:
        if reported in problem or reported in context:
            return message, start if at_start and start else end
    return INVALID_YAML, end


def _content(file: str) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise _file_error(file, "not a regular file; use the path of a YAML recipe")
        with open(file, "rb") as opened:
            content = opened.read(BYTES + 1)
    except (OSError, ValueError) as error:
        raise _file_error(file, _reason(error)) from error
    if len(content) > BYTES:
        raise _file_error(file, f"the file is larger than {BYTES // 1024} KiB; shorten the recipe")
    return content


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file; check the path"
    if isinstance(error, PermissionError):
        return "permission denied; make the file readable"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "too many levels of symbolic links; use the path of the file itself"
    return f"the file cannot be read ({getattr(error, 'strerror', None) or error}); check the path"


def _decoded(content: bytes, file: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode("utf-8")) + 1
        position = Position(file, line, column, column + 1)
        message = f"byte 0x{content[error.start]:02x} is not valid UTF-8; save the file as UTF-8"
        raise RecipeError([Problem((), message, "encoding", position=position)]) from error


def _invisible(character: str) -> str:
    escape = f", or write it as '{clean(character)}' in double quotes" if character in JOINERS else ""
    return f"invisible character {quote(character)}; remove it{escape}"


def _file_error(file: str, message: str) -> RecipeError:
    return RecipeError([Problem((), message, "file", position=Position(file, 1, 1, 2))])
