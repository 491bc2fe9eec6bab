"""A recipe rewritten from other tools' keys to ours, its comments preserved."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from loracook.errors import MachineError, Path, Position, Problem, RecipeError, clean, dotted
from loracook.recipe.foreign_keys import Translation, translate
from loracook.recipe.schema import entries, inner_part, part_at, places
from loracook.recipe.schema_errors import check
from loracook.recipe.source import parse
from loracook.recipe.text import JOINERS
from loracook.recipe.yaml_values import flow

BOM = "\ufeff"  # some editors start a UTF-8 file with it


@dataclass(frozen=True)
class Move:
    """One entry that moves to another path, and its value there."""

    old: Path
    new: Path
    value: Any

    def __str__(self) -> str:
        return f"{dotted(self.old)} → {dotted(self.new)}: {flow(self.value)}"


class Conflict(NamedTuple):
    """A move that is not made, since there is a value at `taken` already."""

    move: Move
    taken: Path

    def __str__(self) -> str:
        old, taken = dotted(self.move.old), dotted(self.taken)
        return f"{old} is left as it is, since {taken} is set too; remove one of the two"


def moves(text: str, file: str) -> tuple[list[Move], list[Conflict]]:
    """The moves that a recipe's text needs, and those in conflict; raises RecipeError when it is not YAML."""
    data = parse(text, file).data
    return (
        _without_conflicts(data, [*_shortened(data), *_renamed(data)]) if isinstance(data, dict) else ([], [])
    )


def migrated(text: str, planned: list[Move], file: str) -> str:
    """The text with the moves made.

    Raises:
        RecipeError: ruamel.yaml cannot parse the text.
        MachineError: ruamel.yaml is not installed.
    """
    yaml = _round_trip()
    body = text.removeprefix(BOM)
    ends = "\r\n" if "\r\n" in text else "\n"
    data = _loaded(yaml, body.replace("\r\n", "\n"), file)
    for move in planned:
        _carry_out(data, move)
    written = io.StringIO()
    yaml.dump(data, written)
    return text.removesuffix(body) + _escaped(written.getvalue()).replace("\n", ends)


def _loaded(yaml: Any, text: str, file: str) -> Any:
    from ruamel.yaml.error import MarkedYAMLError

    try:
        return yaml.load(text)
    except MarkedYAMLError as error:
        line, column = error.problem_mark.line + 1, error.problem_mark.column + 1
        message = "ruamel.yaml, which preserves the comments, cannot parse this; rewrite this line"
        raise RecipeError(
            [Problem((), message, "yaml", position=Position(file, line, column, column + 1))]
        ) from error


def _escaped(text: str) -> str:
    """YAML with joiners as escapes; ruamel.yaml writes them out, which a recipe does not allow."""
    return re.sub(f"[{JOINERS}]", lambda match: clean(match[0]), text)


def _shortened(data: dict[str, Any]) -> Iterator[Move]:
    """Sections that other tools write as a single value, such as `base_model: org/name`."""
    for name, value in data.items():
        properties = (part_at((name,)) or {}).get("properties", {})
        main = next(iter(properties), None)
        if main and isinstance(value, str) and not any(check(value, properties[main], ())):
            yield Move((name,), (name, main), value)


def _renamed(data: dict[str, Any]) -> Iterator[Move]:
    for path, value in entries(data):
        section, name = part_at(path[:-1]), path[-1]
        if section is None or not isinstance(name, str) or inner_part(section, name):
            continue
        translation = translate(name, value) or _moved(name, value)
        part = part_at(translation.path) if translation else None
        if translation and part is not None and not any(check(translation.value, part, ())):
            yield Move(path, translation.path, translation.value)


def _moved(name: str, value: Any) -> Translation | None:
    """A key of ours in the wrong mapping, as in flat files of other tools; None if several have it."""
    match places(name):
        case [path] if 0 not in path:
            return Translation(path, value)
    return None


def _without_conflicts(data: dict[str, Any], planned: list[Move]) -> tuple[list[Move], list[Conflict]]:
    """The moves whose new path is free once those before are made, and the others."""
    sections = {path: isinstance(value, dict) for path, value in entries(data)}
    free: list[Move] = []
    conflicts: list[Conflict] = []
    for move in planned:
        was = sections.pop(move.old)
        taken = _taken(sections, move.new)
        if taken:
            sections[move.old] = was
            conflicts.append(Conflict(move, taken))
        else:
            sections |= dict.fromkeys(_above(move.new), True) | {move.new: isinstance(move.value, dict)}
            free.append(move)
    return free, conflicts


def _taken(sections: dict[Path, bool], path: Path) -> Path | None:
    """The path that blocks a new entry: its own, or one above that holds a value instead of a mapping."""
    blocked = (above for above in _above(path) if sections.get(above) is False)
    return path if path in sections else next(blocked, None)


def _above(path: Path) -> list[Path]:
    return [path[:length] for length in range(1, len(path))]


def _carry_out(data: Any, move: Move) -> None:
    source = _at(data, move.old[:-1])
    value = source[move.old[-1]] if move.value == source[move.old[-1]] else move.value
    comment = source.ca.items.pop(move.old[-1], None)
    position = list(source).index(move.old[-1])
    del source[move.old[-1]]
    if move.new[:-1] == move.old[:-1]:
        source.insert(position, move.new[-1], value)
        target = source
    else:
        target = _section(data, move.new[:-1], position if move.new[:1] == move.old else len(data))
        if not target:
            target.fa.set_block_style()
        target[move.new[-1]] = value
    if not source:  # ruamel.yaml would write its comment between the key and the braces
        source.fa.set_flow_style()
    if comment is not None:
        target.ca.items[move.new[-1]] = comment


def _section(data: Any, path: Path, position: int) -> Any:
    from ruamel.yaml.comments import CommentedMap

    for name in path:
        if name not in data:
            data.insert(min(position, len(data)), name, CommentedMap())
        data, position = data[name], len(data)
    return data


def _at(data: Any, path: Path) -> Any:
    for name in path:
        data = data[name]
    return data


def _round_trip() -> Any:
    try:
        from ruamel.yaml import YAML
    except ModuleNotFoundError as error:
        raise MachineError('ruamel.yaml is not installed; run: pip install "loracook[migrate]"') from error
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 1000
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml
