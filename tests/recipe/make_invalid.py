"""Writes tests/recipes/invalid/generated: for every key, values of the wrong type, range or spelling.

Run `python -m tests.recipe.make_invalid` after a change to the schema or to a message: it also rewrites the
expected lines of the recipes written by hand. Read what changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

from loracook.recipe.schema import Schema, all_keys, types_of
from loracook.recipe.schema_errors import check
from loracook.recipe.validate import problems_of
from loracook.recipe.yaml_values import rows

RECIPES = Path(__file__).parents[1] / "recipes"
FOLDER = RECIPES / "invalid" / "generated"
BASE: dict[str, Any] = {
    "version": 1,
    "name": "wrong",
    "base_model": {"name_or_path": "org/model"},
    "dataset": {"path": "org/rows"},
    "lora": {"r": 8},
}
NEEDED = {
    "sources": {"path": "org/rows"},
    "messages": {"role": "user", "content": "x"},
    "tasks": {"task": "mine", "dataset_path": "./rows.jsonl", "doc_to_text": "{{q}}", "doc_to_target": "a"},
}
MISSHAPEN = ("no way!", " x", "a:b", "?", "a\\b")
WRONG: dict[str, tuple[Any, ...]] = {
    "integer": ("many", 1.5, True, [4], {"value": 4}),
    "number": ("some", True, [0.5], {"value": 1}),
    "boolean": ("yes", 1, "off", [True]),
    "string": (17, True, ["a"], {"text": "a"}),
    "array": (3, {"a": "b"}, False),
    "object": ("text", 3, ["a"]),
}


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """A name and the data of every generated recipe."""
    for number, (path, part) in enumerate(all_keys()):
        if path[:2] == ("dataset", "sources") and len(path) > 3 and path[-1] not in ("path", "weight"):
            continue  # the same keys as those of dataset
        for kind, value in _wrong(part, number):
            name = "-".join(str(step) for step in path if step != 0)
            yield f"{kind}-{name}", _recipe(path, value)


def write() -> None:
    """Write every generated recipe, and the expected lines of every invalid or warned recipe."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for name, data in cases():
        file = FOLDER / f"{name}.yaml"
        file.write_text("".join(f"{text}\n" for text, _ in rows(data)), encoding="utf-8")

    for text in (text for folder in ("invalid", "warned") for text in (RECIPES / folder).rglob("*.txt")):
        text.unlink()
    for file in [*RECIPES.glob("invalid/**/*.yaml"), *RECIPES.glob("warned/*.yaml")]:
        if file.parent.name != "parts":
            file.with_suffix(".txt").write_text(lines(file), encoding="utf-8")


def lines(file: Path) -> str:
    """What is wrong with a recipe, a line each, seen from its own folder."""
    with chdir(file.parent):
        return "".join(f"{problem}\n" for problem in problems_of(file.name))


def _wrong(part: Schema, number: int) -> Iterator[tuple[str, Any]]:
    kinds = types_of(part)
    values = [value for value in WRONG[kinds[0]] if not _fits_another(value, kinds)]
    yield "type", values[number % len(values)]
    bounds = [bound for bound in _outside(part) if bound is not None]
    if bounds:
        yield "range", bounds[number % len(bounds)]
    if "enum" in part and isinstance(part["enum"][-1], str):
        word = part["enum"][number % len(part["enum"])]
        yield "choice", word[:-1] + word[-1] * 2 if isinstance(word, str) else "maybe"
    if "pattern" in part:
        unfit = [text for text in MISSHAPEN if any(check(text, part, ()))]
        yield "form", unfit[number % len(unfit)]
    if part.get("uniqueItems") and "enum" not in part["items"] and types_of(part["items"]) == ("string",):
        yield "twice", ["a", "b", "a"]


def _fits_another(value: Any, kinds: tuple[str, ...]) -> bool:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)] in kinds or ("number" in kinds and type(value) is int)


def _outside(part: Schema) -> Iterator[int | float | None]:
    low, high = part.get("minimum"), part.get("maximum")
    yield low - 1 if low is not None else part.get("exclusiveMinimum")
    yield high * 10 + 1 if high is not None else part.get("exclusiveMaximum")


def _recipe(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    for step in reversed(path):
        value = [NEEDED[str(path[path.index(0) - 1])] | value] if step == 0 else {step: value}
    return _merged(_merged(BASE, _needed(path)), value)


def _needed(path: tuple[str | int, ...]) -> dict[str, Any]:
    """What a recipe must say besides, so that the one value alone is wrong."""
    if path[0] == "lm_eval" and path[1:2] != ("tasks",):
        return {"lm_eval": {"tasks": ["hellaswag"]}}
    return {"lora": {"loraplus": {"loraplus_lr_ratio": 16}}} if "loraplus" in path[:2] else {}


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


if __name__ == "__main__":
    write()
