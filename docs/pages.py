"""A hook of mkdocs: renders the reference from schema and commands, and runs the commands that pages show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import loracook.cli
from loracook.errors import Path as Key
from loracook.recipe.schema import Schema, all_keys, resolved, schema, types_of
from loracook.views.editor_schema import editor_schema

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples"
COMMAND_LINE = next(value for value in vars(loracook.cli).values() if isinstance(value, click.Group))
CONSOLE = re.compile(r"^```console\n\$ (?P<command>loracook .*)\n```$", re.MULTILINE)
DEFAULTS_HEAD = """\
# Defaults that loracook decides

loracook writes these values into a recipe that leaves them out, because upstream has no default or one that
silently spoils runs; `loracook show RECIPE` marks each with `# loracook`. Everything else that is left out is
upstream's own default, for the versions that `record.json` names.
"""
KEYS_HEAD = """\
# Keys of a recipe

Rendered from the schema that recipes are checked against, of which editors read a
[copy](../schemas/recipe-1.json). A section is passed whole to the call that is named below it, so upstream
documents each of its parameters. `loracook explain RECIPE KEY` prints one key with its value in your recipe.
A default in **bold** is loracook's own, any other is upstream's.

## At the top
"""
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the rendered pages, and the schema at the address of its `$id`."""
    for name, text in rendered().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what commands print."""
    return with_output(markdown)


def rendered() -> dict[str, str]:
    """The text of each rendered file by its path on the site."""
    return {
        "reference/defaults.md": defaults(),
        "reference/keys.md": keys(),
        "reference/commands.md": commands(),
        schema()["$id"].removeprefix("https://loracook.github.io/"): json.dumps(editor_schema(), indent=2),
    }


def with_output(markdown: str) -> str:
    """A page with the output of every command that is alone in a `console` block, run in docs/examples/."""
    return CONSOLE.sub(
        lambda block: f"```text\n$ {block['command']}\n{output(block['command'])}```", markdown
    )


def output(command: str) -> str:
    """What a command prints on a machine without a network."""
    with chdir(EXAMPLES):
        ran = CliRunner(env={"COLUMNS": "100"}).invoke(COMMAND_LINE, command.split()[1:])
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.output.rstrip("\n") + "\n"


def defaults() -> str:
    """The table of the values that loracook decides."""
    rows = [
        f"| [`{name}`](keys.md#{name}) | `{spelled(part['default'])}` | {_escaped(part['description'])} |"
        for name, part in ((dotted(path), part) for path, part in all_keys())
        if part.get("x-decided-by") and "properties" not in part and "[]" not in name
    ]
    return "\n".join([DEFAULTS_HEAD, "| key | default | what it is |", "|---|---|---|", *rows, ""])


def keys() -> str:
    """Every key of a recipe, by section."""
    parts = {name: resolved(part) for name, part in schema()["properties"].items()}
    top = {name: part for name, part in parts.items() if "properties" not in part}
    lines = [KEYS_HEAD, *_table([((name,), part) for name, part in top.items()])]
    for name, part in parts.items():
        if "properties" in part:
            lines += _section(name, part)
    return "\n".join(lines) + "\n"


def _section(name: str, part: Schema) -> Iterator[str]:
    yield from (f"## {name}", "", part["description"])
    yield from (f"Passed to `{part['x-upstream']}`.", "") if "x-upstream" in part else ("",)
    yield from _table([(path, inner) for path, inner in all_keys() if path[0] == name and len(path) > 1])
    if declined := part.get("x-declined"):
        yield from (f'??? note "Parameters that `{name}` does not offer"', "")
        yield from (f"    - `{parameter}`: {reason}" for parameter, reason in declined.items())
        yield ""


def _table(rows: list[tuple[Key, Schema]]) -> Iterator[str]:
    yield from ("| key | value | default | meaning |", "|---|---|---|---|")
    for path, part in rows:
        name = f'<span id="{dotted(path)}">`{dotted(path[1:] or path)}`</span>'
        passed = f" Passed to `{part['x-upstream']}`." if "x-upstream" in part else ""
        meaning = _escaped(part["description"] + passed)
        yield f"| {name} | {allowed(part)} | {default(part)} | {meaning} |"
    yield ""


def allowed(part: Schema) -> str:
    """The values that a key may have."""
    if "const" in part:
        return f"`{spelled(part['const'])}`"
    if "enum" in part:
        return ", ".join(f"`{spelled(value)}`" for value in part["enum"])
    bounds = " and ".join(f"{sign} {spelled(part[bound])}" for bound, sign in BOUNDS.items() if bound in part)
    kinds = " or ".join({"object": "mapping", "array": "list"}.get(kind, kind) for kind in types_of(part))
    return f"{kinds} {bounds}" if bounds and {"integer", "number"} & set(types_of(part)) else kinds


def default(part: Schema) -> str:
    """The default of a key, in bold where loracook decides it."""
    if "default" not in part or "properties" in part:
        return ""
    value = f"`{spelled(part['default'])}`"
    return f"**{value}**" if part.get("x-decided-by") else value


def dotted(path: Key) -> str:
    """A path as pages spell it: `train.max_steps`, `dataset.sources[].path`."""
    return ".".join(str(name) for name in path).replace(".0.", "[].")


def spelled(value: Any) -> str:
    """A value as YAML spells it, on one line."""
    return value if isinstance(value, str) else json.dumps(value)


def commands() -> str:
    """Every command with its arguments and options."""
    context = _context(COMMAND_LINE)
    lines = ["# Commands", "", COMMAND_LINE.help or "", ""]
    for name in COMMAND_LINE.list_commands(context):
        command = COMMAND_LINE.get_command(context, name)
        assert command is not None
        lines += _command(command, _context(command, name, context))
    return "\n".join(lines)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    text = re.sub(r"\s*\n\s+", "\n", command.help or "").replace("\b", "")
    yield from (f"## {context.info_name}", "", f"    {usage}", "", text, "")
    records = [option.get_help_record(context) for option in command.get_params(context)]
    yield from ("| option | effect |", "|---|---|")
    for spelling, effect in filter(None, records):
        if spelling.startswith("-"):
            yield f"| `{spelling}` | {_escaped(effect)} |"
    yield ""


def _context(command: click.Command, name: str = "loracook", parent: Any = None) -> click.Context:
    return click.Context(command, info_name=name, parent=parent, **command.context_settings)


def _escaped(text: str) -> str:
    """Text for a cell of a table, on one line, without anything that Markdown would take for its own."""
    return re.sub(r"([|\[])", r"\\\1", " ".join(text.split()).replace("<", "&lt;"))


def options() -> dict[str, set[str]]:
    """The options of each command."""
    context = _context(COMMAND_LINE)
    named = {name: COMMAND_LINE.get_command(context, name) for name in COMMAND_LINE.list_commands(context)}
    return {
        name: {
            spelling
            for parameter in command.get_params(_context(command, name, context))
            for spelling in (*parameter.opts, *parameter.secondary_opts)
            if spelling.startswith("-")
        }
        for name, command in named.items()
        if command is not None
    }
