"""Layers of a recipe merged: its files, then the command line; each value knows which one set it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from loracook.errors import Path, Problem, RecipeError
from loracook.recipe.source import Entry

Kind = Literal["recipe", "set", "loracook", "start_from"]


@dataclass(frozen=True)
class Layer:
    """The values that one file or one `--set` writes, and where."""

    kind: Kind
    path: Path  # where in the recipe the data goes; the top for a file
    data: Any
    positions: dict[Path, Entry]
    extended_by: str = ""

    @property
    def file(self) -> str:
        """The file that this layer was read from."""
        return self.positions[()].key.file

    def entry(self, path: Path) -> Entry | None:
        """Where this layer writes the value at `path`, None where it does not."""
        return self.positions.get(path)

    def value(self, path: Path) -> Any:
        """The value that this layer writes at a path."""
        value = self.data
        for name in path[len(self.path) :]:
            value = value[name]
        return value

    def removes(self, path: Path) -> bool:
        """Whether this layer writes null at `path`."""
        return path in self.positions and self.value(path) is None

    def replaces(self, path: Path) -> bool:
        """Whether this layer writes something above `path` that replaces all that is below it.

        A file's mapping does not: it is merged.
        """
        if path[: len(self.path)] != self.path:
            return False
        value = self.data
        for length in range(len(self.path), len(path)):
            if not isinstance(value, dict):
                return True
            if path[length] not in value:
                return self.kind == "set"
            value = value[path[length]]
        return False


def merged(layers: Sequence[Layer]) -> Any:
    """The data of all layers, the first winning.

    A file's mappings merge into those of its parent, everything else replaces, and null removes.
    Raises RecipeError when a `--set` names an entry that a list does not have.
    """
    data = layers[-1].data
    for layer in reversed(layers[:-1]):
        try:
            set_ = layer.kind == "set"
            data = with_value(data, layer.path, layer.data) if set_ else _merged_value(data, layer.data)
        except IndexError as error:
            position = layer.positions[layer.path].key
            raise RecipeError([Problem(layer.path, str(error), "set", position=position)]) from error
    return data


def deciding(layers: Iterable[Layer], path: Path) -> tuple[Layer, Entry] | None:
    """The layer that set the value at `path` and where, None when none of them did."""
    for layer in layers:
        entry = layer.entry(path)
        if entry:
            return layer, entry
        if layer.replaces(path):
            return None
    return None


def changing(layers: Iterable[Layer], path: Path) -> tuple[Layer, Entry] | None:
    """The `--set` that changed one entry of the list at `path`, None when none did."""
    for layer in layers:
        if layer.entry(path):
            return None
        if layer.path[: len(path)] == path and isinstance(layer.path[len(path)], int):
            return layer, layer.positions[layer.path]
    return None


def passing_through(layers: Iterable[Layer], path: Path) -> Entry | None:
    """The `--set` that writes below `path`, a section that no file has; None when there is none."""
    sets = (layer for layer in layers if path and layer.path[: len(path)] == path)
    return next((layer.positions[layer.path] for layer in sets), None)


def with_value(below: Any, path: Path, above: Any) -> Any:
    """The data with the value at `path` replaced, where null removes; raises IndexError as `merged` says."""
    if not path:
        return above
    if isinstance(path[0], int):
        return _with_entry(below, path, above)
    within = below if isinstance(below, dict) else {}
    value = with_value(within.get(path[0]), path[1:], above)
    if value is None and path[0] in within:
        return {name: entry for name, entry in within.items() if name != path[0]}
    return within | {path[0]: value}


def _with_entry(below: Any, path: Path, above: Any) -> list[Any]:
    index = int(path[0])
    if not isinstance(below, list):
        raise IndexError("not a list; set the whole list, as in 'key=[a, b]'")
    if index >= len(below):
        raise IndexError(f"list index {index} is out of range; use an index below {len(below)}")
    return [*below[:index], with_value(below[index], path[1:], above), *below[index + 1 :]]


def _merged_value(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    result = {name: value for name, value in below.items() if above.get(name, below) is not None}
    for name, value in above.items():
        if name in result or name not in below:
            result[name] = _merged_value(result.get(name), value)
    return result
