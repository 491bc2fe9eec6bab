"""Default folders for runs and the cache, and files that installed packages ship."""

import os
from pathlib import Path

RUNS = Path("runs")
"""The default folder for run folders, relative to the working folder."""
SCHEME = "package://"
SNAPSHOTS = "snapshots"
"""The folder of a repository in the hub's cache that holds one folder for each commit."""


class NotInstalledError(FileNotFoundError):
    """The package of a `package://` file is not installed."""


def default_cache() -> Path:
    """The folder for converted models and prepared rows: LORACOOK_CACHE, else in the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("LORACOOK_CACHE") or Path(home) / "loracook")


def commit(folder: Path) -> str | None:
    """The hub commit that a fetched folder holds (the hub's cache names folders by it), or None."""
    return folder.name if folder.parent.name == SNAPSHOTS else None


def shipped_file(uri: str) -> Path:
    """The file that `package://dist/path` names, located without importing the package.

    Raises:
        NotInstalledError: the package is not installed.
        FileNotFoundError: it has no such file.
    """
    from importlib import metadata

    name, _, inside = uri.removeprefix(SCHEME).partition("/")
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError as error:
        raise NotInstalledError(f"the package '{name}' is not installed; run: pip install {name}") from error
    candidates = {inside, f"{name}/{inside}", f"{name.replace('-', '_')}/{inside}"}
    paths = (Path(str(file.locate())) for file in files if file.as_posix() in candidates)
    if path := next(filter(Path.is_file, paths), None):
        return path
    raise FileNotFoundError(f"the package '{name}' has no file '{inside}'")
