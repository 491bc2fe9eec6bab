"""The command line: the only part of loracook that prints or exits."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from loracook import __version__
from loracook.cli.endings import ending

COMMANDS = {
    "run": "Run a recipe: train, then what else it has a section for.",
    "validate": "Check recipes without running anything.",
    "preview": "Show rows as the trainer will see them.",
    "plan": "Say what a run would do, and what it takes.",
    "inspect": "Show a model's modules, and what an adapter on them costs.",
    "doctor": "Say what this machine can and cannot do for recipes.",
    "show": "Print the effective recipe, and who decided each value.",
    "explain": "Say what a key means and who decided its value.",
    "diff": "Compare two recipes in meaning.",
    "init": "Write a commented recipe to start from.",
    "migrate": "Rewrite other tools' spellings as ours, comments kept.",
    "schema": "Print the schema of recipes, as JSON.",
}
"""Each verb with its short help; the module of the same name under loracook/cli has the command `command`."""


class Verbs(click.Group):
    """Loads a verb's module when it is called, so that no verb waits for the imports of another."""

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


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="loracook", message="%(prog)s %(version)s")
def verbs() -> None:
    """Cook LoRA adapters from YAML recipes with Hugging Face TRL."""


def main() -> None:
    """Run the command line and exit with the codes that README lists."""
    sys.exit(ending(lambda: verbs(standalone_mode=False)))
