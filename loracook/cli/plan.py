"""The command plan: what a run would do, and the steps, memory and disk it takes."""

import json
import os
from pathlib import Path

import click

from loracook.cli.options import allow_options, runs_option, set_option, strategy_option
from loracook.cli.screen import noise_to, show
from loracook.errors import UnreachableError
from loracook.machine.devices import Device, named_device
from loracook.machine.memory import infrequent_gc, keep_freed_memory
from loracook.machine.versions import INSTALL, is_complete
from loracook.planner import Plan, plan
from loracook.recipe.allowed import Allowed
from loracook.recipe.derived import first_rows
from loracook.recipe.recipe import load
from loracook.store.folders import default_cache
from loracook.training.processes import Processes, of_each_process
from loracook.views.plan_details import PlanDetails

MISSING = f"model, steps, tokens and memory: the training stack is not installed; {INSTALL}"


@click.command()
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...", type=click.Path(path_type=Path))
@runs_option
@set_option
@allow_options
@click.option("--format", "kind", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--device", metavar="NAME", help="Say whether it fits this GPU, as in --device A100-40GB.")
@click.option("--memory", metavar="SIZE", help="Say whether it fits a GPU with this memory, as in 24GB.")
@click.option(
    "--processes",
    default=1,
    type=click.IntRange(1),
    metavar="N",
    help="Plan for training in so many processes.",
)
@strategy_option
@click.option("--probe", is_flag=True, help="Load the model and measure the largest batch.")
@click.option("--offline", is_flag=True, help="Do not contact the hub.")
def command(
    *,
    recipes: tuple[Path, ...],
    runs: Path,
    overrides: tuple[str, ...],
    allowed: Allowed,
    kind: str,
    device: str | None,
    memory: str | None,
    processes: int,
    strategy: str,
    probe: bool,
    offline: bool,
) -> None:
    """Show what `loracook run RECIPE` would do, and the steps, memory and disk it takes.

    Reads configs, tokenizers and data, and weights only with --probe; shows several RECIPEs side by side.
    """
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if probe and processes > 1:
        raise click.UsageError("--probe measures one process; leave out --processes")
    place = named_device(device, memory)
    plans = [plan(load(recipe, overrides, allowed), runs) for recipe in recipes]
    if probe:
        keep_freed_memory()
    spread = Processes(processes, strategy)
    with noise_to(Path(os.devnull)), infrequent_gc():
        details = [_probed(planned) if probe else _details(planned, place, spread) for planned in plans]
    show(_written(details, kind))


def _details(planned: Plan, device: Device | None, asked: Processes) -> PlanDetails:
    """The plan with its forecast, as far as it can be made here."""
    if not is_complete():
        return PlanDetails(planned, None, (MISSING,))
    from loracook.estimate.estimate import message_of, read_and_estimate
    from loracook.estimate.forecast import forecast
    from loracook.machine.devices import device_here
    from loracook.tuning.answers import note

    try:
        whole = read_and_estimate(planned.recipe, default_cache(), device or device_here())
        each, processes = of_each_process(whole, asked)
        tuned = note(whole, planned.stages[0].digest, default_cache()) if device is None else ""
        return PlanDetails(planned, forecast(each, planned.folder.parent), processes=processes, tuned=tuned)
    except UnreachableError as error:
        return PlanDetails(planned, None, (f"model, steps, tokens and memory: {message_of(error)}",))


def _probed(planned: Plan) -> PlanDetails:
    """The plan with its forecast on this machine, and what its largest batch took."""
    from loracook.estimate.forecast import forecast
    from loracook.progress import Silent
    from loracook.training.largest_batch import measure_alone
    from loracook.training.trainer import read_inputs

    progress, cache = Silent(), default_cache()
    first = first_rows(planned.recipe.sections)
    inputs = read_inputs(planned.recipe, cache, progress, first=first)
    check = measure_alone(inputs, cache, progress)
    return PlanDetails(planned, forecast(check.estimate, planned.folder.parent), probe=check)


def _written(details: list[PlanDetails], kind: str) -> list[str]:
    from loracook.views.plan_json import as_json
    from loracook.views.plan_table import table
    from loracook.views.plan_text import detail_lines, stage_lines

    if kind == "json":
        plain = [as_json(one) for one in details]
        return json.dumps(plain if len(plain) > 1 else plain[0], indent=2, ensure_ascii=False).splitlines()
    if len(details) > 1:
        return table(_titles(details), details)
    planned = details[0].plan
    nothing = [] if planned.to_do else ["everything is done; there is nothing to do"]
    return [*stage_lines(planned), *nothing, "", *detail_lines(details[0])]


def _titles(details: list[PlanDetails]) -> list[str]:
    """The recipes' names, or their files where two have the same name."""
    names = [one.plan.recipe.name for one in details]
    ambiguous = len(set(names)) < len(names)
    return [str(one.plan.recipe.file) for one in details] if ambiguous else names
