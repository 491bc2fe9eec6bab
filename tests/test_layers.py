"""Imports point down only: cli → runner → planner → stages → {data, model, report} → recipe → … → errors."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "loracook"
HEAVY = {"torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate", "huggingface_hub"}


def modules() -> dict[str, Path]:
    """Every module of loracook by its dotted name."""
    return {_name(path): path for path in ROOT.rglob("*.py")}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path, *, nested: bool) -> set[str]:
    """The modules that a file imports, those inside functions only when `nested`."""
    tree = ast.parse(path.read_text("utf-8"))
    found = ast.walk(tree) if nested else ast.iter_child_nodes(tree)
    names: set[str] = set()
    for node in found:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def layer(module: str) -> int:
    """The height of a module: 0 at the bottom."""
    part = module.split(".")[1] if "." in module else ""
    return next((height for height, parts in enumerate(LAYERS) if part in parts), LANGUAGE)


LAYERS = (
    {"errors"},
    set(),  # the recipe language and what else is light
    {"recipe"},
    {
        "data",
        "model",
        "report",
        "metrics",
        "hub",
        "parcel",
        "validation",
        "migration",
        "starter",
        "survey",
        "fitting",
        "footprint",
    },
    {"stages"},
    {"planner", "forecast"},
    {"runner"},
    {"views", "cli"},
)
LANGUAGE = 1


@pytest.mark.parametrize("module", sorted(modules()))
def test_no_module_imports_from_above(module: str) -> None:
    known = modules()
    if module == "loracook":
        return
    upward = {
        name
        for name in imported(known[module], nested=False) & set(known) - {"loracook"}
        if layer(name) > layer(module)
    }
    assert not upward


@pytest.mark.parametrize("module", sorted(modules()))
def test_no_module_imports_a_heavy_library_at_its_top(module: str) -> None:
    tops = {name.split(".")[0] for name in imported(modules()[module], nested=False)}
    assert not tops & HEAVY
