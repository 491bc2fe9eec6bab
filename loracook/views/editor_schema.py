"""The recipe schema as editors need it: what they may complain about, insert and show."""

from __future__ import annotations

from typing import Any

from loracook.errors import Path
from loracook.recipe.foreign_keys import OUR_PATHS, TRANSLATED, translate
from loracook.recipe.schema import Schema, resolved, schema, types_of
from loracook.views.explain import allowed

DROPPED = {"default", "$schema", "$id"}
NO_VALUE = {"type": "null", "not": {"type": "null"}, "doNotSuggest": True}
"""What no value fits: yaml-language-server shows its own message for a wrong type alone."""


def editor_schema() -> Schema:
    """The schema for one file at a time, of which others may bring the rest.

    A mapping may lack any key, since the recipe may extend another or be extended, and null removes an
    inherited one. Defaults are told and not inserted: a language server would write all of a section's.
    """
    return {"$schema": schema()["$schema"], "$id": schema()["$id"], **_mergeable(_described(schema()))}


def _described(part: Schema, path: Path = ()) -> Schema:
    """The part with what its keys take in their descriptions, and what to write instead of refused keys."""
    part = resolved(part)
    shown = {word: value for word, value in part.items() if word not in DROPPED and not word.startswith("x-")}
    if "properties" in part:
        known = {name: _described(inner, (*path, name)) for name, inner in part["properties"].items()}
        shown["properties"] = _refused(part, path) | known
    elif types_of(part):
        shown["description"] = f"{part.get('description', '')}\n\n{allowed(part)}".strip()
    for word in ("items", "additionalProperties"):
        if isinstance(part.get(word), dict):
            shown[word] = _described(part[word], (*path, word))
    return shown


def _refused(part: Schema, path: Path) -> dict[str, Schema]:
    """Keys of other tools and of upstream that are no keys of this mapping, each with what to do instead."""
    foreign = ((name, translate(name, None)) for name in (*TRANSLATED, *OUR_PATHS))
    here = {name: found.advice(path) for name, found in foreign if found and path in ((), found.path[:1])}
    declined = {name: f"not supported: {reason}" for name, reason in part.get("x-declined", {}).items()}
    return {name: {**NO_VALUE, "errorMessage": message} for name, message in (here | declined).items()}


def _mergeable(part: Schema) -> Schema:
    """The part without required keys, and with null to remove inherited ones; lists are replaced whole."""
    shown: dict[str, Any] = {word: value for word, value in part.items() if word != "required"}
    if "properties" in part:
        shown["properties"] = {name: _mergeable(inner) for name, inner in part["properties"].items()}
    if types_of(part) and "const" not in part:
        shown["type"] = [*dict.fromkeys((*types_of(part), "null"))]
    if "enum" in part:
        shown["enum"] = [*dict.fromkeys((*part["enum"], None))]
    return shown
