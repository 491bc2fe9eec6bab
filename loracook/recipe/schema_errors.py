"""The problems that the schema finds in a recipe, in plain words."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from loracook.errors import Path, Problem, quote, spell
from loracook.recipe.did_you_mean import (
    closest,
    exact_key,
    example,
    own_key,
    similar_key,
    similar_value,
    wrong_type,
)
from loracook.recipe.foreign_keys import Translation, translate
from loracook.recipe.schema import Schema, has_type, part_at, resolved, schema, types_of
from loracook.recipe.schema_bounds import BOUNDS, Check

GLUED = re.compile(r"\w+:[^\s/]\S*")  # a key and its value without the space between them
SEARCHED = 20  # unknown keys to search a similar one for: more are not misspelt, and each search takes time
PRIORITY = ("declined-value", "enum", "pattern", "range", "length")  # only the first is shown for a value


def schema_problems(data: Any) -> Iterator[Problem]:
    """Every way in which a recipe's data breaks the schema."""
    return check(data, schema(), ())


def check(value: Any, part: Schema, path: Path) -> Iterator[Problem]:
    """Every way in which the value at `path` breaks its part of the schema."""
    part = resolved(part)
    types = types_of(part)
    if types and not any(has_type(value, name) for name in types):
        yield Problem(path, _wrong_type(value, part, path), "type")
        return
    problems = _broken(value, part, path)
    if isinstance(value, list) and len(value) > part.get("maxItems", len(value)):
        yield from BOUNDS["maxItems"](value, part, path)
    elif isinstance(value, dict | list):
        yield from problems
    else:
        yield from sorted(problems, key=lambda problem: PRIORITY.index(problem.rule))[:1]


def _broken(value: Any, part: Schema, path: Path) -> Iterator[Problem]:
    for keyword in part:
        if keyword in CHECKS:
            yield from CHECKS[keyword](value, part, path)


def _properties(value: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if not isinstance(value, dict):
        return
    properties = part["properties"]
    for name, entry in value.items():
        if name in properties:
            yield from check(entry, properties[name], (*path, name))


def _additional(value: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if not isinstance(value, dict):
        return
    additional = part["additionalProperties"]
    others = [name for name in value if name not in part.get("properties", {})]
    for number, name in enumerate(others):
        if isinstance(additional, dict):
            yield from check(value[name], additional, (*path, name))
        else:
            yield _unknown_key(value[name], part, (*path, name), search=number < SEARCHED)


def _unknown_key(value: Any, part: Schema, path: Path, *, search: bool) -> Problem:
    name = str(path[-1])
    if part.get("x-own-keys"):  # of a file that is no recipe
        return Problem(path, f"unknown key; {own_key(name, part)}", "unknown-key")
    declined, translation = part.get("x-declined", {}).get(name), translate(name, value)
    if translation:
        advice = _valid_or_key_alone(translation).advice(path[:-1])
        return Problem(path, f"not a loracook key; {advice}", "foreign-key")
    if declined:
        return Problem(path, f"not supported: {declined}", "declined-key")
    suggestion = (similar_key if search else exact_key)(name, path[:-1], part)
    letters = "" if name.isascii() else " with a non-ASCII character"
    return Problem(path, f"unknown key{letters}; {suggestion}", "unknown-key")


def _valid_or_key_alone(translation: Translation) -> Translation:
    problems = check(translation.value, part_at(translation.path) or {}, translation.path)
    return Translation(translation.path) if any(problems) else translation


def _required(value: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if not isinstance(value, dict):
        return
    for name in part["required"]:
        if name not in value and not _has_other_name(name, value, part):
            shown = example(resolved(part["properties"][name]))
            yield Problem(path, f"'{name}' is missing; add '{name}: {shown}'", "required")


def _has_other_name(name: str, value: dict[str, Any], part: Schema) -> bool:
    """Whether an unknown key of the mapping is meant as the missing one; it gets its own problem."""
    unknown = [key for key in value if key not in part["properties"]]
    translations = [translate(key, value[key]) for key in unknown]
    return closest(name, unknown[:SEARCHED]) is not None or any(
        translation and translation.path[0] == name for translation in translations
    )


def _items(value: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if isinstance(value, list):
        for index, entry in enumerate(value):
            yield from check(entry, part["items"], (*path, index))


def _enum(value: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if any(type(value) is type(choice) and value == choice for choice in part["enum"]):
        return
    declined = part.get("x-declined", {}).get(value)
    if declined:
        yield Problem(path, f"{quote(value)} is not supported: {declined}", "declined-value")
    else:
        advice = similar_value(value, part["enum"])
        yield Problem(path, f"unknown value {quote(value)}; {advice}", "enum")


def _const(value: Any, part: Schema, path: Path) -> Iterator[Problem]:
    return _enum(value, part | {"enum": [part["const"]]}, path)


def _pattern(value: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if not isinstance(value, str) or (not value and part.get("minLength")):
        return
    if not _compiled(part["pattern"]).fullmatch(value):
        yield Problem(path, f"{quote(value)} is not valid here; {_well_formed(value, part)}", "pattern")


def _well_formed(value: str, part: Schema) -> str:
    examples = part.get("examples", ())[:2]
    quoted = " or ".join(map(quote, examples))
    if "array" not in types_of(part) or any(check(value, part["items"], ())):
        return f"use a value such as {quoted}" if quoted else "check the spelling"
    words = [word for word in examples if isinstance(word, str) and part.get("minLength") == len(word)]
    if any(word.startswith(value) for word in words) or closest(value, words):
        return f"use {quote(words[0])}"
    return f"use {quote([value])} or {quoted}"


def _names(value: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if isinstance(value, dict):
        for name in value:
            for problem in check(name, part["propertyNames"], (*path, name)):
                yield Problem(problem.path, f"the key {problem.message}", problem.rule)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _wrong_type(value: Any, part: Schema, path: Path) -> str:
    if "object" not in types_of(part) or value is None:
        return wrong_type(value, part, lambda other: not any(check(other, part, path)))
    shown = f"{quote(value)} is not" if path else "not"  # a whole file that is no recipe is not quoted
    return f"{shown} a mapping; {_as_mapping(value, part, path)}"


def _as_mapping(value: Any, part: Schema, path: Path) -> str:
    if not path:
        return "start the recipe with 'version: 1'"
    if isinstance(value, str) and GLUED.fullmatch(value):
        return f"use {quote(value.replace(':', ': ', 1))}"
    name, main = path[-1], next(iter(part.get("properties", ())), "")
    if main and not isinstance(value, bool) and not any(check(value, part["properties"][main], path)):
        within = f"{name}: {spell({main: value})}" if isinstance(name, str) else f"{main}: {value}"
        return f"use {quote(within)}"
    return f"put its keys under '{name}:'"


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
