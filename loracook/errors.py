"""Problems of a recipe, the exceptions of a run, and text that is safe to print."""

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
    """A range in a line of a file; lines and columns count from 1, `end_column` is exclusive."""

    file: str
    line: int
    column: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe: where, what, and what to write instead."""

    path: Path
    message: str
    rule: str = ""
    severity: Severity = "error"
    position: Position | None = None

    def __str__(self) -> str:
        """One printable line `file:line:col: path: message` of at most 200 characters."""
        message = self.message if self.severity == "error" else f"warning: {self.message}"
        line = clean(": ".join(filter(None, (str(self.position or ""), dotted(self.path), message))))
        if len(line) > LINE_LIMIT and self.position and len(self.position.file) > FILE_LIMIT:
            file = "…" + self.position.file[-FILE_LIMIT + 1 :]
            return str(replace(self, position=replace(self.position, file=file)))
        cut = line.rfind(EXTENDED)  # at the end, and kept
        end = line[cut:] if cut >= 0 and len(line) - cut <= LINE_LIMIT // 2 else ""
        return shorten(line.removesuffix(end), LINE_LIMIT - len(end)) + end


class LoracookError(Exception):
    """An error that the user can fix: shown without a traceback, the process exits with `exit_code`."""

    exit_code = 2


class RecipeError(LoracookError):
    """The recipe is wrong; `problems` has every problem, warnings included."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class UnreachableError(RecipeError):
    """The recipe names a model or data set on the hub, which cannot be reached now."""

    exit_code = 3


class MachineError(LoracookError):
    """This machine cannot run it: disk, memory, GPU or a missing package."""

    exit_code = 3


TRAIN_AGAIN = "lower lora.lora_alpha or train.learning_rate and train again"
"""What to do about an adapter that has become too large for the numbers it is computed in."""


class DivergedError(LoracookError):
    """Training diverged: a loss, gradient or weight is NaN or infinite."""

    exit_code = 4


class PushError(LoracookError):
    """The upload failed; the local result is complete."""

    exit_code = 5


class LockedError(LoracookError):
    """Another run is using the same run folder."""

    exit_code = 6


class GateError(RecipeError):
    """An evaluation does not reach what the recipe requires; nothing after it is run."""

    exit_code = 7


class StoppedError(LoracookError):
    """The run was stopped by a signal; the same command resumes it."""

    exit_code = 75


def reworded(error: LoracookError, cause: BaseException) -> LoracookError:
    """Our error with what the library said as a note, which is shown with it, unless it quotes that."""
    said = " ".join(str(cause).split())
    if said not in str(error):
        error.add_note(shorten(clean(f"caused by {type(cause).__name__}: {said}"), LINE_LIMIT))
    return error


def clean(text: str) -> str:
    """Text that is safe to print: invisible characters escaped, anything that looks like a secret hidden."""
    visible = INVISIBLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
    return SECRET.sub(lambda match: match[0][:3] + "…", visible)


def clean_lines(text: str) -> str:
    """Text of several lines that is safe to print, see `clean`; its line breaks stay."""
    return "\n".join(map(clean, text.split("\n")))


def dotted(path: Path) -> str:
    """A path in the notation of --set: `dataset.sources.0.path`."""
    parts = (shorten(clean(str(part)), 40) for part in path)
    return ".".join(part if re.fullmatch(r"[\w/+-]+", part) else f'"{part}"' for part in parts)


def quote(value: object) -> str:
    """A recipe's value in YAML notation, quoted and shortened."""
    return f"'{shorten(clean(spell(value)), 60)}'"


def spell(value: object) -> str:
    """A value in YAML notation, on one line."""
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
    """Text cut to `limit` characters, ending in an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
