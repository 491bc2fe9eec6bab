"""The command doctor: what this machine can and cannot do for recipes."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from dataclasses import asdict
from pathlib import Path

import click

from loracook.cli.screen import noise_to
from loracook.errors import clean
from loracook.machine.doctor import Finding, findings
from loracook.store.folders import default_cache

WIDTH = 14


@click.command(short_help="Say what this machine can and cannot do for recipes.")
@click.option("--format", "kind", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--offline", is_flag=True, help="Do not contact the hub.")
def command(kind: str, offline: bool) -> None:
    """Check versions, devices, attention kernels, disk and hub, and say what each lack means for recipes."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    with noise_to(Path(os.devnull)):
        checked = list(findings(default_cache()))
    if kind == "json":
        click.echo(json.dumps([asdict(finding) for finding in checked], indent=2))
        return
    for finding in checked:
        for line in _lines(finding):
            click.echo(clean(line))


def _lines(finding: Finding) -> list[str]:
    columns, _ = shutil.get_terminal_size((1000, 24))  # a pipe gets whole lines
    label, indent = f"{finding.what:<{WIDTH}}", " " * WIDTH
    fact = textwrap.wrap(finding.found, columns, initial_indent=label, subsequent_indent=indent)
    arrow, below = f"{indent}→ ", f"{indent}  "
    return [*fact, *textwrap.wrap(finding.means, columns, initial_indent=arrow, subsequent_indent=below)]
