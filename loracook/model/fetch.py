"""Where the base model comes from: the hub, a folder, or a GGUF file that is converted once and cached."""

from collections.abc import Sequence
from pathlib import Path

from loracook.errors import Path as Key
from loracook.errors import RecipeError, UnreachableError
from loracook.hub.failures import rejection, unreachable
from loracook.model.contents import check_contents, check_model, check_shards
from loracook.model.gguf import Part, conversion, converted
from loracook.model.own_code import BASE_MODEL, check_own_code
from loracook.recipe.derived import other_tokenizer
from loracook.recipe.locations import is_local
from loracook.recipe.present import adapter_fault, look_alike
from loracook.recipe.reach import OutOfReachError
from loracook.recipe.recipe import Recipe
from loracook.store.folders import SCHEME, shipped_file

SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def local_path(recipe: Recipe, at: Key = BASE_MODEL) -> Path | None:
    """The local folder or file that the recipe names as base model, or at another key; None for a hub id."""
    section = recipe[str(at[0])]
    name = section[at[1]]
    if name.startswith(SCHEME):
        try:
            return shipped_file(name)
        except FileNotFoundError as error:
            raise RecipeError([recipe.problem(at, str(error))]) from error
    return recipe.resolve(name) if is_local(section) else None


def files(recipe: Recipe) -> tuple[Path, ...]:
    """The local files that are the base model, sorted; none for a hub id.

    Raises:
        RecipeError: the path does not exist, or has no model.
    """
    path = local_path(recipe)
    if path is None:
        return ()
    if not path.exists():
        message = f"'{path.name}' does not exist in {path.parent.name}/; name a folder or a .gguf file"
        raise RecipeError([recipe.problem(BASE_MODEL, message)])
    if path.is_file():
        return (_weights_file(recipe, path),)
    present = tuple(sorted(file for file in path.iterdir() if file.is_file()))
    _refuse_adapter(recipe, path)
    if not any(file.name == "config.json" for file in present):
        message = "this folder has no config.json; name a folder with a model"
        raise RecipeError([recipe.problem(BASE_MODEL, message)])
    for file in sorted(path.rglob("*")):
        refuse_link_out(recipe, file)
    return present


def refuse_link_out(recipe: Recipe, file: Path, at: Key = BASE_MODEL) -> None:
    """Raise RecipeError where a file of a local model is a link to a place that the recipe may not read."""
    try:
        recipe.reach.resolve(file)
    except OutOfReachError as error:
        raise RecipeError([recipe.problem(at, f"its {file.name} {error}")]) from error


def _refuse_adapter(recipe: Recipe, folder: Path) -> None:
    """Raise RecipeError where the folder of a base model holds an adapter instead."""
    if fault := adapter_fault(folder):
        raise RecipeError([recipe.problem(BASE_MODEL, fault)])


def fetch_tokenizer(recipe: Recipe, cache: Path) -> Path:
    """A folder with the base model's tokenizer, possibly nothing else."""
    return _fetch(recipe, cache, "tokenizer")


def fetch_description(recipe: Recipe, cache: Path) -> Path:
    """A folder with the base model's config and tokenizer; weights are not downloaded for it."""
    return _fetch(recipe, cache, "description")


def fetch(recipe: Recipe, cache: Path) -> Path:
    """A folder with the whole base model: config, tokenizer and safetensors weights.

    Raises:
        RecipeError: the hub has no such model, or its weights are pickles.
        UnreachableError: the hub cannot be reached.
    """
    return _fetch(recipe, cache, "weights")


def fetched(recipe: Recipe, cache: Path) -> Path | None:
    """The folder that `fetch` gives, None where it would have to download or convert for it.

    Raises:
        RecipeError: there is no such model, or it may not be read.
    """
    files(recipe)
    path = local_path(recipe) or _in_hub_cache(recipe)
    gguf = path and _gguf(recipe, path)
    folder = conversion(gguf, cache) if gguf else path
    if folder is None or not any(folder.glob("*.safetensors")):
        return None
    _check(recipe, folder)
    check_shards(recipe, folder)
    return folder


def _in_hub_cache(recipe: Recipe) -> Path | None:
    """The folder of a hub id in the hub's cache, which may hold a part of the model alone."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    name, revision = recipe["base_model"]["name_or_path"], recipe["base_model"].get("revision")
    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except HFValidationError as error:
        raise RecipeError([recipe.problem(BASE_MODEL, _refusal(name, error))]) from error
    except LocalEntryNotFoundError:
        return None


def _fetch(recipe: Recipe, cache: Path, part: Part) -> Path:
    files(recipe)
    path = local_path(recipe) or _from_hub(recipe, weights=part == "weights")
    gguf = _gguf(recipe, path)
    folder = converted(recipe, gguf, cache=cache, part=part) if gguf else path
    _check(recipe, folder)
    return _with_safetensors(recipe, folder) if part == "weights" else folder


def _check(recipe: Recipe, folder: Path) -> None:
    """Check the base model's small files, its tokenizer's only where the recipe names no other."""
    check = check_contents if other_tokenizer(recipe.sections) is None else check_model
    check(recipe, folder)


def _gguf(recipe: Recipe, path: Path) -> Path | None:
    """The GGUF file that is the base model, None where a folder of safetensors is."""
    name: str | None = recipe["base_model"].get("gguf_file")
    if path.is_file() or name is None:
        return path if path.is_file() else None
    if not (path / name).is_file():
        message = f"the model has no file '{name}'; check its spelling"
        raise RecipeError([recipe.problem(("base_model", "gguf_file"), message)])
    return path / name


def _from_hub(recipe: Recipe, *, weights: bool) -> Path:
    base = recipe["base_model"]
    gguf = base.get("gguf_file")
    code, large = (["*.py"] if recipe.own_code else []), (["*.safetensors"] if weights else [])
    patterns = [gguf] if gguf else [*SMALL_FILES, *code, *large]
    folder = downloaded(
        recipe, BASE_MODEL, name=base["name_or_path"], revision=base.get("revision"), patterns=patterns
    )
    _refuse_adapter(recipe, folder)
    check_own_code(recipe, folder)
    return folder


def downloaded(
    recipe: Recipe, path: Key, *, name: str, revision: str | None, patterns: Sequence[str]
) -> Path:
    """The folder of the files of a hub repository, which the recipe names at `path`.

    Raises:
        RecipeError: the hub has no such repository or revision, or does not give it out.
        UnreachableError: the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError

    local = look_alike(name, recipe.reach)
    meant = f"; did you mean '{local}'?" if local else ""
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except HFValidationError as error:
        raise RecipeError([recipe.problem(path, _refusal(name, error))]) from error
    except (HTTPError, OSError) as error:
        if no := rejection(error):
            raise RecipeError([recipe.problem(path, _refusal(name, no) + meant)]) from error
        if why := unreachable(error):
            advice = meant or f"; with a network connection, run: hf download {name}"
            problem = recipe.problem(path, f"{why} and '{name}' is not cached{advice}")
            raise UnreachableError([problem]) from error
        raise


def _refusal(name: str, error: Exception) -> str:
    kind = type(error).__name__
    return {
        "GatedRepoError": f"'{name}' is gated; accept its terms on its page, then log in: hf auth login",
        "RepositoryNotFoundError": f"no '{name}', or it is private; check the id, or run: hf auth login",
        "RevisionNotFoundError": f"'{name}' has no such revision; remove 'revision' for the newest",
    }.get(kind, f"the hub refused '{name}': {str(error).partition(chr(10))[0]}")


def _with_safetensors(recipe: Recipe, folder: Path) -> Path:
    check_shards(recipe, folder)
    if any(folder.glob("*.safetensors")):
        return folder
    message = "no safetensors weights, and pickles can run code; name a model or revision with *.safetensors"
    raise RecipeError([recipe.problem(BASE_MODEL, message)])


def _weights_file(recipe: Recipe, path: Path) -> Path:
    suffix = (
        path.suffix or Path(recipe["base_model"]["name_or_path"]).suffix
    )  # a link to a blob keeps its own
    if suffix == ".gguf":
        return path
    reason = "a pickle can run code" if suffix in PICKLES else f"a {suffix or 'plain'} file is not a model"
    message = f"{reason}; name a folder with safetensors, or a .gguf file"
    raise RecipeError([recipe.problem(BASE_MODEL, message)])
