"""What lies where a recipe's paths lead: nothing, adapters named as base models, look-alikes of hub ids."""

import json
import os
from collections.abc import Iterator
from pathlib import Path as FilePath

from loracook.errors import Path, Problem, quote
from loracook.recipe.derived import OTHER_TOKENIZER, Data, all_sources, other_tokenizer
from loracook.recipe.did_you_mean import closest
from loracook.recipe.locations import is_local, local_paths
from loracook.recipe.reach import Reach, split_pattern
from loracook.store.folders import SCHEME, NotInstalledError, shipped_file

BASE_MODEL = ("base_model", "name_or_path")


def missing_files(data: Data, reach: Reach) -> Iterator[Problem]:
    """A problem for each local path of a valid recipe that leads nowhere, or to an adapter as base model."""
    for path, text in local_paths(data):
        if text.startswith(SCHEME):
            yield from _missing_in_package(path, text)
            continue
        place = reach.resolve(split_pattern(text, reach.folder)[0])
        if not place.exists():
            yield Problem(path, f"{quote(text)} does not exist; {_advice(reach, text)}", "missing-file")
        elif path == BASE_MODEL and (fault := adapter_fault(place)):
            yield Problem(path, fault, "adapter-as-base")


def _missing_in_package(path: Path, uri: str) -> Iterator[Problem]:
    """A problem where a package has no such file; a warning where another machine may have the package."""
    try:
        shipped_file(uri)
    except NotInstalledError as error:
        yield Problem(path, str(error), "missing-file", severity="warning")
    except FileNotFoundError as error:
        yield Problem(path, str(error), "missing-file")


def look_alikes(data: Data, reach: Reach) -> Iterator[Problem]:
    """A warning for each hub id that is also the path of something beside the recipe."""
    named: list[tuple[Path, Data]] = [(BASE_MODEL, data["base_model"])]
    named += [(OTHER_TOKENIZER, data["tokenizer"])] if other_tokenizer(data) else []
    named += [((*at, "path"), source) for at, source in all_sources(data) if "path" in source]
    for path, section in named:
        hub_id = section[str(path[-1])]
        if not is_local(section) and (meant := look_alike(hub_id, reach)):
            message = f"{quote(hub_id)} is read from the hub; did you mean {quote(meant)}?"
            yield Problem(path, message, "look-alike", severity="warning")


def look_alike(hub_id: str, reach: Reach) -> str | None:
    """The local path that someone who wrote a hub id may have meant, None where there is nothing."""
    return f"./{hub_id}" if (reach.folder / hub_id).exists() else None


def adapter_fault(folder: FilePath) -> str | None:
    """Why a folder with an adapter is no base model, and which one to name; None for any other place."""
    file = folder / "adapter_config.json"
    if not file.is_file():
        return None
    if (folder / "config.json").exists():
        return "this folder holds an adapter beside a model; name a folder with the model alone"
    try:
        base = json.loads(file.read_text("utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        base = None
    return f"this is an adapter; name its base model{f': {quote(base)}' if base else ''}"


def _advice(reach: Reach, text: str) -> str:
    """Where the file may be: at that path from the top of the repository, or under a similar name."""
    plain = os.path.normpath(text)
    from_root = reach.root / plain
    if not plain.startswith(("/", "..")) and from_root.exists():
        meant = os.path.relpath(from_root, reach.folder.resolve())
        return f"did you mean {quote(meant if meant.startswith('../') else f'./{meant}')}?"
    above = reach.resolve(os.path.dirname(plain) or ".")
    names = (entry.name for entry in above.iterdir()) if above.is_dir() else ()
    match = closest(os.path.basename(plain), names)
    folder = text.rstrip("/").rpartition("/")[0]
    return f"did you mean {quote(f'{folder}/{match}')}?" if match else "check the path"
