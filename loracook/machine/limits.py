"""Limits of the kernel on what this process may take (setrlimit(2))."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def limit(kind: int, value: int) -> None:
    """Set a limit of this process as low as `value`, or as the one that cannot be raised."""
    most = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if most == resource.RLIM_INFINITY else min(value, most), most))


def limit_growth(size: int) -> None:
    """Make allocations fail once `size` bytes more than now are taken; on Linux, which says what is.

    A lower limit that is set already stays.
    """
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)[0]
        most = taken + size
        limit(resource.RLIMIT_AS, most if before == resource.RLIM_INFINITY else min(before, most))


@contextmanager
def growing_at_most(size: int) -> Iterator[None]:
    """Limit the growth of this process within the block."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit_growth(size)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
