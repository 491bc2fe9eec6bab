"""Counting the bytes that are alive while torch's operators run."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module


class Alive:
    """Counts the bytes of all storages made while counting; those of the model itself are left out."""

    def __init__(self, model: Module) -> None:
        self.bytes = self.peak = 0
        self.owned = [part.untyped_storage() for part in (*model.parameters(), *model.buffers())]
        self.known = {storage._cdata: 0 for storage in self.owned}

    def take_peak(self) -> int:
        """The most bytes alive since the last call."""
        peak, self.peak = self.peak, self.bytes
        return peak

    def counting(self) -> Any:
        """A context in which the results of every operator are counted."""
        # torch demands a subclass, and is imported only once something is counted.
        from torch.utils._python_dispatch import TorchDispatchMode
        from torch.utils._pytree import tree_leaves

        alive = self

        class Counting(TorchDispatchMode):
            def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                result = op(*args, **(kwargs or {}))
                for part in tree_leaves(result):
                    if hasattr(part, "untyped_storage"):
                        alive._add(part.untyped_storage())
                return result

        return Counting()

    def _add(self, storage: Any) -> None:
        key = storage._cdata
        if key in self.known:
            return
        self.known[key] = storage.nbytes()
        self.bytes += self.known[key]
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.bytes -= self.known.pop(key)
