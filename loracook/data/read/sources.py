"""Sources: where the rows of a recipe come from, and their records one at a time."""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from loracook.data.read import detect, files, formats, hub, oasst
from loracook.data.read.formats import ReadOptions
from loracook.data.read.rows import EVERY, MAX_CHARACTERS, Record, bounded, characters, json_fault
from loracook.data.read.text_files import FileError
from loracook.errors import Path as Entry
from loracook.errors import RecipeError
from loracook.recipe.derived import OWN_ROWS, sources
from loracook.recipe.locations import BUILDERS, is_local, patterns
from loracook.recipe.reach import split_pattern
from loracook.recipe.recipe import Recipe
from loracook.store.folders import SCHEME, shipped_file

Admit = Callable[[str], Path]
"""Gives the file at a path, links followed, where the recipe may read it."""
MOST_RECURSIONS = 2
"""How often a pattern may descend into all folders; each time multiplies the places to look at."""
DETECTION_SAMPLE = 100
"""How many records the format is detected from; the first one may be bad."""


@dataclass(frozen=True)
class Source:
    """One source of rows: its entry in the recipe, at path `at`; keys inherited from `also`."""

    recipe: Recipe
    at: Entry
    entry: Mapping[str, Any]
    also: Entry = ()

    @property
    def local(self) -> bool:
        """Whether the rows are on this machine, which the spelling of the path alone decides."""
        return is_local(self.entry)

    def fail(self, key: str | tuple[str, ...], message: str) -> RecipeError:
        """The error that points at a key of this source, or at its whole entry if the key is not written."""
        keys = (key,) if isinstance(key, str) else key
        places = ((*at, *keys) for at in (self.at, self.also) if at)
        written = (place for place in places if self.recipe.origin(place).kind != "loracook")
        return RecipeError([self.recipe.problem(next(written, self.at), message)])

    @property
    def hub_entry(self) -> dict[str, Any]:
        """The entry together with `streaming`, which is a key of the whole dataset."""
        return {**self.entry, "streaming": self.recipe["dataset"].get("streaming", False)}

    @cached_property
    def options(self) -> ReadOptions:
        """How the rows are read, with format `auto` resolved."""
        options = self._written_options
        return replace(options, format=self.detect()[0]) if options.format == "auto" else options

    def detect(self) -> tuple[str, str]:
        """The format of the first fitting record, and why; raises RecipeError."""
        try:
            return detect.detect(self._first, self._written_options)
        except detect.FormatError as error:
            raise self.fail(error.key, str(error)) from error

    def check_columns(self) -> None:
        """Raise RecipeError if columns that the recipe or the format requires are missing."""
        try:
            detect.check_columns(self._first, self.options)
        except detect.FormatError as error:
            raise self.fail(error.key, str(error)) from error

    @cached_property
    def columns_read(self) -> frozenset[str]:
        """The columns that are read."""
        return formats.columns_read(self.options)

    def records(self, wanted: Iterator[bool] = EVERY) -> Iterator[Record]:
        """The wanted records; flat OpenAssistant messages are assembled into trees. Raises RecipeError."""
        if self.options.format == "oasst":
            return itertools.compress(oasst.trees(self._read()), wanted)
        return self._read(wanted)

    def head(self, count: int) -> list[Record]:
        """The readable ones of the first records; those of the hub are streamed. Raises RecipeError.

        Fewer than `count` where they are long.
        """
        streamed = {**self.entry, "streaming": True}
        records, read, held = self._read() if self.local else hub.records(streamed, self.fail), [], 0
        for record in itertools.islice(records, count):
            if not record.fault:
                read.append(record)
                held += characters(record.columns)
            if held > MAX_CHARACTERS:
                break
        return read

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The local files with the rows, sorted; none for a Hub dataset. Raises RecipeError."""
        if not self.local:
            return ()
        if str(self.entry["path"]).startswith(SCHEME):
            try:
                return (shipped_file(self.entry["path"]),)
            except FileNotFoundError as error:
                raise self.fail("path", str(error)) from error
        return tuple(sorted({path for pattern in patterns(self.entry) for path in self._matches(pattern)}))

    def name(self, path: Path) -> str:
        """A file's name in messages: relative to the recipe, or its own name outside of the repository."""
        reach = self.recipe.reach
        return os.path.relpath(path, reach.folder.resolve()) if path.is_relative_to(reach.root) else path.name

    @cached_property
    def _written_options(self) -> ReadOptions:
        entry = self.entry
        return ReadOptions(
            format=entry["format"],
            columns=entry.get("columns", {}),
            roles=entry.get("map_roles", {}),
            where=entry.get("where", {}),
            template=self.recipe["template"],
            best=entry["threads"] == "best",
        )

    @cached_property
    def _first(self) -> dict[str, Any]:
        """The columns of the first record that fits the recipe, or of the first one if none does."""
        columns = (record.columns for record in self._read() if not record.fault)
        readable = itertools.islice(columns, DETECTION_SAMPLE)
        first = next(readable, None)
        if first is None:
            why = "".join(f"; {bad.place}: {bad.fault}" for bad in itertools.islice(self._read(), 1))
            raise self.fail("path", f"no readable rows{why}")
        tried = itertools.chain([first], readable)
        return next((row for row in tried if detect.fits(row, self._written_options)), first)

    def _read(self, wanted: Iterator[bool] = EVERY) -> Iterator[Record]:
        if not self.local:
            yield from map(bounded, hub.records(self.hub_entry, self.fail, wanted))
            return
        try:
            for path in self.files:
                name, builder = self.name(path), BUILDERS.get(self.entry["path"])
                yield from map(bounded, files.records(path, name, builder, wanted=wanted))
        except FileError as error:
            raise self.fail("path", str(error)) from error

    def _matches(self, pattern: str) -> Iterator[Path]:
        """The files that a path, folder or glob pattern names, each where the recipe may read."""
        key = "data_files" if "data_files" in self.entry else "path"
        admit = partial(self._resolve, key=key)
        there = admit(pattern).exists()
        paths = [self.recipe.reach.folder / pattern] if there else self._globbed(pattern, key)
        matches = [file for each in paths for file in (_data_files(each, admit) if each.is_dir() else [each])]
        if not matches:
            raise self.fail(key, f"no data file matches '{pattern}'")
        for file in matches:
            real = admit(str(file.absolute()))
            if not _is_text(file.name):
                raise self.fail(key, f"the name of '{self.name(file)}' is not UTF-8; rename it")
            if not real.is_file():  # reading a pipe or device may never end
                raise self.fail(key, f"'{self.name(file)}' is not a regular file; name a file or folder")
            # the hub's cache links to blobs without a suffix
            yield real if real.suffix else file

    def _globbed(self, pattern: str, key: str) -> list[Path]:
        """What a glob pattern matches below the folder it starts with, without hidden files."""
        admit = partial(self._resolve, key=key)
        start, rest = split_pattern(pattern, self.recipe.reach.folder)
        if rest.split("/").count("**") > MOST_RECURSIONS:
            raise self.fail(key, f"'{pattern}' has '**' more than {MOST_RECURSIONS} times; one is enough")
        if ".." in rest.split("/"):
            raise self.fail(key, f"'{pattern}' has '..' behind a wildcard; write it before")
        folder = admit(start)
        try:
            return [each for each in _glob(folder, rest, admit) if not _hidden(each, folder)] if rest else []
        except ValueError as error:
            raise self.fail(key, f"'{pattern}' is not a pattern; '**' stands between slashes") from error

    def _resolve(self, path: str, key: str) -> Path:
        try:
            return self.recipe.resolve(path)
        except RecipeError as error:
            raise self.fail(key, error.problems[0].message) from error


def training(recipe: Recipe) -> list[Source]:
    """The training sources, in the order of the recipe."""
    return [Source(recipe, at, entry) for at, entry in sources(dict(recipe.sections))]


def evaluation(recipe: Recipe) -> Source | None:
    """The evaluation source, or None if evaluation rows are held out of the training rows."""
    dataset = recipe["dataset"]
    location = {key: value for key, value in dataset.get("eval", {}).items() if key in OWN_ROWS}
    if not location:
        return None
    own = {"eval", "rows", "weight"}
    if "path" in location or "data_files" in location:
        own |= set(OWN_ROWS) - {"path"}
    first = training(recipe)[0].entry
    inherited = {"split": "train"} | {key: value for key, value in first.items() if key not in own}
    limit = {"rows": dataset["eval"]["rows"]} if "rows" in dataset["eval"] else {}
    return Source(recipe, ("dataset", "eval"), inherited | location | limit, also=("dataset",))


def _data_files(folder: Path, admit: Admit) -> list[Path]:
    """The data files of a folder and its subfolders, without hidden ones."""
    paths = (path for each in _folders(folder, admit) for path in sorted(each.iterdir()) if path.is_file())
    return [path for path in paths if files.data_suffix(path) in files.READERS and not _hidden(path, folder)]


def _folders(folder: Path, admit: Admit) -> Iterator[Path]:
    """A folder and those below it that are not hidden, through links too, each once; none unless admitted."""
    seen: set[Path] = set()
    for path, names, _ in os.walk(folder, followlinks=True):
        real = admit(str(Path(path).absolute()))
        names[:] = [] if real in seen else [name for name in names if not name.startswith(".")]
        if real not in seen:
            seen.add(real)
            yield Path(path)


def _glob(folder: Path, pattern: str, admit: Admit) -> Iterator[Path]:
    """What a pattern matches, '**' through links too; raises ValueError for one that is not valid."""
    before, recursive, after = pattern.partition("**/")
    if not recursive or (before and not before.endswith("/")):
        yield from folder.glob(pattern)
        return
    for start in folder.glob(before) if before else [folder]:
        for each in _folders(start, admit):
            yield from _glob(each, after, admit)


def _is_text(name: str) -> bool:
    """Whether a file's name is text, and not bytes that Python keeps as surrogates."""
    return json_fault(name) == ""


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)
