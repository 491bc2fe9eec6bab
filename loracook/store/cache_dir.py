"""Where converted models and prepared data are cached."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache() -> Path:
    """Where converted models and prepared data are kept: LORACOOK_CACHE, else the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("LORACOOK_CACHE") or Path(home) / "loracook")
