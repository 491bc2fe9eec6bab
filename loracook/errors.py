"""What can be wrong with a recipe or a run, and how it is said."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Path = tuple[str | int, ...]
Severity = Literal["error", "warning"]

LINE_LIMIT = 200
EXTENDED = " (extended by "
FILE_LIMIT = 60
SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"hf_[A-Za-z0-9]{12,}|api_org_[A-Za-z0-9]{12,}"  # Hugging Face
    r"|sk-(?:proj-|ant-)?(?:[A-Za-z0-9]{16,}|(?=[\w-]{0,60}[0-9A-Z])[\w-]{12,})"  # OpenAI, Anthropic
    r"|gh[pousr]_[A-Za-z0-9]{12,}|github_pat_\w{12,}|glpat-[\w-]{12,}"  # GitHub, GitLab
    r"|(?:AKIA|ASIA)[A-Z0-9]{12,}|AIza[\w-]{12,}"  # AWS, Google
    r"|xox[abprs]-[\w-]{10,}|pypi-AgE[\w-]{8,})",  # Slack, PyPI
    re.ASCII,
)
INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U000e0000-\U000e0fff]"
)


@dataclass(frozen=True)
class Position:
    """A place in a file; lines and columns count from 1, `end_column` is the first one after it."""

    file: str
    line: int
    column: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where it stands, and what to write instead."""

    path: Path
    message: str
    rule: str = ""
    severity: Severity = "error"
    position: Position | None = None

    def __str__(self) -> str:
        """One printable line `file:line:col: path: message` of at most 200 characters."""
        line = clean(": ".join(part for part in (self._place(), dotted(self.path), self._text()) if part))
        if len(line) <= LINE_LIMIT or self.position is None:
            return _fitted(line)
        file = self.position.file
        if len(file) <= FILE_LIMIT:
            return _fitted(line)
        position = replace(self.position, file="…" + file[-FILE_LIMIT + 1 :])
        return str(replace(self, position=position))

    def _place(self) -> str:
        return "" if self.position is None else str(self.position)

    def _text(self) -> str:
        return self.message if self.severity == "error" else f"warning: {self.message}"


class LoracookError(Exception):
    """What the user can mend; it is shown without a traceback and ends with `exit_code`."""

    exit_code = 2


class RecipeError(LoracookError):
    """A recipe is wrong; carries every problem that was found, warnings among them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class UnreachableError(RecipeError):
    """What a recipe names lies on a hub that cannot be asked from here, or not now."""

    exit_code = 3


class MachineError(LoracookError):
    """This machine cannot do it: disk, memory, GPU or a missing package."""

    exit_code = 3


class DivergedError(LoracookError):
    """Training ran away: a loss or a gradient that is no finite number."""

    exit_code = 4


class PushError(LoracookError):
    """The result is complete here and could not be uploaded."""

    exit_code = 5


class LockedError(LoracookError):
    """Another run is working on the same folder."""

    exit_code = 6


class StoppedError(LoracookError):
    """Stopped by a signal; the same command goes on from there."""

    exit_code = 75


def clean(text: str) -> str:
    """Text that is safe to print: invisible characters escaped, anything that looks like a secret hidden."""
    return SECRET.sub(lambda found: found[0][:3] + "…", INVISIBLE.sub(_escape, text))


def clean_lines(text: str) -> str:
    """Text of several lines that is safe to print, see `clean`; its line breaks stay."""
    return "\n".join(map(clean, text.split("\n")))


def dotted(path: Path) -> str:
    """A path as it is written on the command line: `dataset.sources.0.path`."""
    return ".".join(_part(part) for part in path)


def quote(value: object) -> str:
    """A value from a recipe as YAML spells it, in quotes and shortened."""
    return f"'{shorten(clean(spell(value)), 60)}'"


def spell(value: object) -> str:
    """A value as YAML spells it, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, list):
        return "[" + ", ".join(map(spell, value[:20])) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {spell(entry)}" for key, entry in list(value.items())[:20]) + "}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{'-' if value < 0 else ''}.{str(value).lstrip('-')}"
    return str(value)


def shorten(text: str, limit: int) -> str:
    """Text cut to `limit` characters, an ellipsis last."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _fitted(line: str) -> str:
    """A line cut to the limit before the recipe that extends this one, which is named last."""
    cut = line.rfind(EXTENDED)
    end = line[cut:] if cut >= 0 and len(line) - cut <= LINE_LIMIT // 2 else ""
    return shorten(line.removesuffix(end), LINE_LIMIT - len(end)) + end


def _part(part: str | int) -> str:
    text = shorten(clean(str(part)), 40)
    return text if re.fullmatch(r"[\w/+-]+", text) else f'"{text}"'


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    named = {9: "\\t", 10: "\\n", 13: "\\r"}
    return named.get(code) or (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )
