"""Plain values as YAML text and back, by the core schema of YAML 1.2 (section 10.3.2)."""

import json
import re
from collections.abc import Iterator
from typing import Any

from loracook.errors import INVISIBLE, Path, spell

NULL = {"", "~", "null", "Null", "NULL"}
BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
INTEGER = re.compile(r"[-+]?[0-9]+")
BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
DIGITS = 40

Scalar = None | bool | int | float | str


def resolve(text: str) -> Scalar:
    """The value of an unquoted scalar; integers of more than 40 characters become floats."""
    if text in NULL:
        return None
    if text in BOOLEAN:
        return BOOLEAN[text]
    if text[0] not in "+-.0123456789":
        return text
    if INTEGER.fullmatch(text):
        return int(text) if len(text) <= DIGITS else float(text)
    if FLOAT.fullmatch(text):
        return float(text)
    return _unusual(text)


def _unusual(text: str) -> Scalar:
    if BASED.fullmatch(text) and len(text) <= DIGITS:
        return int(text, 0)
    if NOT_FINITE.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


PLAIN = re.compile(r"[A-Za-z0-9_./][\w ./@+=()'-]*(?<! )", re.ASCII)
NOT_EVERYWHERE = re.compile(r"(?i)y|yes|n|no|on|off|[\d:]+")  # YAML 1.1 reads these as other types
WIDTH = 80

Row = tuple[str, Path | None]


def rows(data: dict[str, Any], path: Path = (), indent: str = "") -> Iterator[Row]:
    """The lines of a mapping, each with the path of its value; the key line of an inner mapping has none."""
    for name, value in data.items():
        head = f"{indent}{scalar(name)}:"
        yield from _entry(head, value, (*path, name), indent=indent + "  ")


def scalar(value: Any) -> str:
    """A value on one line, its strings in double quotes where they would not read back the same."""
    if not isinstance(value, str):
        return flow(value)
    if PLAIN.fullmatch(value) and isinstance(resolve(value), str) and not NOT_EVERYWHERE.fullmatch(value):
        return value
    return INVISIBLE.sub(lambda match: f"\\U{ord(match[0]):08x}", json.dumps(value, ensure_ascii=False))


def flow(value: Any) -> str:
    """A value on one line in flow style."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(name)}: {scalar(entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(scalar, value)) + "]"
    return spell(value)


def _entry(head: str, value: Any, path: Path, *, indent: str) -> Iterator[Row]:
    if isinstance(value, dict) and value:
        yield head, None
        yield from rows(value, path, indent)
    elif isinstance(value, list) and _is_long(value):
        yield head, None
        for index, entry in enumerate(value):
            yield from _item(entry, (*path, index), indent)
    else:
        yield f"{head} {scalar(value)}", path


def _item(value: Any, path: Path, indent: str) -> Iterator[Row]:
    if not isinstance(value, dict) or not value:
        yield f"{indent}- {scalar(value)}", path
        return
    for number, (text, place) in enumerate(rows(value, path, indent + "  ")):
        yield (text if number else f"{indent}- {text.lstrip()}"), place


def _is_long(value: list[Any]) -> bool:
    return any(isinstance(entry, dict) for entry in value) or len(flow(value)) > WIDTH
