"""loracook's own checker, jsonschema, and jsonschema-rs (in Rust) read the schema alike."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jsonschema
import jsonschema_rs
import pytest

from loracook.errors import RecipeError, dotted
from loracook.recipe.schema import all_keys, schema
from loracook.recipe.schema_errors import check, schema_problems
from loracook.recipe.source import read

ROOT = Path(__file__).parents[2]
RECIPES = sorted([*ROOT.glob("recipes/**/*.yaml"), *ROOT.glob("tests/recipes/**/*.yaml")])
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7.5, 1e-9, 1e99, -1e99, "", "a", "a\n", "A b", "é", "none", "5GB",
    "none\n", "./a", "../a.yaml", "/a", "~/a", "http://a/b", "a\\b", "me/it\n", "all-linear", "x" * 70,
    "x" * 40_000, [], ["a"], ["a", "a"], ["a\n"], [1], [[1, 2]], ["none"], [1.5, None],
    {}, {"a": 1}, {"a": "a"}, {"a\n": 1},
)  # fmt: skip


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_recipe_is_judged_alike(file: Path) -> None:
    try:
        data = _whole(read(file).data)
    except RecipeError:
        pytest.skip("not YAML that loracook reads")
    assert {not list(schema_problems(data)), *_others(data, schema())} in ({True}, {False})


def test_every_key_judges_values_alike() -> None:
    differing = [
        (dotted(path), value)
        for path, part in all_keys()
        for value in VALUES
        if {not list(check(value, part, ())), *_others(value, part)} == {True, False}
    ]
    assert differing == []


def test_loracook_alone_refuses_a_float_for_an_integer() -> None:
    part = {"type": "integer"}
    assert [problem.rule for problem in check(4.0, part, ())] == ["type"]
    assert _others(4.0, part) == (True, True)


def _whole(value: Any) -> Any:
    """The value with 4.0 as 4, which JSON Schema does not tell apart, and without NaN, which passes any bound there."""
    if isinstance(value, dict):
        return {name: _whole(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_whole(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _others(value: Any, part: dict[str, Any]) -> tuple[bool, bool]:
    """Whether jsonschema and jsonschema-rs take a value."""
    return jsonschema.Draft202012Validator(part).is_valid(value), jsonschema_rs.is_valid(part, value)
