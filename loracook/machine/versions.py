"""The versions of what decides a result."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "datasets",
    "accelerate",
    "huggingface_hub",
)


def versions() -> dict[str, str]:
    """Versions of Python, the platform, loracook and the training stack, by name."""
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for package in ("loracook", *PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
