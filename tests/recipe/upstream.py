"""What the installed upstream takes, held against the schema; as a program it prints what differs."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from enum import Enum
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal, get_args, get_origin, get_type_hints

from loracook.errors import dotted
from loracook.recipe.schema import Schema, all_keys, schema
from loracook.recipe.schema_errors import check

FORWARDS = {
    "transformers.AutoModelForCausalLM.from_pretrained": "transformers.PreTrainedModel.from_pretrained"
}
"""Calls that hand every keyword on, and the one that takes them."""
POPPED = re.compile(r'\bkwargs\.pop\(\s*"([a-z]\w*)"(?:,\s*([^()]+?))?\s*\)')
VARIADIC = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def sections(part: Schema | None = None, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every part of the schema that is one upstream call, with its dotted path."""
    part = schema() if part is None else part
    if "x-upstream" in part and "properties" in part:
        yield path, part
    for name, inner in part.get("properties", {}).items():
        yield from sections(inner, f"{path}.{name}".strip("."))


def offered(section: Schema) -> dict[str, Schema]:
    """The keys of a section that are upstream's."""
    return {name: part for name, part in section["properties"].items() if "x-ours" not in part}


@cache
def parameters(call: str) -> dict[str, Any]:
    """The parameters of an upstream call and their defaults, None where there is none."""
    found = resolve(FORWARDS.get(call, call))
    if call.endswith(".add_special_tokens"):
        owner = resolve(call.removesuffix(".add_special_tokens"))
        return dict.fromkeys([*owner.SPECIAL_TOKENS_ATTRIBUTES, "extra_special_tokens"])
    signature = inspect.signature(found).parameters.values()
    named = {one.name: _default(one) for one in signature if one.kind not in VARIADIC}
    return (_popped(found) if any(one.kind is one.VAR_KEYWORD for one in signature) else {}) | named


@cache
def choices(call: str) -> dict[str, set[str]]:
    """The parameters of a dataclass that take one of a few names, and those names."""
    found = resolve(call)
    if not dataclasses.is_dataclass(found):
        return {}
    hints = get_type_hints(found)
    named = {
        field.name: set(field.metadata.get("choices") or _names(hints[field.name]))
        for field in dataclasses.fields(found)
    }
    return {name: names for name, names in named.items() if names}


def resolve(dotted: str) -> Any:
    """The object that a dotted name stands for."""
    module, *names = dotted.split(".")
    found: Any = importlib.import_module(module)
    for name in names:
        module = f"{module}.{name}"
        found = getattr(found, name) if hasattr(found, name) else importlib.import_module(module)
    return found


def differences() -> Iterator[str]:
    """One line for each way in which the schema is not what the installed upstream takes."""
    for keys, part in all_keys():
        call = part.get("x-upstream")
        if call and "properties" not in part and keys[-1] not in parameters(call):
            yield f"{dotted(keys)}: {call} takes no such parameter"
    for path, section in sections():
        call = section["x-upstream"]
        if find_spec(call.partition(".")[0]) is None:  # an extra; where it is tested, it is installed
            continue
        ours, theirs = offered(section), parameters(call)
        declined = section.get("x-declined", {})
        new, gone = theirs.keys() - ours.keys() - declined.keys(), ours.keys() - theirs.keys()
        yield from (f"{path}: {call} has a new '{name}'" for name in new)
        yield from (f"{path}: {call} no longer takes '{name}'" for name in gone)
        yield from (f"{path}: {call} has no '{name}' to decline" for name in declined.keys() - theirs.keys())
        for name, part in ours.items():
            yield from _other_default(f"{path}.{name}", part, theirs.get(name))
            yield from _other_choices(f"{path}.{name}", part, choices(call).get(name))


def _other_default(path: str, part: Schema, theirs: Any) -> Iterator[str]:
    theirs = theirs.value if isinstance(theirs, Enum) else theirs
    unsayable = theirs in (None, {}, []) or any(check(theirs, part, ()))
    if part.get("x-decided-by") != "loracook" and part.get("default") != (None if unsayable else theirs):
        yield f"{path}: upstream's default is {theirs!r}, the schema has {part.get('default')!r}"


def _other_choices(path: str, part: Schema, theirs: set[str] | None) -> Iterator[str]:
    if theirs is None or "enum" not in part:
        return
    ours = {one for one in part["enum"] if isinstance(one, str)} | set(part.get("x-declined", {}))
    theirs = {re.sub(r"\[.*\]", "4", name) for name in theirs}  # pissa_niter_[number of iters]
    ours = {re.sub(r"_\d+$", "_4", name) for name in ours}
    yield from (f"{path}: upstream has a new '{name}'" for name in theirs - ours)
    yield from (f"{path}: upstream no longer has '{name}'" for name in ours - theirs)


def _popped(call: Any) -> dict[str, Any]:
    taken = call.__init__ if inspect.isclass(call) else call
    return {name: _literal(text) for name, text in POPPED.findall(inspect.getsource(taken))}


def _default(one: inspect.Parameter) -> Any:
    """None stands for no default, and for one that a dataclass makes anew (an empty mapping)."""
    return None if one.default is one.empty or repr(one.default) == "<factory>" else one.default


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):  # an expression of upstream's; its value is not known here
        return None


def _names(hint: Any) -> Iterator[str]:
    if inspect.isclass(hint) and issubclass(hint, Enum):
        yield from (member.value for member in hint)
    elif get_origin(hint) is Literal:
        yield from (name for name in get_args(hint) if isinstance(name, str))
    else:
        for inner in get_args(hint):
            yield from _names(inner)


def _report() -> int:
    from importlib.metadata import version

    packages = ("trl", "transformers", "peft", "datasets", "bitsandbytes", "huggingface_hub", "torch")
    print("installed:", ", ".join(f"{package} {version(package)}" for package in packages))
    found = sorted(differences())
    print("\n".join(found) or "the schema is what upstream takes")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(_report())
