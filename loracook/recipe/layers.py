"""Recipes laid over one another: files, then the command line; each value knows which one decided it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from loracook.errors import Path, Problem, RecipeError
from loracook.recipe.source import Entry

Kind = Literal["recipe", "set", "loracook"]


@dataclass(frozen=True)
class Layer:
    """What one file or one `--set` says, and where it says it."""

    kind: Kind
    path: Path  # where in the recipe the data goes; a file's goes to the top
    data: Any
    positions: dict[Path, Entry]
    by: str = ""  # the recipe that extends this one

    @property
    def file(self) -> str:
        """The file that this layer is read from."""
        return self.positions[()].key.file

    def says(self, path: Path) -> Entry | None:
        """Where this layer says something of `path` itself."""
        return self.positions.get(path)

    def value(self, path: Path) -> Any:
        """What this layer itself says at a path that it says something of."""
        found = self.data
        for name in path[len(self.path) :]:
            found = found[name]
        return found

    def removes(self, path: Path) -> bool:
        """Whether this layer says null at a path that it says something of itself."""
        return path in self.positions and self.value(path) is None

    def replaces(self, path: Path) -> bool:
        """Whether this layer decided of a list or a scalar on the way to `path`, and with it of `path`."""
        value = self.data
        for length in range(len(self.path), len(path)):
            if path[:length] in self.positions and not isinstance(value, dict):
                return True
            if not isinstance(value, dict) or path[length] not in value:
                return False
            value = value[path[length]]
        return False


def merged(layers: Sequence[Layer]) -> Any:
    """What the layers say together, the first deciding; mappings merge, null removes, the rest replaces.

    Raises RecipeError when a `--set` names an entry that a list does not have.
    """
    data = layers[-1].data
    for layer in reversed(layers[:-1]):
        try:
            data = _placed(data, layer.path, layer.data)
        except IndexError as error:
            place = layer.positions[layer.path].key
            raise RecipeError([Problem(layer.path, str(error), "set", position=place)]) from error
    return data


def deciding(layers: Iterable[Layer], path: Path) -> tuple[Layer, Entry] | None:
    """The layer that decided what stands at `path` and where; None when none of them did."""
    for layer in layers:
        entry = layer.says(path)
        if entry:
            return layer, entry
        if layer.replaces(path):
            return None
    return None


def changing(layers: Iterable[Layer], path: Path) -> tuple[Layer, Entry] | None:
    """The `--set` that changed one entry of the list at `path` after it was decided, None when none did."""
    for layer in layers:
        if layer.says(path):
            return None
        if layer.path[: len(path)] == path and isinstance(layer.path[len(path)], int):
            return layer, layer.positions[layer.path]
    return None


def leading_through(layers: Iterable[Layer], path: Path) -> Entry | None:
    """The entry of the `--set` that goes through a section nobody wrote, None when none does."""
    found = (layer for layer in layers if path and layer.path[: len(path)] == path)
    return next((layer.positions[layer.path] for layer in found), None)


def _placed(below: Any, path: Path, above: Any) -> Any:
    if not path:
        return _laid_over(below, above)
    if isinstance(path[0], int):
        return _placed_in_list(below, path[0], path[1:], above)
    within = below if isinstance(below, dict) else {}
    value = _placed(within.get(path[0]), path[1:], above)
    if value is None and path[0] in within:
        return {name: entry for name, entry in within.items() if name != path[0]}
    return within | {path[0]: value}


def _placed_in_list(below: Any, index: int, path: Path, above: Any) -> list[Any]:
    if not isinstance(below, list):
        raise IndexError("there is no list here to change an entry of; write the whole list in brackets")
    if index >= len(below):
        raise IndexError(f"there are {len(below)} entries here; write a number below {len(below)}")
    return [*below[:index], _placed(below[index], path, above), *below[index + 1 :]]


def _laid_over(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    result = {name: value for name, value in below.items() if above.get(name, below) is not None}
    for name, value in above.items():
        if name in result or name not in below:
            result[name] = _laid_over(result.get(name), value)
    return result
