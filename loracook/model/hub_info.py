"""Where a base model comes from: its commit, its license and how much has to be fetched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loracook.model.fetch import commit, local_path

if TYPE_CHECKING:
    from loracook.recipe.recipe import Recipe

LICENSE = re.compile(r"^license:\s*['\"]?([\w.+-]+)", re.MULTILINE)


@dataclass(frozen=True)
class Origin:
    """A base model's hub commit, license and bytes to fetch; None where that is not known."""

    commit: str | None
    license: str | None
    download: int | None


def origin(recipe: Recipe, folder: Path, unknown: list[str]) -> Origin:
    """The facts of a base model described in `folder`; adds to `unknown` what could not be learned."""
    if local_path(recipe) is not None:
        return Origin(None, _license_in(folder), 0)
    if any(folder.glob("*.safetensors")):
        return Origin(commit(folder), _license_in(folder), 0)
    return _from_hub(recipe, folder, unknown)


def _license_in(folder: Path) -> str | None:
    card = folder / "README.md"
    found = LICENSE.search(card.read_text("utf-8", "replace")) if card.is_file() else None
    return found[1] if found else None


def _from_hub(recipe: Recipe, folder: Path, unknown: list[str]) -> Origin:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    base = recipe["base_model"]
    try:
        info = HfApi().model_info(
            base["name_or_path"], revision=base.get("revision"), files_metadata=True, timeout=10
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        unknown.append(f"license and bytes to fetch: the hub cannot be reached ({type(error).__name__})")
        return Origin(commit(folder), None, None)
    sizes = [file.size or 0 for file in info.siblings or [] if file.rfilename.endswith(".safetensors")]
    return Origin(info.sha, getattr(info.card_data, "license", None), sum(sizes))
