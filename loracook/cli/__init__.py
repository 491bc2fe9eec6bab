"""The command line: the only part of loracook that prints or exits."""

from importlib import import_module

import click

from loracook import __version__
from loracook.cli.endings import ending
from loracook.machine.signals import leave

COMMANDS = {
    "run": "Train a recipe's adapter, then evaluate, merge and push as it says.",
    "launch": "Print a job that runs a recipe on Slurm, SkyPilot, Kubernetes or with torchrun.",
    "sweep": "Train a recipe with many values, and find the best of them.",
    "chat": "Talk to what a run trained, beside its base model.",
    "validate": "Check recipes without running anything.",
    "preview": "Show rows as the trainer sees them, trained tokens marked.",
    "plan": "Show what a run would do, and the memory, disk and steps it takes.",
    "tune": "Measure which settings train a recipe fastest, with the same result.",
    "report": "Write a page that shows what a run did: outcome, answers, curves, cost.",
    "runs": "List runs: outcome, metrics, size on disk.",
    "repeat": "Train the first steps of a run again, and compare the losses.",
    "compare": "Say which of several runs is better, and what differs in their recipes.",
    "clean": "List what could go of runs and the cache; remove it with --yes.",
    "inspect": "Show what LoRA costs on a model, or what an adapter changed in it.",
    "doctor": "Check what this machine can run.",
    "show": "Print the effective recipe, and who set each value.",
    "explain": "Explain a key: its meaning, bounds, value and who set it.",
    "diff": "Compare the effective values of two recipes or runs.",
    "init": "Write a commented recipe to start from.",
    "migrate": "Rename other tools' keys to loracook's, comments kept.",
    "lock": "Write down the files, commits and versions that decide a result.",
    "schema": "Print the JSON Schema of recipes.",
}
"""Each command with its short help; the module of its name under loracook/cli has the function `command`."""


class Commands(click.Group):
    """Loads a command's module when it is called, so that none waits for the imports of another."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"loracook.cli.{name}").command
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="loracook", message="%(prog)s %(version)s")
def commands() -> None:
    """Train LoRA adapters from YAML recipes with Hugging Face TRL."""


def main() -> None:
    """Run the command line and exit with one of the documented codes."""
    leave(ending(lambda: commands(standalone_mode=False)))
