"""Files that an installed distribution ships: `package://dist/path`, found without importing it."""

from __future__ import annotations

from pathlib import Path

SCHEME = "package://"


def shipped_file(text: str) -> Path:
    """The file that `package://dist/path` names; raises FileNotFoundError, saying what is missing."""
    import importlib.metadata

    name, _, inside = text.removeprefix(SCHEME).partition("/")
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise FileNotFoundError(f"the distribution '{name}' is not installed; pip install {name}") from error
    wanted = {inside, f"{name}/{inside}", f"{name.replace('-', '_')}/{inside}"}
    found = next((file for file in files if file.as_posix() in wanted), None)
    if found is None or not Path(str(found.locate())).is_file():
        raise FileNotFoundError(f"the distribution '{name}' ships no file '{inside}'")
    return Path(str(found.locate()))
