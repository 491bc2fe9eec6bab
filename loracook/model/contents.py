"""What a base model's files ask of upstream, checked before it reads them: other files, code and sizes."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from loracook.errors import Path as Key
from loracook.errors import RecipeError, quote
from loracook.model import tokenizer_file
from loracook.model.broken_files import reading
from loracook.model.own_code import BASE_MODEL
from loracook.recipe.recipe import Recipe

CONFIG = "config.json"
READ = (CONFIG, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Files whose keys upstream hands on to classes of its own, whatever their names."""
TOKENIZERS = "tokenizer.*json"
"""tokenizer.json, and those for versions of transformers, such as tokenizer.4.0.0.json."""
INDEX, WEIGHTS = "*.safetensors.index.json", ".safetensors"
LARGEST = 32 << 20
"""Bytes of a file that is READ."""
SMALL = (".json", ".jinja", ".txt", ".model")
TOO_LARGE = f"is larger than {tokenizer_file.LARGEST >> 20} MiB; name another model"
FILE_KEY = re.compile(r".*_files?|vocab|merges|init_inputs")
"""Keys of tokenizers whose value is opened as it stands (transformers 5.23, PreTrainedTokenizerBase)."""
PICKED = re.compile(r".*(attn|experts)_implementation(_internal)?")
NOT_USED = re.compile(rf"{PICKED.pattern}|auto_map|trust_remote_code|use_kernels|kernel_config")
"""Keys of config.json that would pick code, which the recipe and --allow-code alone do."""
LAYERS = re.compile(r"(?!.*_per_)(.*_)?(layers?|blocks?|depths?|stages)")
EXPERTS = re.compile(r"(.*_)?experts?")
REPEATED = re.compile(r"(.*_)?(heads?|groups|labels)")
NO_SIZE = re.compile(
    r"(.*_)?(ids?|index|positions?|length|len|ctx|context|window|theta|base|seed|tokens?|params|parameters)(_.*)?"
)
MOST_LAYERS, MOST_PARTS, MOST_EXPERTS, MOST_WORDS, MOST_SIZE = 400, 100_000, 1 << 20, 1 << 22, 1 << 26
"""The most layers, of any other part, and of experts in all layers; the largest vocabulary, and the largest
size of anything. Published models have fewer. Upstream makes each part in Python, and sizes overflow.
"""


def check_contents(recipe: Recipe, folder: Path) -> None:
    """Check the small files of the base model in `folder`.

    Raises:
        RecipeError: one cannot be read, leads to a file elsewhere or to code, or has impossible sizes.
    """
    check_tokenizer(recipe, folder)
    check_model(recipe, folder)


def check_tokenizer(recipe: Recipe, folder: Path, *, at: Key = BASE_MODEL) -> None:
    """Check the small files that a tokenizer is read from, in a folder that the recipe names at `at`.

    Raises:
        RecipeError: one cannot be read, leads to a file elsewhere or to code, or has impossible sizes.
    """
    for name in READ:
        _check(recipe, folder, name, at=at)
    for file in sorted(folder.glob(TOKENIZERS)):
        _refuse(recipe, f"its {file.name}", list(tokenizer_file.faults(file)), at=at)


def check_model(recipe: Recipe, folder: Path) -> None:
    """Check the base model's small files in `folder` but its tokenizer's; raises RecipeError likewise."""
    _check(recipe, folder, CONFIG, at=BASE_MODEL)
    for file in sorted(each for each in folder.iterdir() if each.suffix in SMALL and each.is_file()):
        large = file.stat().st_size > tokenizer_file.LARGEST
        _refuse(recipe, f"its {file.name}", [TOO_LARGE] if large else [])
    for index in sorted(folder.glob(INDEX)):
        _refuse(recipe, index.name, _no_shards(_json(recipe, folder, index.name)))


def _check(recipe: Recipe, folder: Path, name: str, *, at: Key) -> None:
    if (folder / name).is_file():
        data = _json(recipe, folder, name, at=at)
        faults = [*_leading_out(data, folder), *(_sizes(data) if name == CONFIG else _too_many(data))]
        _refuse(recipe, f"its {name}", faults, at=at)


def check_shards(recipe: Recipe, folder: Path) -> None:
    """Raise RecipeError where an index of weights names a file that is missing."""
    for index in sorted(folder.glob(INDEX)):
        names = sorted(set(_json(recipe, folder, index.name)["weight_map"].values()))
        missing = [_not_in_folder(name) for name in names if not (folder / name).is_file()]
        _refuse(recipe, index.name, missing)


def check_gguf(recipe: Recipe, file: Path) -> None:
    """Raise RecipeError where a GGUF file has sizes that nobody can build."""
    from transformers.integrations.gguf import read_gguf_metadata

    with reading(recipe, file.parent, file.name, RuntimeError):
        metadata, _ = read_gguf_metadata(str(file))
        kind = f"{metadata['general.architecture']}."
    sizes = {key: value for key, value in metadata.items() if key.startswith(kind)}
    _refuse(recipe, file.name, list(_sizes(sizes)))


def unused_keys(recipe: Recipe, folder: Path) -> list[str]:
    """The keys of config.json that would pick code, and that loracook does not use."""
    entries = _entries(_json(recipe, folder, CONFIG))
    keys = {key for key, value in entries if value and NOT_USED.fullmatch(key)}
    return sorted(keys - ({"auto_map"} if recipe.own_code else set()))


def _refuse(recipe: Recipe, where: str, faults: Sequence[str], *, at: Key = BASE_MODEL) -> None:
    if faults:
        raise RecipeError([recipe.problem(at, f"{where} {faults[0]}")])


def _json(recipe: Recipe, folder: Path, name: str, *, at: Key = BASE_MODEL) -> dict[str, Any]:
    with reading(recipe, folder, f"its {name}", at=at):
        if (folder / name).stat().st_size > LARGEST:
            raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
        data = json.loads((folder / name).read_text("utf-8"))
        if not isinstance(data, dict):
            raise ValueError("it is not a JSON object")
        return data


def _entries(data: Any) -> Iterator[tuple[str, Any]]:
    """Every value inside of JSON with its key, that of the list for an entry of a list; of any depth."""
    rest = [("", data)]
    while rest:
        key, value = rest.pop()
        yield key, value
        if isinstance(value, dict):
            rest.extend(value.items())
        elif isinstance(value, list):
            rest.extend((key, entry) for entry in value)


def _leading_out(data: Any, folder: Path) -> Iterator[str]:
    """What is wrong with the places that a file names."""
    for key, value in _entries(data):
        if not isinstance(value, str):
            continue
        if PICKED.fullmatch(key) and "/" in value:
            yield f"asks for {quote(value)} as {key}, which is code from the hub; remove it there"
        elif key == "transformers_weights" and not _is_shard(value.removesuffix(".index.json")):
            yield _not_in_folder(value)
        elif ("/" in value or FILE_KEY.fullmatch(key)) and _is_elsewhere(value, folder):
            yield f"names {quote(value)} as {key}, a file outside of its folder; remove it there"


def _too_many(data: dict[str, Any]) -> Iterator[str]:
    """Which list or mapping of a tokenizer has more entries than tokens can be added."""
    for key, value in _entries(data):
        if isinstance(value, dict | list) and len(value) > tokenizer_file.MOST_ADDED:
            named = f"{key} of " if key else ""
            yield f"has {named}{len(value):,} entries, and at most {tokenizer_file.MOST_ADDED:,} can be read"


def _is_elsewhere(text: str, folder: Path) -> bool:
    """Whether a text is a file outside of the model's folder, seen from there or from the working folder."""
    inside = os.path.join(os.path.abspath(folder), "")
    places = (os.path.abspath(os.path.join(start, text)) for start in (folder, ""))
    return any(
        os.path.exists(place) and not os.path.isdir(place) and not place.startswith(inside)
        for place in places
    )


def _no_shards(index: dict[str, Any]) -> list[str]:
    """What is wrong with the files that an index of weights names, where they are there or not."""
    names = index.get("weight_map")
    if not isinstance(names, dict):
        return ["has no weight_map; download the model again"]
    others = [name for name in names.values() if not _is_shard(name)]
    wrong = [name for name in others if not isinstance(name, str) or Path(name).name != name]
    return [_not_in_folder(name) for name in wrong] or [
        f"names {quote(name)}, which is not safetensors, and pickles can run code; name another model"
        for name in others
    ]


def _is_shard(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and name.endswith(WEIGHTS)


def _not_in_folder(name: object) -> str:
    return f"names {quote(name)}, which is not in its folder; download the model again"


def _sizes(data: Any) -> Iterator[str]:
    """Which sizes nobody can build: upstream would take hours or all memory over them."""
    layers = experts = 1.0
    for key, value in _entries(data):
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        part = _part(key)
        most = _most(part)
        if most is None or (isinstance(value, float) and most == MOST_SIZE):
            continue
        if not value <= most:
            yield f"has {key} = {quote(value)}, and at most {most:,} can be built; name another model"
        if value < 0 and part.startswith(("n_", "num_")) and most < MOST_SIZE:
            yield f"has {key} = {quote(value)}, which is negative; name another model"
        layers = max(layers, value) if LAYERS.fullmatch(part) else layers
        experts = max(experts, value) if EXPERTS.fullmatch(part) else experts
    if layers * experts > MOST_EXPERTS:
        yield f"has {layers:,} layers of {experts:,} experts, too many to be built; name another model"


def _part(key: str) -> str:
    """A key as config.json has it, also of one as GGUF files have it: llama.block_count is block."""
    return re.sub("_(count|length)", "", key.rpartition(".")[2]) if "." in key else key


def _most(key: str) -> int | None:
    """The most that a number under this key can be; None where it is no size."""
    if LAYERS.fullmatch(key):
        return MOST_LAYERS
    if EXPERTS.fullmatch(key) or REPEATED.fullmatch(key):
        return MOST_PARTS
    if key.endswith("vocab_size"):
        return MOST_WORDS
    return None if NO_SIZE.fullmatch(key) else MOST_SIZE
