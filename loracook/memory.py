"""How this process gives freed memory back, which decides much of the speed of training on a CPU."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE = 1 << 30
"""Bytes; no block is as large, so all are kept. What that gains and costs: benchmarks/README.md."""


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks for the next step instead of mapping new pages for each tensor.

    Does nothing where the C library is another one. Source: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, LARGE)
