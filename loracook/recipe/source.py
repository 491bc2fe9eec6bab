"""YAML text read exactly: plain data, and where every entry of it stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, NamedTuple, NoReturn

import yaml

from loracook.errors import INVISIBLE, Path, Position, Problem, RecipeError, quote
from loracook.recipe.text import JOINERS, Mark, explain, invisible, text_of
from loracook.recipe.yaml_values import resolve

DEPTH = 32
VALUES = 20_000
PROBLEMS = 100  # a text with more is no recipe with mistakes
VISIBLE = "\t\n" + JOINERS
LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class Entry(NamedTuple):
    """Where the key and the value of one entry stand; in a list both are the value's place."""

    key: Position
    value: Position


@dataclass(frozen=True)
class Source:
    """One recipe file as plain data, with the place of every entry in it."""

    file: str
    data: Any
    positions: dict[Path, Entry]


def read(file: str | FilePath) -> Source:
    """The recipe in a file; raises RecipeError with every problem of its text."""
    return parse(text_of(str(file)), str(file))


def parse(text: str, file: str) -> Source:
    """The recipe in a text; raises RecipeError with every problem of the text."""
    text = text.removeprefix("\ufeff")
    reader = _Reader(file, list(invisible(text, file)))
    data = None if reader.problems else reader.document(text)
    if reader.problems:
        raise RecipeError(reader.problems)
    return Source(file, data, reader.positions)


class _TooMuchError(Exception):
    """Reading stops here."""


@dataclass
class _Reader:
    """Builds data from the parser's events; lives for one text."""

    file: str
    problems: list[Problem]
    positions: dict[Path, Entry] = field(default_factory=dict)
    events: Iterator[Any] = field(default_factory=lambda: iter(()))

    def document(self, text: str) -> Any:
        """The data of the one document; what is wrong with it is added to the problems."""
        self.events = iter(LOADER(text).get_event, None)
        try:
            return self._document()
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            message, mark = explain(error)
            self._add((), message, self._place(mark, mark))
        except _TooMuchError:
            pass
        return None

    def _document(self) -> Any:
        next(self.events)
        start = next(self.events)
        if isinstance(start, yaml.StreamEndEvent):
            self._stop(
                (), "the recipe is empty; write 'version: 1' and its sections", Position(self.file, 1, 1, 2)
            )
        if start.version or start.tags:
            self._add(
                (), "lines that start with '%' are not read; remove this one", Position(self.file, 1, 1, 2)
            )
        event = next(self.events)
        self.positions[()] = Entry(*[self._of(event)] * 2)
        data = self._value(event, ())
        next(self.events)
        after = next(self.events)
        if isinstance(after, yaml.DocumentStartEvent):
            self._add((), "a second document starts here; write one recipe in a file", self._of(after))
        return data

    def _value(self, event: Any, path: Path) -> Any:
        if isinstance(event, yaml.AliasEvent):
            self._add(path, "aliases are not read; write the value out", self._of(event))
            return None
        self._refuse_tags(event, path)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if len(path) >= DEPTH:
            self._stop(path, f"more than {DEPTH} levels deep; write it flatter", self._of(event))
        return self._mapping(path) if isinstance(event, yaml.MappingStartEvent) else self._list(path)

    def _refuse_tags(self, event: Any, path: Path) -> None:
        if event.anchor is not None:
            self._add(path, "anchors are not read; write the value out where it is used", self._of(event))
        if event.tag is not None:
            self._add(
                path, "tags are not read; write the plain value, in quotes when it is text", self._of(event)
            )

    def _scalar(self, event: Any, path: Path) -> Any:
        if not event.value.isprintable():
            self._refuse_invisible(event, path)
        return event.value if event.style else resolve(event.value)

    def _refuse_invisible(self, event: Any, path: Path) -> None:
        found = next((one[0] for one in INVISIBLE.finditer(event.value) if one[0] not in VISIBLE), None)
        if found:
            self._add(path, f"the character {quote(found)} cannot be in a recipe; remove it", self._of(event))

    def _list(self, path: Path) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            place = self._of(event)
            values.append(self._entry(event, (*path, len(values)), Entry(place, place)))
        return values

    def _mapping(self, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            name = self._key(key, path)
            event = next(self.events)
            entry = Entry(self._of(key), self._of(event))
            if name in values:
                self._refuse_twice((*path, name), entry.key)
            values[name] = self._entry(event, (*path, name), entry)
        return values

    def _key(self, event: Any, path: Path) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            message = "a key must be plain text; put text that starts like this in quotes"
            self._stop(path, message, self._of(event))
        if not event.style and event.value == "<<":
            self._add(
                path, "merge keys are not read; write the entries out, or use 'extends'", self._of(event)
            )
        if not event.value:
            self._add(path, "this key is empty; write its name before the ':'", self._of(event))
        self._refuse_tags(event, path)
        self._scalar(event, path)
        return str(event.value)

    def _refuse_twice(self, path: Path, place: Position) -> None:
        first = self.positions[path].key.line
        self._add(path, f"this key is given twice, first in line {first}; remove one", place)

    def _entry(self, event: Any, path: Path, entry: Entry) -> Any:
        if len(self.positions) > VALUES:
            self._stop((), f"more than {VALUES} values; write a smaller recipe", entry.key)
        self.positions.setdefault(path, entry)
        return self._value(event, path)

    def _of(self, event: Any) -> Position:
        return self._place(event.start_mark, event.end_mark)

    def _place(self, start: Mark | None, end: Mark | None) -> Position:
        if start is None or end is None:
            return Position(self.file, 1, 1, 2)
        column = start.column + 1
        until = end.column + 1 if end.line == start.line else column
        return Position(self.file, start.line + 1, column, max(until, column + 1))

    def _add(self, path: Path, message: str, place: Position) -> None:
        self.problems.append(Problem(path, message, "yaml", position=place))
        if len(self.problems) == PROBLEMS:
            raise _TooMuchError

    def _stop(self, path: Path, message: str, place: Position) -> NoReturn:
        self._add(path, message, place)
        raise _TooMuchError
