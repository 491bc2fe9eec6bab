"""The command doctor: what this machine can and cannot do for recipes."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import click

from loracook.cli.screen import noise_to, show
from loracook.machine.doctor import findings
from loracook.store.folders import default_cache


@click.command()
@click.option("--format", "kind", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--offline", is_flag=True, help="Do not contact the hub.")
def command(kind: str, offline: bool) -> None:
    """Check versions, devices, attention kernels, disk and hub, and say what missing ones mean."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    with noise_to(Path(os.devnull)):
        checked = list(findings(default_cache()))
    if kind == "json":
        click.echo(json.dumps([asdict(finding) for finding in checked], indent=2))
        return
    for finding in checked:
        columns = ((finding.what, finding.found), ("", finding.means and f"→ {finding.means}"))
        show(f"{label:<14}{text}" for label, text in columns if text)
