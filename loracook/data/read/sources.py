"""Sources: where the rows of a recipe come from, and reading them one at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.data.read import detect as guess
from loracook.data.read import files as reading
from loracook.data.read import hub, oasst
from loracook.data.read.formats import Shape
from loracook.data.read.rows import Record
from loracook.errors import Path as Entry
from loracook.errors import RecipeError
from loracook.recipe.locations import BUILDERS, builder, is_local
from loracook.store.package_files import SCHEME, shipped_file

if TYPE_CHECKING:
    from loracook.recipe.recipe import Recipe

LOOKED_AT = 100
"""How many records settle the format; the first of them may be a bad row."""
PLACE = ("path", "name", "split", "data_files", "revision")


@dataclass(frozen=True)
class Source:
    """One place that rows come from: what the recipe says of it, and where each key stands."""

    recipe: Recipe
    at: Entry
    entry: Mapping[str, Any]
    also: Entry = ()

    @property
    def local(self) -> bool:
        """Whether the rows lie on this machine, which the spelling of the path alone decides."""
        return is_local(self.entry)

    def fail(self, key: str, message: str) -> RecipeError:
        """The error that points at a key of this source, or at its entry where the key is not written."""
        for at in (self.at, self.also):
            if at and self.recipe.origin((*at, key)).kind != "loracook":
                return RecipeError([self.recipe.problem((*at, key), message)])
        return RecipeError([self.recipe.problem(self.at, message)])

    @property
    def asked(self) -> dict[str, Any]:
        """The entry with what the whole data set decides: whether it is streamed."""
        return {**self.entry, "streaming": self.recipe["dataset"].get("streaming", False)}

    @cached_property
    def shape(self) -> Shape:
        """How the rows are read, `auto` settled by the first one."""
        return replace(self._asked, format=self.guess()[0]) if self._asked.format == "auto" else self._asked

    def guess(self) -> tuple[str, str]:
        """The format that the first row is in, and why."""
        try:
            return guess.guess(self._first, self._asked)
        except guess.FormatError as error:
            raise self.fail(error.key, str(error)) from error

    def check(self) -> None:
        """Raise RecipeError when the columns are not those that the recipe and the format name."""
        try:
            guess.check(self._first, self.shape)
        except guess.FormatError as error:
            raise self.fail(error.key, str(error)) from error

    def records(self) -> Iterator[Record]:
        """Every record; flat OpenAssistant messages come put together to trees. Raises RecipeError."""
        return oasst.roots(self._read()) if self.shape.format == "oasst" else self._read()

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The local files that hold the rows, sorted; none for the hub's. Raises RecipeError."""
        if not self.local:
            return ()
        if str(self.entry["path"]).startswith(SCHEME):
            return (self._shipped(),)
        self._refuse_splits()
        return tuple(sorted({path for text in self._texts() for path in self._found(text)}))

    def name(self, path: Path) -> str:
        """What a file is called: its path from the recipe's folder, its own name where it lies elsewhere."""
        root = self.recipe.root.resolve()
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name

    @cached_property
    def _asked(self) -> Shape:
        entry = self.entry
        return Shape(
            format=entry.get("format", "auto"),
            columns=entry.get("columns", {}),
            roles=entry.get("map_roles", {}),
            where=entry.get("where", {}),
            template=self.recipe["template"],
            best=entry.get("threads") == "best",
        )

    @cached_property
    def _first(self) -> dict[str, Any]:
        """The columns of the first record that fits the recipe, of the first one where none does."""
        sound = (record.columns for record in self._read() if not record.fault)
        readable = list(itertools.islice(sound, LOOKED_AT))
        if not readable:
            why = "".join(f"; {bad.place}: {bad.fault}" for bad in itertools.islice(self._read(), 1))
            raise self.fail("path", f"there are no rows that can be read{why}")
        return next((columns for columns in readable if guess.fits(columns, self._asked)), readable[0])

    def _read(self) -> Iterator[Record]:
        if not self.local:
            yield from hub.records(self.asked, self.fail)
            return
        try:
            for path in self.files:
                yield from reading.records(path, self.name(path), BUILDERS.get(builder(self.entry) or ""))
        except reading.FileError as error:
            raise self.fail("path", str(error)) from error

    def _shipped(self) -> Path:
        try:
            return shipped_file(str(self.entry["path"]))
        except FileNotFoundError as error:
            raise self.fail("path", str(error)) from error

    def _refuse_splits(self) -> None:
        if self.entry.get("split", "train") != "train":
            raise self.fail("split", "local files have no splits; name the file in path or data_files")

    def _texts(self) -> list[str]:
        path, inside = str(self.entry["path"]), self.entry.get("data_files", [])
        names = [inside] if isinstance(inside, str) else inside
        folder = "" if builder(self.entry) else path.rstrip("/") + "/"
        return [folder + name for name in names] or [path]

    def _found(self, text: str) -> Iterator[Path]:
        """The files that one path, folder or pattern names, each inside the recipe's folder."""
        key = "data_files" if "data_files" in self.entry else "path"
        found = self._resolved(text, key)
        root = self.recipe.root.resolve()
        matching = (
            [found] if found.exists() else [path for path in root.glob(text) if not _hidden(path, root)]
        )
        files = [file for path in matching for file in (_inside(path) if path.is_dir() else [path])]
        if not files:
            raise self.fail(key, f"there is no data file '{text}'")
        for file in files:
            yield self._resolved(str(file), key)

    def _resolved(self, text: str, key: str) -> Path:
        try:
            return self.recipe.resolve(text)
        except RecipeError as error:
            raise self.fail(key, error.problems[0].message) from error


def training(recipe: Recipe) -> list[Source]:
    """The sources of the training rows, in the order of the recipe."""
    dataset = recipe["dataset"]
    if "sources" not in dataset:
        return [Source(recipe, ("dataset",), dataset)]
    return [Source(recipe, ("dataset", "sources", i), entry) for i, entry in enumerate(dataset["sources"])]


def evaluation(recipe: Recipe) -> Source | None:
    """The source of the evaluation rows where they have one of their own, else None."""
    dataset = recipe["dataset"]
    wanted = {key: value for key, value in dataset.get("eval", {}).items() if key in PLACE}
    if not wanted:
        return None
    shape = dataset if "sources" not in dataset else dataset["sources"][0]
    kept = {key: value for key, value in shape.items() if key not in ("eval", "rows", "weight")}
    if "path" in wanted or "data_files" in wanted:
        kept = {key: value for key, value in kept.items() if key not in PLACE or key == "path"}
        kept["split"] = "train"
    limit = {"rows": dataset["eval"]["rows"]} if "rows" in dataset["eval"] else {}
    return Source(recipe, ("dataset", "eval"), kept | wanted | limit, also=("dataset",))


def _inside(folder: Path) -> list[Path]:
    """The data files of a folder and the folders in it, hidden ones left aside."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return [file for file in files if reading.kind(file) in reading.READERS and not _hidden(file, folder)]


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)
