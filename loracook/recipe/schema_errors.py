"""What the schema finds wrong with a recipe, in plain words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from loracook.errors import Path, Problem, quote, spell
from loracook.recipe.did_you_mean import exact_key, example_of, meant_key, meant_value, nearest, wrong_kind
from loracook.recipe.foreign_keys import Spelling, ours
from loracook.recipe.schema import Schema, fits, kinds_of, part_at, resolved, schema
from loracook.recipe.schema_bounds import BOUNDS, Check

GLUED = re.compile(r"\w+:[^\s/]\S*")
HINTED = 20  # more unknown keys than that are no misspellings, and a search takes time
WEIGHT = ("declined-value", "enum", "pattern", "range", "length")  # one problem a value is enough


def complaints(data: Any) -> Iterator[Problem]:
    """Every way in which a recipe's data breaks the schema."""
    return check(data, schema(), ())


def check(value: Any, part: Schema, path: Path) -> Iterator[Problem]:
    """Every way in which the value at `path` breaks its part of the schema."""
    part = resolved(part)
    kinds = kinds_of(part)
    if kinds and not any(fits(value, kind) for kind in kinds):
        yield Problem(path, _wrong_kind(value, part, path), "type")
        return
    problems = _broken(value, part, path)
    if isinstance(value, list) and len(value) > part.get("maxItems", len(value)):
        yield from BOUNDS["maxItems"](value, part["maxItems"], part, path)
    elif isinstance(value, dict | list):
        yield from problems
    else:
        yield from sorted(problems, key=lambda problem: WEIGHT.index(problem.rule))[:1]


def _broken(value: Any, part: Schema, path: Path) -> Iterator[Problem]:
    for keyword, bound in part.items():
        if keyword in CHECKS:
            yield from CHECKS[keyword](value, bound, part, path)


def _properties(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if not isinstance(value, dict):
        return
    for name, entry in value.items():
        if name in bound:
            yield from check(entry, bound[name], (*path, name))


def _additional(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if not isinstance(value, dict):
        return
    others = [name for name in value if name not in part.get("properties", {})]
    for number, name in enumerate(others):
        if isinstance(bound, dict):
            yield from check(value[name], bound, (*path, name))
        else:
            yield _unknown(name, value[name], path, part, search=number < HINTED)


def _unknown(name: str, value: Any, path: Path, part: Schema, *, search: bool) -> Problem:
    spelling, declined = ours(name, value), part.get("x-declined", {}).get(name)
    if spelling:
        message = f"spelt differently here; {_kept(spelling).words(path)}"
        return Problem((*path, name), message, "foreign-key")
    if declined:
        return Problem((*path, name), f"not offered here: {declined}", "declined-key")
    hint = meant_key(name, path, part) if search else exact_key(name, path, part)
    alike = "" if name.isascii() else " with a letter that is none of a to z"
    return Problem((*path, name), f"unknown key{alike}; {hint}", "unknown-key")


def _kept(spelling: Spelling) -> Spelling:
    fitting = not any(check(spelling.value, part_at(spelling.path) or {}, spelling.path))
    return spelling if fitting else Spelling(spelling.path)


def _required(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if not isinstance(value, dict):
        return
    for name in bound:
        if name not in value and not _meant(name, value, part):
            example = example_of(resolved(part["properties"][name]))
            yield Problem(path, f"'{name}' is missing; write '{name}: {example}'", "required")


def _meant(name: str, value: dict[str, Any], part: Schema) -> bool:
    """Whether another key of the mapping stands for the missing one; it gets its own problem."""
    unknown = [key for key in value if key not in part["properties"]]
    spellings = [ours(key, value[key]) for key in unknown]
    return nearest(name, unknown[:HINTED]) is not None or any(
        found and found.path[0] == name for found in spellings
    )


def _items(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if isinstance(value, list):
        for index, entry in enumerate(value):
            yield from check(entry, bound, (*path, index))


def _enum(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if any(type(value) is type(one) and value == one for one in bound):
        return
    declined = part.get("x-declined", {}).get(value)
    if declined:
        yield Problem(path, f"{quote(value)} is not offered here: {declined}", "declined-value")
    else:
        yield Problem(path, f"{quote(value)} is not known here; {meant_value(value, bound)}", "enum")


def _const(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    return _enum(value, [bound], part, path)


def _pattern(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if not isinstance(value, str) or (not value and part.get("minLength")):
        return
    if not _compiled(bound).fullmatch(value):
        yield Problem(path, f"{quote(value)} is not well-formed; {_well_formed(value, part)}", "pattern")


def _well_formed(value: str, part: Schema) -> str:
    shown = part.get("examples", ())[:2]
    examples = " or ".join(quote(one) for one in shown)
    if "array" not in kinds_of(part) or any(check(value, part["items"], ())):
        return f"write something like {examples}" if examples else "check the spelling"
    only = [one for one in shown if isinstance(one, str) and part.get("minLength") == len(one)]
    if any(one.startswith(value) for one in only) or nearest(value, only):
        return f"write {quote(only[0])}"
    return f"write {quote([value])} or {examples}"


def _names(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if isinstance(value, dict):
        for name in value:
            for problem in check(name, bound, (*path, name)):
                yield Problem(problem.path, f"the key {problem.message}", problem.rule)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _wrong_kind(value: Any, part: Schema, path: Path) -> str:
    if "object" not in kinds_of(part) or value is None:
        return wrong_kind(value, part, lambda meant: not any(check(meant, part, path)))
    return f"{quote(value)} is not a mapping; {_section(value, part, path)}"


def _section(value: Any, part: Schema, path: Path) -> str:
    if not path:
        return "write 'version: 1' and its sections"
    if isinstance(value, str) and GLUED.fullmatch(value):
        return f"write {quote(value.replace(':', ': ', 1))}"
    name, main = path[-1], next(iter(part.get("properties", ())), "")
    if main and not isinstance(value, bool) and not any(check(value, part["properties"][main], path)):
        within = f"{name}: {spell({main: value})}" if isinstance(name, str) else f"{main}: {value}"
        return f"write {quote(within)}"
    return f"write its keys below '{name}:'"


CHECKS: dict[str, Check] = {
    **BOUNDS,
    "properties": _properties,
    "additionalProperties": _additional,
    "propertyNames": _names,
    "required": _required,
    "items": _items,
    "enum": _enum,
    "const": _const,
    "pattern": _pattern,
}
