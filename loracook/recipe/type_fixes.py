"""What to write instead of a value of the wrong type."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from loracook.errors import clean, quote, spell
from loracook.recipe.scalars import resolve
from loracook.recipe.schema import Schema, fits, kinds_of
from loracook.recipe.yaml_writer import scalar

KINDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
SWITCHES = dict.fromkeys(("yes", "on", "y"), True) | dict.fromkeys(("no", "off", "n"), False)
EXAMPLE_LIMIT = 40


def wrong_kind(value: Any, part: Schema, valid: Callable[[Any], bool]) -> str:
    """What was found, and what to write; `valid` says whether another value would do."""
    wanted = " or ".join(KINDS[kind] for kind in kinds_of(part))
    if value is None:
        written = "'{}' for its defaults" if "object" in kinds_of(part) and valid({}) else wanted
        return f"nothing is written here; write {written}, or remove the key"
    return f"{quote(value)} is not {wanted}; {_instead(value, part, valid)}"


def example_of(part: Schema) -> str:
    """A value that the schema gives as an example, an ellipsis where there is none to show on a line."""
    example = next(iter(part.get("examples", ())), part.get("const", part.get("default")))
    spelled = (scalar(shown) for shown in (example, _first(example)) if shown is not None)
    return next((text for text in spelled if len(text) <= EXAMPLE_LIMIT), "…")


def _first(example: Any) -> Any:
    """A list or a mapping with the first of its entries alone, None for anything else."""
    if isinstance(example, dict):
        return dict(islice(example.items(), 1))
    return example[:1] if isinstance(example, list) else None


def _instead(value: Any, part: Schema, valid: Callable[[Any], bool]) -> str:
    for meant, words in _meanings(value):
        if any(fits(meant, kind) for kind in kinds_of(part)) and valid(meant):
            return words
    example = example_of(part)
    return f"write {KINDS[kinds_of(part)[0]]}" if example == "…" else f"write something like {quote(example)}"


def _meanings(value: Any) -> Iterator[tuple[Any, str]]:
    """Values that may have been meant, the likeliest first, and how to write each."""
    if isinstance(value, str):
        digits = value.replace("_", "").replace(",", "")
        yield resolve(value), "remove the quotes"
        yield SWITCHES.get(value.lower()), f"write '{spell(SWITCHES.get(value.lower()))}'"
        yield resolve(digits), f"write {quote(digits)}"
    if isinstance(value, dict) and all(entry is None for entry in value.values()):
        braced = "{" + ", ".join(value) + "}"
        yield braced, f"put it in double quotes: {clean(json.dumps(braced, ensure_ascii=False))}"
    if isinstance(value, float) and value.is_integer():
        yield int(value), f"write {quote(int(value))}"
    if value in (0, 1):
        yield bool(value), f"write '{spell(bool(value))}'"
    if isinstance(value, list) and len(value) == 1:
        yield value[0], f"write {quote(value[0])}"
    if not isinstance(value, list | dict):
        yield [value], f"write {quote([value])}"
        yield spell(value), "put it in quotes"
