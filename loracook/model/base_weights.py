"""The weights of a base model by name, read from safetensors block by block and never as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.errors import LoracookError
from loracook.model.safetensors_file import dtype_in_file
from loracook.store.read_back import read_json

if TYPE_CHECKING:
    from torch import Tensor

FLOATS = ("F64", "F32", "F16", "BF16")
"""The dtypes of safetensors that hold weights as they are; anything narrower is quantized."""
BLOCK = 1 << 23
"""Numbers that are held in float64 at a time: 64 MiB."""


@dataclass(frozen=True)
class Weight:
    """A weight of the base model in its file."""

    name: str
    rows: Any
    """A slice of safetensors, which reads what it is indexed with."""
    file: Path

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""
        return tuple(self.rows.get_shape())

    @property
    def quantized(self) -> str | None:
        """What it is stored as, where its numbers are not the weight's own; else None."""
        dtype = str(self.rows.get_dtype())
        return None if dtype in FLOATS else dtype

    def outline(self) -> Tensor:
        """A tensor of its shape and dtype on the meta device; raises ValueError where torch has no such."""
        import torch

        return torch.empty(self.shape, dtype=dtype_in_file(self.rows.get_dtype()), device="meta")

    def read(self) -> Tensor:
        """All of it, out of a mapping of its own, so that no memory counts as used once it is let go."""
        from safetensors import safe_open

        with safe_open(self.file, "pt") as opened:
            tensor: Tensor = opened.get_tensor(self.name)
        return tensor

    def as_stack(self, experts: int) -> tuple[int, int, int]:
        """Its shape as a stack of so many matrices; a convolution is one with a row for each output."""
        match self.shape:
            case (stack, height, width) if experts > 1:
                return stack, height, width
        return 1, self.shape[0] if self.shape else 0, prod(self.shape[1:])

    def blocks(self, experts: int) -> Iterator[tuple[int, slice, Tensor]]:
        """Every row of it in float64: the matrix in the stack, which rows of that, and the rows."""
        stack, height, width = self.as_stack(experts)
        step = max(1, BLOCK // max(1, width))
        for number in range(stack):
            for start in range(0, height, step):
                rows = slice(start, min(start + step, height))
                block = self.rows[number, rows] if experts > 1 else self.rows[rows]
                yield number, rows, block.double().reshape(-1, width)


@dataclass(frozen=True)
class BaseWeights:
    """The weights in some safetensors files: each file, and the same open, by the names in it."""

    place: Path
    files: Mapping[str, tuple[Path, Any]]

    def __iter__(self) -> Iterator[Weight]:
        """Every weight, by the order of the files."""
        return map(self._weight, self.files)

    @property
    def bytes(self) -> int:
        """What the files take on the disk."""
        return sum(file.stat().st_size for file in {file for file, _ in self.files.values()})

    def _weight(self, name: str) -> Weight:
        file, opened = self.files[name]
        return Weight(name, opened.get_slice(name), file)

    def find(self, name: str) -> Weight | None:
        """The weight that a module's is stored as.

        Files may leave out the model's own prefix (`transformer.`), or have one that the module has not.
        """
        named = (each if each in self.files else self._prefixed.get(each) for each in _endings(name))
        found = next(filter(None, named), None)
        return self._weight(found) if found else None

    @cached_property
    def _prefixed(self) -> dict[str, str | None]:
        """The names without their prefixes, None for those that several then share."""
        endings: dict[str, str | None] = {}
        for name in self.files:
            for ending in list(_endings(name))[1:]:
                endings[ending] = None if ending in endings else name
        return endings


def open_weights(place: Path) -> BaseWeights:
    """The weights in a safetensors file, or in those of a folder; raises LoracookError for a broken one."""
    from safetensors import SafetensorError, safe_open

    files: dict[str, tuple[Path, Any]] = {}
    file: Any
    for path in _loaded_files(place):
        try:
            file = safe_open(path, "pt")
        except (OSError, SafetensorError) as error:
            raise LoracookError(f"'{path}' cannot be read: {error}; copy or download it again") from error
        files |= dict.fromkeys(file.keys(), (path, file))
    if not files:
        raise LoracookError(f"'{place}' has no weights; name a .safetensors file, or a folder with some")
    return BaseWeights(place, files)


def _loaded_files(place: Path) -> list[Path]:
    """A file, or those of a folder that transformers loads: others may hold other weights of these names."""
    found = [file for file in (place, *sorted(place.glob("*.safetensors"))) if file.is_file()]
    index = place / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if index.is_file() and place / "model.safetensors" not in found:
        try:
            names = set(read_json(index, {"weight_map": {str: str}})["weight_map"].values())
        except ValueError as error:
            raise LoracookError(f"'{index}' is no index of weights; copy or download it again") from error
    return [file for file in found if file.name in names] or found


def _endings(name: str) -> Iterator[str]:
    """A name, and what is left of it without the first parts, which hold no number of a layer."""
    yield name
    while match := re.match(r"[^.\d]+\.(?=[^.]+\.)", name):
        name = name[match.end() :]
        yield name
