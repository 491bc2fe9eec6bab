"""The values of plain YAML scalars by the core schema of YAML 1.2 (section 10.3.2)."""

from __future__ import annotations

import re

NULL = {"", "~", "null", "Null", "NULL"}
BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
INTEGER = re.compile(r"[-+]?[0-9]+")
BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
DIGITS = 40

Scalar = None | bool | int | float | str


def resolve(text: str) -> Scalar:
    """The value that an unquoted scalar stands for; numbers of more than 40 characters become floats."""
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
