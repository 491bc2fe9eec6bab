"""JSON read back from a folder that may be a stranger's: bounded, and of the shape that was written."""

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

LARGEST = 256 << 20
"""Bytes of the largest file that is read: a log of a million steps has fewer."""
DEEPEST = 32
DIGITS = 20
"""Of the longest whole number; those of 64 bits have 19 digits and a sign."""

NUMBER = int | float
FACTS = {str: {"bytes": int, "sha256": str}}
"""Size and hash of files by their names."""


def read_json(path: Path, shape: Any) -> Any:
    """The JSON in a file, of that shape (see `check_shape`); raises ValueError when it is anything else."""
    return _parsed(_text(path), shape)


def read_json_lines(path: Path, shape: Any) -> list[Any]:
    """The JSON in each line of a file, of that shape; raises ValueError when a line is anything else.

    A last line without its end, which a killed process leaves, is not read.
    """
    return [_parsed(line, shape) for line in _text(path).split("\n")[:-1]]


def _text(path: Path) -> str:
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} is too large")
    return path.read_text("utf-8")


def _parsed(text: str, shape: Any) -> Any:
    try:
        content = json.loads(text, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    _check_depth(content)
    check_shape(content, shape)
    return content


def check_shape(value: Any, shape: Any) -> None:
    """Raise ValueError where JSON is not of a shape.

    A shape is a type, a union of types, `[shape]` for a list, or a dictionary: of the keys that must be there
    among others, or `{str: shape}` where the keys are unknown.
    """
    if isinstance(shape, dict):
        check_shape(value, dict)
        for key, part in shape.items():
            for entry in value.values() if key is str else [value.get(key)]:
                check_shape(entry, part)
    elif isinstance(shape, list):
        check_shape(value, list)
        for entry in value:
            check_shape(entry, shape[0])
    elif not isinstance(value, shape):
        raise ValueError(f"{shape} expected")  # the same for all: what a stranger wrote is not quoted


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError unless all are relative paths that lead down, spelled in the only way."""
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.as_posix() != name or name == "." or "\0" in name:
            raise ValueError("a path that leads elsewhere")


def _integer(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError("a number of too many digits")
    return int(text)


def _check_depth(content: Any) -> None:
    level = [content]
    for _ in range(DEEPEST):
        level = [part for value in level if isinstance(value, dict | list) for part in _parts(value)]
        if not level:
            return
    raise ValueError("nested too deeply")


def _parts(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value
