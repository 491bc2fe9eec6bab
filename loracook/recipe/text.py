"""The text of a recipe file: a regular file of bounded size, in UTF-8, without invisible characters."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from itertools import islice

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
