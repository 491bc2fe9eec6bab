"""The effective recipe, every value with its origin."""

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, Protocol

from loracook.errors import Path, clean, dotted
from loracook.recipe.recipe import Recipe
from loracook.recipe.rules import rule_problems
from loracook.recipe.schema import part_at
from loracook.recipe.yaml_values import rows

UPSTREAM: tuple[tuple[str, str], ...] = (
    ("base_model", "revision"),
    ("quantization", "bnb_4bit_quant_type"),
    ("quantization", "bnb_4bit_use_double_quant"),
    ("lora", "lora_dropout"),
    ("train", "gradient_accumulation_steps"),
    ("train", "optim"),
    ("train", "weight_decay"),
    ("train", "max_grad_norm"),
    ("train", "packing"),
    ("train", "eval_strategy"),
)
"""Keys worth showing with their upstream default where the recipe does not set them."""
COLUMN = 44


class Stated(Protocol):
    """A recipe, or what records state of one: effective values by section, and who set each."""

    @property
    def sections(self) -> Mapping[str, Any]:
        """The effective values by section."""

    def origin(self, path: Path) -> object:
        """Who set the value at `path`, as text."""


def as_yaml(recipe: Recipe) -> str:
    """The effective recipe as YAML with each value's origin in a comment; it reads back the same."""
    return "\n".join(_commented(text, origin) for text, origin in _lines(recipe))


def as_json(recipe: Recipe) -> str:
    """The effective recipe and the origin of each value by its path, as JSON."""
    values, upstream = effective(recipe)
    origins = {dotted(path): origin_of(recipe, path, upstream) for _, path in rows(values) if path}
    return json.dumps({"recipe": values, "origins": origins}, indent=2)


def effective(recipe: Stated) -> tuple[dict[str, Any], set[Path]]:
    """The values of a recipe, with upstream's defaults for the keys worth showing and the paths of those."""
    values: dict[str, Any] = deepcopy(dict(recipe.sections))
    unset = [
        (section, name)
        for section, name in UPSTREAM
        if {name, (part_at((section, name)) or {}).get("x-unless")}.isdisjoint(values.get(section, {name}))
    ]
    defaults = {path: part["default"] for path in unset if "default" in (part := part_at(path) or {})}
    for (section, name), default in defaults.items():
        values[section][name] = default
    refused = _unused(values)
    for section, name in (path for path in defaults if path in refused):
        del values[section][name]
    return values, {path for path in defaults if path not in refused}


def _unused(values: dict[str, Any]) -> set[Path]:
    """Paths that the rules refuse: the recipe itself is valid, so these defaults would not be used."""
    return {problem.path for problem in rule_problems(values) if problem.severity == "error"}


def origin_of(recipe: Stated, path: Path, upstream: set[Path]) -> str:
    """Where a value comes from: file and line, `--set`, loracook or upstream."""
    return "upstream" if path in upstream else clean(str(recipe.origin(path)))


def _lines(recipe: Recipe) -> Iterator[tuple[str, str]]:
    values, upstream = effective(recipe)
    for text, path in rows(values):
        yield text, origin_of(recipe, path, upstream) if path else ""


def _commented(text: str, origin: str) -> str:
    return f"{text:<{COLUMN}}  # {origin}" if origin else text
