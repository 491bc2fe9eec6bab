"""The packages that loracook builds on: which versions are installed, and which it supports."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

INSTALL = 'run: pip install "loracook[train]"'
REQUIRED = ("torch", "transformers", "trl", "peft", "datasets")
"""Without one of these no recipe can be planned or trained; the others depend on the recipe."""
WEIGHTS = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")
"""Packages that decide the trained weights: a checkpoint resumes under the same versions only."""
ROWS = ("datasets", "jinja2", "tokenizers", "transformers", "trl")
"""Packages that decide the prepared rows: part of the key under which they are cached."""


def versions() -> dict[str, str]:
    """Versions of Python, the platform, loracook and the training stack, by name."""
    names = ("loracook", *WEIGHTS, "datasets", "huggingface_hub")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        **{name: installed(name) or "not installed" for name in names},
    }


def installed(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def is_complete() -> bool:
    """Whether the packages that every recipe needs are installed; imports none of them."""
    return all(find_spec(name) is not None for name in REQUIRED)


def requirements() -> list[Requirement]:
    """What our own metadata requires for training (the extra `train`), with version ranges (PEP 508)."""
    from packaging.requirements import Requirement

    stated = map(Requirement, requires("loracook") or [])
    return [one for one in stated if one.marker and one.marker.evaluate({"extra": "train"})]
