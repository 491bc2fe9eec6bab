"""What the user may have meant: the nearest key, the nearest value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from loracook.errors import Path, dotted, quote
from loracook.recipe.foreign_values import VALUES
from loracook.recipe.schema import Schema, all_keys

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
