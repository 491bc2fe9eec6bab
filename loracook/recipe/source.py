"""YAML text read exactly: plain data, and the position of every entry in it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, NamedTuple, NoReturn

import yaml

from loracook.errors import INVISIBLE, Path, Position, Problem, RecipeError, quote
from loracook.recipe import text as texts
from loracook.recipe.text import JOINERS, Mark, invisible_characters, plain_words, text_of
from loracook.recipe.yaml_values import resolve

DEPTH = 32
VALUES = 20_000
PROBLEMS = 100  # a text with more is not a recipe with mistakes
ALLOWED = "\t\n" + JOINERS
LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class Entry(NamedTuple):
    """The positions of an entry's key and value; those of a list entry are the same."""

    key: Position
    value: Position


@dataclass(frozen=True)
class Source:
    """One recipe file as plain data, with the position of every entry in it."""

    file: str
    data: Any
    positions: dict[Path, Entry]


def read(file: str | FilePath) -> Source:
    """The recipe in a file; raises RecipeError with every problem of its text."""
    return parse(text_of(str(file)), str(file))


def parse(text: str, file: str) -> Source:
    """The recipe in a text; raises RecipeError with every problem of the text."""
    text = text.removeprefix("\ufeff")
    reader = _Reader(file, list(invisible_characters(text, file)))
    data = None if reader.problems else reader.document(text)
    if reader.problems:
        raise RecipeError(reader.problems)
    return Source(file, data, reader.positions)


class _StopReadingError(Exception):
    """Nothing after this place can be read."""


@dataclass
class _Reader:
    """Builds data from the parser's events; lives for one text."""

    file: str
    problems: list[Problem]
    positions: dict[Path, Entry] = field(default_factory=dict)
    events: Iterator[Any] = field(default_factory=lambda: iter(()))

    def document(self, text: str) -> Any:
        """The data of the only document; adds what is wrong with it to the problems."""
        self.events = iter(LOADER(text).get_event, None)
        try:
            return self._document()
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            message, mark = plain_words(error)
            self._add((), message, self._between(mark, mark))
        except _StopReadingError:
            pass
        return None

    def _document(self) -> Any:
        next(self.events)
        start = next(self.events)
        first_line = Position(self.file, 1, 1, 2)
        if isinstance(start, yaml.StreamEndEvent):
            self._stop((), "the recipe is empty; start it with 'version: 1'", first_line)
        if start.version or start.tags:
            self._add((), texts.DIRECTIVE, first_line)
        event = next(self.events)
        self.positions[()] = Entry(*[self._position(event)] * 2)
        data = self._value(event, ())
        next(self.events)
        after = next(self.events)
        if isinstance(after, yaml.DocumentStartEvent):
            message = "a second YAML document starts here; put each recipe in its own file"
            self._add((), message, self._position(after))
        return data

    def _value(self, event: Any, path: Path) -> Any:
        if isinstance(event, yaml.AliasEvent):
            self._add(path, texts.ALIAS, self._position(event))
            return None
        self._refuse_tags(event, path)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if len(path) >= DEPTH:
            self._stop(path, f"nested more than {DEPTH} levels deep; flatten it", self._position(event))
        return self._mapping(path) if isinstance(event, yaml.MappingStartEvent) else self._list(path)

    def _refuse_tags(self, event: Any, path: Path) -> None:
        if event.anchor is not None:
            self._add(path, texts.ANCHOR, self._position(event))
        if event.tag is not None:
            self._add(path, texts.TAG, self._position(event))

    def _scalar(self, event: Any, path: Path) -> Any:
        if not event.value.isprintable():
            self._refuse_invisible(event, path)
        return event.value if event.style else resolve(event.value)

    def _refuse_invisible(self, event: Any, path: Path) -> None:
        matches = INVISIBLE.finditer(event.value)
        character = next((match[0] for match in matches if match[0] not in ALLOWED), None)
        if character:
            message = f"the character {quote(character)} is not allowed in a recipe; remove it"
            self._add(path, message, self._position(event))

    def _list(self, path: Path) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            position = self._position(event)
            values.append(self._entry(event, (*path, len(values)), Entry(position, position)))
        return values

    def _mapping(self, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            name = self._key(key, path)
            event = next(self.events)
            entry = Entry(self._position(key), self._position(event))
            if name in values:
                self._refuse_duplicate((*path, name), entry.key)
            values[name] = self._entry(event, (*path, name), entry)
        return values

    def _key(self, event: Any, path: Path) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            message = "a key must be a string; quote a key that starts with a bracket"
            self._stop(path, message, self._position(event))
        if not event.style and event.value == "<<":
            message = "YAML merge keys are not supported; write the entries out, or use 'extends'"
            self._add(path, message, self._position(event))
        if not event.value:
            self._add(path, "empty key; write its name before the ':'", self._position(event))
        self._refuse_tags(event, path)
        self._scalar(event, path)
        return str(event.value)

    def _refuse_duplicate(self, path: Path, position: Position) -> None:
        first = self.positions[path].key.line
        self._add(path, f"duplicate key, first used on line {first}; remove one of the two", position)

    def _entry(self, event: Any, path: Path, entry: Entry) -> Any:
        if len(self.positions) > VALUES:
            self._stop((), f"more than {VALUES} values; shorten the recipe", entry.key)
        self.positions.setdefault(path, entry)
        return self._value(event, path)

    def _position(self, event: Any) -> Position:
        return self._between(event.start_mark, event.end_mark)

    def _between(self, start: Mark | None, end: Mark | None) -> Position:
        if start is None or end is None:
            return Position(self.file, 1, 1, 2)
        column = start.column + 1
        until = end.column + 1 if end.line == start.line else column
        return Position(self.file, start.line + 1, column, max(until, column + 1))

    def _add(self, path: Path, message: str, position: Position) -> None:
        self.problems.append(Problem(path, message, "yaml", position=position))
        if len(self.problems) == PROBLEMS:
            raise _StopReadingError

    def _stop(self, path: Path, message: str, position: Position) -> NoReturn:
        self._add(path, message, position)
        raise _StopReadingError
