"""What to write instead of an unknown key, an unknown value or a value of the wrong type."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from loracook.errors import Path, clean, dotted, quote, spell
from loracook.recipe.foreign_keys import OTHER_VALUES
from loracook.recipe.schema import Schema, all_keys, has_type, places, types_of
from loracook.recipe.yaml_values import resolve, scalar

SHOWN = 8
SHORT = 4  # letters; in so short a name half of them alike is much
EXAMPLE_LIMIT = 40
TYPE_NAMES = {
    "object": "a mapping",
    "array": "a list",
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "a boolean",
    "null": "null",
}
SWITCHES = dict.fromkeys(("yes", "on", "y"), True) | dict.fromkeys(("no", "off", "n"), False)


def closest(word: str, words: Iterable[str], cutoff: float = 0.7) -> str | None:
    """The most similar of the words, None when none is similar enough."""
    from difflib import get_close_matches

    plain = {_plain(known): known for known in words}
    matches = get_close_matches(_plain(word[:64]), plain, n=1, cutoff=cutoff)
    return plain[matches[0]] if matches else None


def similar_key(name: str, path: Path, part: Schema) -> str:
    """What to write instead of an unknown key of the mapping at `path`."""
    keys = part.get("properties", {})
    match = closest(name, keys)
    if match and _plain(match) == _plain(name):
        return f"did you mean '{match}'?"
    elsewhere = _elsewhere(name, path)
    if elsewhere:
        return elsewhere
    return f"did you mean '{match}'?" if match else _less_similar_key(name, keys)


def own_key(name: str, part: Schema) -> str:
    """What to write instead of an unknown key of a mapping that only knows its own keys."""
    match = closest(name, part["properties"])
    return f"did you mean '{match}'?" if match else _one_of(sorted(part["properties"]))


def exact_key(name: str, path: Path, part: Schema) -> str:
    """What to write instead of an unknown key, without the search for a similar one."""
    match = next((known for known in part.get("properties", {}) if _plain(known) == _plain(name)), None)
    if match:
        return f"did you mean '{match}'?"
    return _elsewhere(name, path) or "remove it"


def similar_value(value: Any, allowed: list[Any]) -> str:
    """What to write instead of a value that is not one of those allowed."""
    words = [choice for choice in allowed if isinstance(choice, str)]
    translated = OTHER_VALUES.get(str(value))
    match = translated if translated in words else closest(str(value), words)
    if match:
        return f"did you mean '{match}'?"
    return _one_of(allowed[:SHOWN]) + (", …" if len(allowed) > SHOWN else "")


def wrong_type(value: Any, part: Schema, is_valid: Callable[[Any], bool]) -> str:
    """What is wrong with a value's type and what to write; `is_valid` tells whether another value is."""
    expected = " or ".join(TYPE_NAMES[name] for name in types_of(part))
    if value is None:
        fix = (
            "use '{}' for the defaults" if "object" in types_of(part) and is_valid({}) else f"use {expected}"
        )
        return f"no value; {fix}, or remove the key"
    return f"{quote(value)} is not {expected}; {_fix(value, part, is_valid)}"


def example(part: Schema) -> str:
    """A value that the schema gives as an example, an ellipsis where none fits on a line."""
    value = next(iter(part.get("examples", ())), part.get("const", part.get("default")))
    spelled = (scalar(shown) for shown in (value, _first_entry(value)) if shown is not None)
    return next((text for text in spelled if len(text) <= EXAMPLE_LIMIT), "…")


def _elsewhere(name: str, path: Path) -> str:
    """Where to move a key that only other mappings have; empty for a key of none."""
    sections = [key[:-1] for key in places(name) if key[:-1] != path]
    if () in sections:
        return "move it to the top level"
    return f"move it under {' or '.join(_shown(section, ':') for section in sections)}" if sections else ""


def _less_similar_key(name: str, keys: Iterable[str]) -> str:
    known = {str(path[-1]): path for path, _ in all_keys()}
    match = closest(name, known, cutoff=0.82)
    if match:
        return f"did you mean {_shown(known[match])}?"
    match = closest(name, keys, cutoff=0.5) if len(name) <= SHORT else None
    if match:
        return f"did you mean '{match}'?"
    few = sorted(keys)
    return _one_of(few) if 0 < len(few) <= SHOWN else "remove it"


def _one_of(choices: list[Any]) -> str:
    return ("use one of " if len(choices) > 1 else "use ") + ", ".join(map(quote, choices))


def _shown(path: Path, end: str = "") -> str:
    return f"'{dotted(tuple(name for name in path if name != 0))}{end}'"


def _plain(word: str) -> str:
    return word.lower().replace("-", "_").replace(" ", "_")


def _first_entry(value: Any) -> Any:
    """A list or a mapping cut to its first entry, None for anything else."""
    if isinstance(value, dict):
        return dict(islice(value.items(), 1))
    return value[:1] if isinstance(value, list) else None


def _fix(value: Any, part: Schema, is_valid: Callable[[Any], bool]) -> str:
    for intended, fix in _intended(value):
        if any(has_type(intended, name) for name in types_of(part)) and is_valid(intended):
            return fix
    shown = example(part)
    return f"use {TYPE_NAMES[types_of(part)[0]]}" if shown == "…" else f"use a value such as {quote(shown)}"


def _intended(value: Any) -> Iterator[tuple[Any, str]]:
    """Values that may have been intended, the likeliest first, and how to write each."""
    if isinstance(value, str):
        digits = value.replace("_", "").replace(",", "")
        yield resolve(value), "remove the quotes"
        yield SWITCHES.get(value.lower()), f"use '{spell(SWITCHES.get(value.lower()))}'"
        yield resolve(digits), f"use {quote(digits)}"
    if isinstance(value, dict) and all(entry is None for entry in value.values()):
        braced = "{" + ", ".join(value) + "}"
        yield braced, f"put it in double quotes: {clean(json.dumps(braced, ensure_ascii=False))}"
    if isinstance(value, float) and value.is_integer():
        yield int(value), f"use {quote(int(value))}"
    if value in (0, 1):
        yield bool(value), f"use '{spell(bool(value))}'"
    if isinstance(value, list) and len(value) == 1:
        yield value[0], f"use {quote(value[0])}"
    if not isinstance(value, list | dict):
        yield [value], f"use {quote([value])}"
        yield spell(value), "put it in quotes"
