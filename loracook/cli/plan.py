"""The verb plan: what a run would do, train, take and leave."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from loracook.cli.options import runs_option, set_option
from loracook.cli.screen import noise_to
from loracook.errors import UnreachableError, clean
from loracook.machine.devices import Device, named_device
from loracook.machine.memory import infrequent_gc, keep_freed_memory
from loracook.machine.versions import INSTALL, is_complete
from loracook.planner import Plan, plan
from loracook.recipe.recipe import load
from loracook.views.plan_json import stages_json
from loracook.views.plan_text import lines

MISSING = f"model, steps, tokens and memory: the training stack is not installed; {INSTALL}"


@click.command(short_help="Say what a run would do, and what it takes.")
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...", type=click.Path(path_type=Path))
@runs_option
@set_option
@click.option("--format", "kind", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--device", metavar="NAME", help="Whether it fits there, as in --device A100-40GB.")
@click.option(
    "--memory", metavar="SIZE", help="Whether it fits a GPU with so much memory, as in --memory 24GB."
)
@click.option("--probe", is_flag=True, help="Load the model and measure its largest batch.")
@click.option("--offline", is_flag=True, help="Ask no hub; say what cannot be known without it.")
def command(
    recipes: tuple[Path, ...],
    runs: Path,
    overrides: tuple[str, ...],
    kind: str,
    device: str | None,
    memory: str | None,
    probe: bool,
    offline: bool,
) -> None:
    """Say what `loracook run RECIPE` would do, train, take and leave; several RECIPEs come side by side.

    Needs configs, tokenizers and data, weights with --probe alone; nothing is changed.
    """
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    place = named_device(device, memory)
    plans = [plan(load(recipe, overrides), runs) for recipe in recipes]
    if probe:
        keep_freed_memory()
    with noise_to(Path(os.devnull)):
        with infrequent_gc():
            known = [_known(planned, place) for planned in plans]
        if probe:
            known = [
                known_one | _probed(planned, known_one)
                for planned, known_one in zip(plans, known, strict=True)
            ]
    for line in _written(plans, known, kind):
        click.echo(clean(line))


def _known(planned: Plan, place: Device | None) -> dict[str, Any]:
    """The plan's JSON, as far as it can be known here."""
    if not is_complete():
        return stages_json(planned) | {"unknown": [MISSING]}
    from loracook.estimate.forecast import forecast, said
    from loracook.store.folders import default_cache
    from loracook.views.plan_json import as_json

    try:
        return as_json(planned, forecast(planned, default_cache(), place))
    except UnreachableError as error:
        return stages_json(planned) | {"unknown": [f"model, steps, tokens and memory: {said(error)}"]}


def _probed(planned: Plan, known: dict[str, Any]) -> dict[str, Any]:
    """What the largest batch took, and from its time the longest that the run can take."""
    from loracook.store.folders import default_cache
    from loracook.training.largest_batch import probe_alone

    facts = probe_alone(planned.recipe, default_cache()).facts()
    passes = planned.recipe["train"].get("gradient_accumulation_steps", 1)
    step = facts["seconds_for_batch"] * passes
    steps = known.get("steps")
    return {
        "probe": facts,
        "time": {"seconds_per_step": step, "seconds": steps and step * steps["total"]},
    }


def _written(plans: list[Plan], known: list[dict[str, Any]], kind: str) -> list[str]:
    from loracook.views import forecast_text as forecast

    if kind == "json":
        return json.dumps(known if len(known) > 1 else known[0], indent=2, ensure_ascii=False).splitlines()
    if len(plans) > 1:
        heads = zip(known, _titles(plans), strict=True)
        return forecast.table([one | {"recipe": title} for one, title in heads])
    nothing = [] if plans[0].to_do else ["everything is done; there is nothing to do"]
    return [*lines(plans[0]), *nothing, "", *forecast.lines(known[0])]


def _titles(plans: list[Plan]) -> list[str]:
    """The recipes' names, or their files where two have one name."""
    names = [planned.recipe.name for planned in plans]
    alike = len(set(names)) < len(names)
    return [str(planned.recipe.file) for planned in plans] if alike else names
