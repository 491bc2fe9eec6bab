"""What to write instead of an unknown key, an unknown value or a value of the wrong type."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from loracook.errors import Path, clean, dotted, quote, spell
from loracook.recipe.foreign_keys import VALUES
from loracook.recipe.schema import Schema, all_keys, fits, kinds_of
from loracook.recipe.yaml_values import resolve, scalar

SHOWN = 8
SHORT = 4  # so few letters that half of them alike is much


def nearest(word: str, words: Iterable[str], alike: float = 0.7) -> str | None:
    """The word most like this one, None when none is much like it."""
    from difflib import get_close_matches

    plain = {_plain(known): known for known in words}
    found = get_close_matches(_plain(word[:64]), plain, n=1, cutoff=alike)
    return plain[found[0]] if found else None


def meant_key(name: str, path: Path, part: Schema) -> str:
    """What to write instead of an unknown key of the mapping at `path`."""
    here = part.get("properties", {})
    found = nearest(name, here)
    if found and _plain(found) == _plain(name):
        return f"did you mean '{found}'?"
    elsewhere = _elsewhere(name, path)
    if elsewhere:
        return f"did you mean {_placed(elsewhere)}?"
    if found:
        return f"did you mean '{found}'?"
    return _far_key(name, here)


def exact_key(name: str, path: Path, part: Schema) -> str:
    """What to write instead of an unknown key, found without searching for one that is alike."""
    here = next((known for known in part.get("properties", {}) if _plain(known) == _plain(name)), None)
    if here:
        return f"did you mean '{here}'?"
    elsewhere = _elsewhere(name, path)
    return f"did you mean {_placed(elsewhere)}?" if elsewhere else "remove it"


def meant_value(value: Any, allowed: list[Any]) -> str:
    """What to write instead of a value that is none of those allowed."""
    words = [one for one in allowed if isinstance(one, str)]
    found = VALUES.get(str(value)) if VALUES.get(str(value)) in words else nearest(str(value), words)
    if found:
        return f"did you mean '{found}'?"
    shown = ", ".join(quote(one) for one in allowed[:SHOWN]) + (", …" if len(allowed) > SHOWN else "")
    return f"write one of {shown}" if len(allowed) > 1 else f"write {shown}"


def _elsewhere(name: str, path: Path) -> Path | None:
    return next((key for key, _ in all_keys() if key[-1] == name and key[:-1] != path), None)


def _far_key(name: str, here: Iterable[str]) -> str:
    keys = {str(path[-1]): path for path, _ in all_keys()}
    found = nearest(name, keys, alike=0.82)
    if found:
        return f"did you mean {_placed(keys[found])}?"
    found = nearest(name, here, alike=0.5) if len(name) <= SHORT else None
    if found:
        return f"did you mean '{found}'?"
    few = sorted(here)
    return "write one of " + ", ".join(f"'{key}'" for key in few) if 0 < len(few) <= SHOWN else "remove it"


def _placed(path: Path) -> str:
    named = tuple(part for part in path if part != 0)
    return f"'{dotted(named)}'"


def _plain(word: str) -> str:
    return word.lower().replace("-", "_").replace(" ", "_")


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
