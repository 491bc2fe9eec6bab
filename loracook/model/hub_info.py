"""What the hub says of a base model: its commit, its license and how much has to be downloaded."""

import re
from dataclasses import dataclass
from pathlib import Path

from loracook.model.fetch import local_path
from loracook.recipe.recipe import Recipe
from loracook.store.folders import commit

LICENSE = re.compile(r"^license:\s*['\"]?([\w.+-]+)", re.MULTILINE)


@dataclass(frozen=True)
class HubInfo:
    """A base model's commit, license and bytes to download; `unknown` says why one of them is None."""

    commit: str | None
    license: str | None
    download_bytes: int | None
    unknown: str = ""


def hub_info(recipe: Recipe, folder: Path) -> HubInfo:
    """The facts of a base model whose config is in `folder`; the hub is asked where weights are missing."""
    if local_path(recipe) is not None:
        return HubInfo(None, _license_in(folder), 0)
    if any(folder.glob("*.safetensors")):
        return HubInfo(commit(folder), _license_in(folder), 0)
    return _from_hub(recipe, folder)


def _license_in(folder: Path) -> str | None:
    card = folder / "README.md"
    match = LICENSE.search(card.read_text("utf-8", "replace")) if card.is_file() else None
    return match[1] if match else None


def _from_hub(recipe: Recipe, folder: Path) -> HubInfo:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    base = recipe["base_model"]
    try:
        info = HfApi().model_info(
            base["name_or_path"], revision=base.get("revision"), files_metadata=True, timeout=10
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = f"license and download size: the hub cannot be reached ({type(error).__name__})"
        return HubInfo(commit(folder), None, None, reason)
    sizes = [file.size or 0 for file in info.siblings or [] if file.rfilename.endswith(".safetensors")]
    return HubInfo(info.sha, getattr(info.card_data, "license", None), sum(sizes))
