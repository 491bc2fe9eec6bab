"""The verb inspect: a model's modules, those that LoRA can adapt, and what each rank costs."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loracook.cli.screen import noise_to
from loracook.errors import LoracookError, clean
from loracook.machine.memory import infrequent_gc
from loracook.recipe.recipe import Recipe
from loracook.units import size

if TYPE_CHECKING:
    from torch.nn import Module

    from loracook.model.modules import Part

RANKS = (1, 8, 16, 32, 64, 128)


def _numbers(context: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    found = text.split(",")
    if not all(part.strip().isdigit() and int(part) for part in found):
        raise click.BadParameter("write numbers with commas between them, as in 8,16,32")
    return tuple(map(int, found))


@click.command(short_help="Show a model's modules, and what an adapter on them costs.")
@click.argument("model")
@click.option("--revision", help="A branch, tag or commit of a hub model.")
@click.option("--r", "wanted", default=",".join(map(str, RANKS)), show_default=True, callback=_numbers)
@click.option("--target-modules", metavar="NAMES", help="Names with commas between, or all-linear.")
@click.option("--format", "kind", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    model: str, revision: str | None, wanted: tuple[int, ...], target_modules: str | None, kind: str
) -> None:
    """Show what MODEL is made of and what LoRA would train: a hub id, a folder or a .gguf file.

    Needs config.json alone, never weights.
    """
    with noise_to(Path(os.devnull)), infrequent_gc():
        found = _inspected(_recipe(model, revision), wanted, target_modules)
    for line in json.dumps(found, indent=2).splitlines() if kind == "json" else _lines(found):
        click.echo(clean(line))


def _recipe(model: str, revision: str | None) -> Recipe:
    """A recipe that names nothing but the model; an existing path is local, anything else a hub id."""
    path = Path(model).expanduser()
    local = path.exists()
    if not local and (path.is_absolute() or model.startswith(".")):
        raise LoracookError(f"there is no '{model}'")
    base = {"name_or_path": f"./{path.resolve().name}" if local else model, "dtype": "bfloat16"}
    root = path.resolve().parent if local else Path()
    return Recipe(root / "inspect", {"base_model": base | ({"revision": revision} if revision else {})}, ())


def _inspected(recipe: Recipe, wanted: Sequence[int], asked: str | None) -> dict[str, Any]:
    from loracook import model
    from loracook.model.modules import anatomy, ranks
    from loracook.model.target_modules import default_targets, unadaptable
    from loracook.store.folders import default_cache

    skeleton = model.skeleton(recipe, model.fetch_description(recipe, default_cache()))
    parts, kind = anatomy(skeleton), skeleton.config.model_type
    default = default_targets(skeleton)
    targets = _targets(asked, default, skeleton)
    return {
        "name_or_path": recipe["base_model"]["name_or_path"],
        "model_type": kind,
        "parameters": sum(part.numel() for part in skeleton.parameters()),
        "parts": [asdict(part) for part in parts],
        "kinds": _kinds(parts),
        "default_targets": default,
        "target_modules": targets,
        "left_out": unadaptable(skeleton) if targets == "all-linear" else [],
        "ranks": [asdict(rank) for rank in ranks(skeleton, wanted, targets)],
    }


def _targets(asked: str | None, default: list[str], skeleton: Module) -> str | list[str]:
    """The modules asked for, else PEFT's default, else all linear ones."""
    from loracook.model.target_modules import adaptable, is_meant, unmatched

    if asked is None or asked == "all-linear":
        return "all-linear" if asked else default or "all-linear"
    names, known = [name.strip() for name in asked.split(",")], adaptable(skeleton)
    wrong = [name for name in names if not any(is_meant(name, one) for one in known)]
    if wrong:
        everything = [name for name, _ in skeleton.named_modules()]
        raise LoracookError(unmatched(wrong[0], everything, known))
    return names


def _kinds(parts: Sequence[Part]) -> dict[str, int]:
    """How many modules LoRA could adapt by their own name: q_proj, fc1 …"""
    found: Counter[str] = Counter()
    for part in parts:
        if part.adaptable:
            found[part.pattern.rsplit(".", 1)[-1]] += part.number
    return dict(found)


def _lines(found: dict[str, Any]) -> list[str]:
    parts, width = found["parts"], max(len(part["pattern"]) for part in found["parts"])
    tree = [
        f"  {part['pattern']:<{width}}  {part['kind']:<16}{part['number']:>5} of {part['parameters']:>13,}"
        + ("  LoRA" if part["adaptable"] else "")
        for part in parts
    ]
    default = ", ".join(found["default_targets"]) or f"none for '{found['model_type']}'"
    targets = found["target_modules"]
    named = targets if isinstance(targets, str) else ", ".join(targets)
    left_out = f" without {', '.join(found['left_out'])}" if found["left_out"] else ""
    return [
        f"{found['name_or_path']}: {found['model_type']}, {found['parameters']:,} parameters",
        "",
        *tree,
        "",
        "by name: " + ", ".join(f"{name} {number}" for name, number in found["kinds"].items()),
        f"PEFT's default: {default}",
        "",
        f"on {named}{left_out}:",
        f"{'r':>6}{'trainable':>16}{'all':>18}{'share':>10}{'adapter':>12}",
        *(_rank(rank) for rank in found["ranks"]),
    ]


def _rank(rank: dict[str, Any]) -> str:
    share = f"{rank['percent']:.3f} %"
    adapter = size(rank["adapter_bytes"])
    return f"{rank['r']:>6}{rank['trainable']:>16,}{rank['everything']:>18,}{share:>10}{adapter:>12}"
