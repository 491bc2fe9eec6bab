"""Where the base model comes from: the hub, a folder, or a GGUF file that is converted once and kept."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from loracook.errors import MachineError, RecipeError, UnreachableError
from loracook.hub.failures import refusal, unheard
from loracook.model.broken_files import BASE_MODEL, reading
from loracook.recipe.locations import is_local
from loracook.store.files import sha256, sync
from loracook.store.package_files import SCHEME, shipped_file

if TYPE_CHECKING:
    from loracook.recipe.recipe import Recipe

Part: TypeAlias = Literal["tokenizer", "description", "weights"]
"""What is wanted of a base model; each part has all that the one before it has."""

SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def local_path(recipe: Recipe) -> Path | None:
    """The folder or file on this machine that the recipe names as base model, or None for a hub id."""
    name = recipe["base_model"]["name_or_path"]
    if name.startswith(SCHEME):
        try:
            return shipped_file(name)
        except FileNotFoundError as error:
            raise RecipeError([recipe.problem(BASE_MODEL, str(error))]) from error
    return recipe.resolve(name) if is_local(recipe["base_model"]) else None


def files(recipe: Recipe) -> tuple[Path, ...]:
    """The local files that are the base model, sorted; none for a hub id.

    Raises:
        RecipeError: the path is not there, or holds no model.
    """
    path = local_path(recipe)
    if path is None:
        return ()
    if not path.exists():
        message = f"there is no '{path.name}' in {path.parent.name}/; name a folder or a .gguf file"
        raise RecipeError([recipe.problem(BASE_MODEL, message)])
    if path.is_file():
        return (_weights_file(recipe, path),)
    found = tuple(sorted(file for file in path.iterdir() if file.is_file()))
    if not any(file.name == "config.json" for file in found):
        raise RecipeError(
            [recipe.problem(BASE_MODEL, "the folder holds no config.json; name a folder with a model")]
        )
    return found


def fetch_tokenizer(recipe: Recipe, cache: Path) -> Path:
    """A folder with the base model's tokenizer, perhaps with nothing else."""
    return _fetch(recipe, cache, "tokenizer")


def fetch_description(recipe: Recipe, cache: Path) -> Path:
    """A folder with the base model's config and tokenizer; no weights are fetched for it."""
    return _fetch(recipe, cache, "description")


def fetch(recipe: Recipe, cache: Path) -> Path:
    """A folder with the whole base model: config, tokenizer and safetensors weights.

    Raises:
        RecipeError: the hub has no such model, or its weights are pickles.
        UnreachableError: the hub cannot be reached.
    """
    return _fetch(recipe, cache, "weights")


def commit(folder: Path) -> str | None:
    """The hub commit that a fetched folder holds (the hub's cache names folders by it), or None."""
    return folder.name if folder.parent.name == "snapshots" else None


def _fetch(recipe: Recipe, cache: Path, part: Part) -> Path:
    files(recipe)
    found = local_path(recipe) or _from_hub(recipe, weights=part == "weights")
    gguf = _gguf(recipe, found)
    if gguf:
        return _converted(recipe, gguf, cache, part)
    return _with_safetensors(recipe, found) if part == "weights" else found


def _gguf(recipe: Recipe, found: Path) -> Path | None:
    """The GGUF file that is the base model, None where a folder of safetensors is."""
    name: str | None = recipe["base_model"].get("gguf_file")
    if found.is_file() or name is None:
        return found if found.is_file() else None
    if not (found / name).is_file():
        raise RecipeError([recipe.problem(("base_model", "gguf_file"), f"the model has no file '{name}'")])
    return found / name


def _from_hub(recipe: Recipe, *, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError

    base = recipe["base_model"]
    name, gguf = base["name_or_path"], base.get("gguf_file")
    wanted = [gguf] if gguf else [*SMALL_FILES, *(["*.safetensors"] if weights else [])]
    try:
        folder = snapshot_download(name, revision=base.get("revision"), allow_patterns=wanted)
    except HFValidationError as error:
        raise RecipeError([recipe.problem(BASE_MODEL, _refusal(name, error))]) from error
    except (HTTPError, OSError) as error:
        if no := refusal(error):
            raise RecipeError([recipe.problem(BASE_MODEL, _refusal(name, no))]) from error
        if why := unheard(error):
            way_out = f"where there is a network run: hf download {name}"
            problem = recipe.problem(BASE_MODEL, f"{why} and '{name}' is not kept here; {way_out}")
            raise UnreachableError([problem]) from error
        raise
    return Path(folder)


def _refusal(name: str, error: Exception) -> str:
    kind = type(error).__name__
    return {
        "GatedRepoError": f"'{name}' is gated; accept its terms on its page, then log in: hf auth login",
        "RepositoryNotFoundError": f"there is no '{name}', or hides it; check the id or run: hf auth login",
        "RevisionNotFoundError": f"'{name}' has no such revision; leave revision out for the newest",
    }.get(kind, f"the hub refused '{name}': {str(error).partition(chr(10))[0]}")


def _with_safetensors(recipe: Recipe, folder: Path) -> Path:
    if any(folder.glob("*.safetensors")):
        return folder
    message = "no safetensors weights there, and pickles can run code; name a revision that has *.safetensors"
    raise RecipeError([recipe.problem(BASE_MODEL, message)])


def _weights_file(recipe: Recipe, path: Path) -> Path:
    if path.suffix == ".gguf":
        return path
    kind = (
        "a pickle can run code" if path.suffix in PICKLES else f"a {path.suffix or 'plain'} file is no model"
    )
    raise RecipeError(
        [recipe.problem(BASE_MODEL, f"{kind}; name a folder with safetensors, or a .gguf file")]
    )


def _converted(recipe: Recipe, gguf: Path, cache: Path, part: Part) -> Path:
    """The wanted part of a GGUF file's model as a folder, kept under the hash of the file's content."""
    whole = cache / "models" / f"{gguf.stem}-{sha256(gguf)[:16]}"
    described = part == "description" and whole.is_dir()
    kept = whole if part == "weights" or described else whole.with_name(f"{whole.name}-{part}")
    if kept.is_dir():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=kept.parent, prefix=f".{kept.name}."))
    try:
        _convert(recipe, gguf, unfinished, part)
        for file in unfinished.iterdir():
            sync(file)
        os.chmod(unfinished, 0o755)
        unfinished.rename(kept)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return kept


def _convert(recipe: Recipe, gguf: Path, folder: Path, part: Part) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig, PreTrainedTokenizerFast

    try:
        with reading(recipe, gguf.parent, gguf.name):
            PreTrainedTokenizerFast.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
            if part == "description":
                AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
            if part != "weights":
                return
            # Packed GGUF blocks can neither train nor be saved, so they are unpacked here.
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                dtype="bfloat16",
                quantization_config=GgufConfig(dequantize=True),
            )
            model.save_pretrained(folder)
    except ImportError as error:
        raise MachineError(f"{gguf.name} needs one more package; run: pip install gguf") from error
    except NotImplementedError as error:
        message = f"{gguf.name} is of a kind that transformers does not convert: {error}"
        raise RecipeError([recipe.problem(BASE_MODEL, message)]) from error
