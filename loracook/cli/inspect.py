"""The command inspect: what LoRA costs on a base model, and what an adapter changed in it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from click.core import ParameterSource

from loracook.cli.options import allow_options, runs_option
from loracook.cli.screen import show
from loracook.recipe.allowed import Allowed

RANKS = "1,8,16,32,64,128"
OF_MODELS = ("revision", "ranks", "target_modules")
OF_ADAPTERS = ("base", "every")


def _numbers(context: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    numbers = text.split(",")
    if not all(number.strip().isdigit() and int(number) for number in numbers):
        raise click.BadParameter("write numbers with commas between them, as in 8,16,32")
    return tuple(map(int, numbers))


@click.command()
@click.argument("target", metavar="MODEL|ADAPTER|RUN|RECIPE")
@click.option("--revision", help="Of a hub model: a branch, tag or commit.")
@click.option(
    "--r",
    "ranks",
    default=RANKS,
    show_default=True,
    callback=_numbers,
    help="Of a model: the ranks to compare.",
)
@click.option(
    "--target-modules",
    metavar="NAMES",
    help="Of a model: module names with commas between, or all-linear.",
)
@click.option(
    "--base",
    metavar="WEIGHTS",
    help="Of an adapter: the base model to compare it with, a .safetensors file, a folder or a hub id.",
)
@click.option("--all", "every", is_flag=True, help="Of an adapter: a line for every module.")
@click.option("--format", "kind", type=click.Choice(["text", "json"]), default="text", show_default=True)
@runs_option
@allow_options
@click.pass_context
def command(
    context: click.Context,
    *,
    target: str,
    revision: str | None,
    ranks: tuple[int, ...],
    target_modules: str | None,
    base: str | None,
    every: bool,
    kind: str,
    runs: Path,
    allowed: Allowed,
) -> None:
    """Show what LoRA would train on a model, or what an adapter changed.

    MODEL is a hub id, a folder or a .gguf file; its config.json is enough. ADAPTER is a folder that PEFT
    saved, RUN a run's folder or its name, and RECIPE stands for the adapter that its run has trained.
    """
    from loracook.cli.inspect_adapter import find_adapter, inspect_adapter

    if found := find_adapter(target, runs, allowed):
        from loracook.views.adapter_effect import all_lines, as_json, as_lines

        _refuse(context, OF_MODELS, "an adapter")
        inspection = inspect_adapter(*found, base=base, allowed=allowed)
        plain, lines = as_json(inspection), (all_lines if every else as_lines)(inspection)
    else:
        from loracook.cli.inspect_model import inspect_model, recipe_on
        from loracook.views import inspect_text

        _refuse(context, OF_ADAPTERS, "a model")
        model = inspect_model(target, recipe_on(target, revision, allowed), ranks, targets=target_modules)
        plain, lines = asdict(model) | {"adaptable": model.adaptable}, inspect_text.as_lines(model)
    show(json.dumps(plain, indent=2).splitlines() if kind == "json" else lines)


def _refuse(context: click.Context, names: tuple[str, ...], what: str) -> None:
    """Refuse options that mean nothing for what is inspected."""
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if parameter.name in names and given:
            raise click.UsageError(f"{parameter.opts[0]} means nothing for {what}; remove it")
