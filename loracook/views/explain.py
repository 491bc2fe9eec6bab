"""One key of a recipe explained: its meaning, allowed values, origin, and the argument it becomes."""

from collections.abc import Sequence
from typing import Any

from loracook.errors import LoracookError, Path, clean, dotted, quote
from loracook.recipe.did_you_mean import TYPE_NAMES, closest
from loracook.recipe.foreign_keys import translate
from loracook.recipe.layers import Layer, merged
from loracook.recipe.overrides import path_of
from loracook.recipe.recipe import Recipe, origin_in
from loracook.recipe.schema import Schema, all_keys, part_at, resolved, types_of, with_defaults
from loracook.recipe.schema_bounds import bounds
from loracook.recipe.yaml_values import flow
from loracook.views.show import effective

BOUNDED = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}


def explain(recipe: Recipe, key: str) -> str:
    """A few lines about a key such as `lora.r`; raises LoracookError when there is no such key."""
    values, upstream = effective(recipe)
    return _explained(key, recipe.layers, values, upstream=upstream)


def explain_unchecked(layers: Sequence[Layer], key: str) -> str:
    """The same of a recipe that has problems, so that only what it says and loracook's defaults are known."""
    data = merged(layers)
    return _explained(key, layers, with_defaults(data) if isinstance(data, dict) else {}, upstream=set())


def explain_alone(key: str) -> str:
    """The same without a recipe, and so without a value."""
    path, part = _known(key)
    return "\n".join(filter(None, [dotted(path), *_meaning(path, part, None)]))


def _explained(key: str, layers: Sequence[Layer], values: dict[str, Any], *, upstream: set[Path]) -> str:
    path, part = _known(key)
    value = _parent(layers) if path == ("extends",) else _value_at(values, path)
    if value is None:
        current = f"{dotted(path)} is not set"
    else:
        origin = "upstream" if path in upstream else clean(str(origin_in(layers, path)))
        current = f"{dotted(path)}: {flow(value)}  # {origin}"
    return "\n".join(filter(None, [current, *_meaning(path, part, value)]))


def _known(key: str) -> tuple[Path, Schema]:
    path = path_of(key)
    part = part_at(path) if path else None
    if part is None:
        raise LoracookError(f"unknown key {quote(key)}; {_suggestion(key)}")
    return path, part


def _meaning(path: Path, part: Schema, value: Any) -> list[str]:
    return [
        part.get("description", ""), allowed(part), _examples(part), _passed_on(path, value), *_keys(part)
    ]  # fmt: skip


def allowed(part: Schema) -> str:
    """The types or values that a key takes, its bounds, and its default with who decides it."""
    values = " or ".join(_type(name, part) for name in types_of(part))
    if "enum" in part:
        values = "one of " + ", ".join(map(flow, part["enum"]))
    if part.get("default") is None:
        return f"Type: {values}"
    origin = "loracook" if part.get("x-decided-by") else "upstream"
    unless = f", unless {part['x-unless']} is set" if "x-unless" in part else ""
    return f"Type: {values}; default: {flow(part['default'])} ({origin}){unless}"


def _type(name: str, part: Schema) -> str:
    """One type in words; a number has its bounds where it is the first type."""
    choices = resolved(part.get("items", {})).get("enum") if name == "array" else None
    if choices:
        return "a list of any of " + ", ".join(map(flow, choices))
    bounded = name in ("integer", "number") and name == types_of(part)[0] and BOUNDED & set(part)
    return bounds(part) if bounded else TYPE_NAMES[name]


def _examples(part: Schema) -> str:
    examples = [example for example in part.get("examples", ()) if not isinstance(example, dict)]
    return "Examples: " + ", ".join(map(flow, examples)) if examples else ""


def _passed_on(path: Path, value: Any) -> str:
    for length in range(len(path), 0, -1):
        part = part_at(path[:length]) or {}
        if "x-upstream" in part:
            return _call(part["x-upstream"], path[length if "properties" in part else length - 1 :], value)
        if part.get("x-ours"):
            return "Used by loracook itself"
    return ""


def _call(call: str, path: Path, value: Any) -> str:
    """The upstream call that a value is passed to; `path` is the argument's name and the path inside it."""
    if not path:
        return f"Passed to {call}(…)"
    if len(path) > 1:
        return f"Part of {call}({path[0]}=…)"
    return f"Passed as {call}({path[0]}={'…' if value is None else flow(value)})"


def _keys(part: Schema) -> list[str]:
    keys = part.get("properties", {})
    width = max(map(len, keys), default=0) + 2
    return ["Keys:", *(f"  {name:<{width}}{_first(inner)}" for name, inner in keys.items())] if keys else []


def _first(part: Schema) -> str:
    return str(part.get("description", "")).partition(". ")[0].rstrip(".")


def _parent(layers: Sequence[Layer]) -> Any:
    return next((layer.value(("extends",)) for layer in layers if layer.entry(("extends",))), None)


def _value_at(values: Any, path: Path) -> Any:
    for name in path:
        if isinstance(values, dict):
            values = values.get(name)
        elif isinstance(values, list) and isinstance(name, int) and name < len(values):
            values = values[name]
        else:
            return None
    return values


def _suggestion(key: str) -> str:
    translation = translate(key.rpartition(".")[2], None)
    if translation:
        return f"did you mean '{dotted(translation.path)}'?"
    known = [dotted(tuple(part for part in path if part != 0)) for path, _ in all_keys()]
    same_name = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    match = same_name[0] if same_name else closest(key, known)
    return f"did you mean '{match}'?" if match else "run 'loracook schema' to list all keys"
