"""How this process keeps and frees memory, which decides much of its speed."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE = 1 << 30
"""Bytes; no block is as large, so all are kept. What that gains and costs: benchmarks/README.md."""
KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "48", "LRU_CACHE_CAPACITY": "48"}
"""How many matrix products oneDNN and torch's bridge to it keep code and working memory for. Every new length
of a batch brings some thirty, and by default they keep 1,024: memory that grows with every step."""


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks for the next step, and oneDNN no more kernels than a step needs.

    Call it before torch is imported. Blocks are as they were where the C library is another one, and what
    the user has set stays. Source: mallopt(3), oneDNN's page on its primitive cache.
    """
    for name, most in KERNELS.items():
        os.environ.setdefault(name, most)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, LARGE)


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Have Python look for unreachable objects a hundred times less often.

    Importing torch and transformers makes a million objects that stay, and looking through them again and
    again takes a sixth of the time of a verb that does little else. Not for training, where tensors would
    wait to be freed.
    """
    before = gc.get_threshold()
    gc.set_threshold(100 * before[0], *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
