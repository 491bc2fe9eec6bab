"""The adapter that training starts from, read as a stranger's; it decides what the recipe leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.errors import RecipeError, quote
from loracook.model.fetch import SMALL_FILES, downloaded
from loracook.model.finite import not_finite
from loracook.model.saved_adapter import (
    CONFIG,
    NAME_AN_ADAPTER,
    WEIGHTS,
    config_within_bounds,
    local_adapter,
    misfit,
    of_a_stranger,
    settings_within_bounds,
)
from loracook.recipe.locations import LOCAL
from loracook.recipe.recipe import Recipe
from loracook.recipe.schema import part_at
from loracook.store.folders import commit
from loracook.store.read_back import read_json
from loracook.store.release import CHAT_TEMPLATE

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

START = ("lora", "start_from")
CHOSEN = {"task_type", "lora_dropout", "target_modules", "exclude_modules"}
"""Settings that may be others: training alone reads some, and the weights show which modules they are of."""
TOKENIZER = "tokenizer.json"
TOKENS = {"added_tokens": [{"id": int, "content": str}]}


def started(recipe: Recipe) -> Recipe:
    """The recipe with what its `lora` section leaves out taken from the adapter that it starts from.

    Raises:
        RecipeError: that is no LoRA adapter that a recipe could make, or the recipe contradicts its settings.
    """
    if "start_from" not in recipe["lora"]:
        return recipe
    folder = start_adapter(recipe)
    with of_a_stranger(recipe, START):
        saved = settings_within_bounds(folder / CONFIG)
        if missing := sorted({"r", "lora_alpha"} - saved.keys()):
            raise ValueError(f"its {CONFIG} has no {missing[0]}")
    if problems := [recipe.problem(("lora", key), text) for key, text in _contradictions(recipe, saved)]:
        raise RecipeError(problems)
    taken = {key: value for key, value in saved.items() if key not in recipe["lora"] and _says(key, value)}
    if pinned := commit(folder):  # a branch may move, and its newest commit is asked for once
        taken["start_from_revision"] = pinned
    return recipe.taking("lora", taken, START[-1])


def _contradictions(recipe: Recipe, saved: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each setting of the recipe that the adapter was made with another value of, and what to write."""
    for key, value in recipe["lora"].items():
        part = part_at(("lora", key)) or {}
        theirs = saved.get(key, part.get("default"))
        if key not in CHOSEN and "x-ours" not in part and not _equal(value, theirs):
            other = "has none" if theirs is None else f"has {quote(theirs)}"
            yield key, f"{quote(value)}, but the adapter of 'start_from' {other}; remove it to take that"


def _equal(ours: Any, theirs: Any) -> bool:
    ours, theirs = (sorted(map(str, each)) if isinstance(each, list) else each for each in (ours, theirs))
    return bool((ours or None) == (theirs or None))


def _says(key: str, value: Any) -> bool:
    """Whether a setting is another than upstream's default."""
    part = part_at(("lora", key)) or {}
    return "x-decided-by" in part or value != part.get("default")


def start_adapter(recipe: Recipe) -> Path:
    """The folder of the adapter that a recipe starts from; one on the hub is downloaded, pickles never.

    Raises:
        RecipeError: there is no adapter, or the recipe may not read it.
        UnreachableError: the hub cannot be reached.
    """
    name, revision = recipe["lora"]["start_from"], recipe["lora"].get("start_from_revision")
    if name.startswith(LOCAL):
        return local_adapter(recipe, START, name)[0].parent
    from huggingface_hub.utils import disable_progress_bars

    with disable_progress_bars():  # a plan is made where a terminal shows all that is printed
        folder = downloaded(recipe, START, name=name, revision=revision, patterns=[*SMALL_FILES, WEIGHTS])
    if missing := next((file for file in (CONFIG, WEIGHTS) if not (folder / file).is_file()), None):
        raise RecipeError([recipe.problem(START, f"has no {missing}; {NAME_AN_ADAPTER}")])
    return folder


def start_files(recipe: Recipe) -> tuple[Path, ...]:
    """The local files of the adapter that training starts from; none without one, and for a hub id."""
    name = recipe["lora"].get("start_from", "")
    return local_adapter(recipe, START, name) if name.startswith(LOCAL) else ()


def check_start(recipe: Recipe, tuned: PeftModel) -> None:
    """Check the weights that training starts from against the adapter of a model on the meta device.

    Raises:
        RecipeError: they do not fit it, or hold a number that is none.
    """
    from safetensors import safe_open

    if "start_from" not in recipe["lora"]:
        return
    folder = start_adapter(recipe)
    with of_a_stranger(recipe, START):
        config_within_bounds(folder / CONFIG)
        if fault := misfit(tuned, folder / WEIGHTS):
            raise ValueError(f"its weights do not fit this base model{_said_base(recipe, folder)}: {fault}")
        with safe_open(folder / WEIGHTS, "pt") as saved:
            if name := not_finite((name, saved.get_tensor(name)) for name in saved.keys()):  # noqa: SIM118
                raise ValueError(f"its weight {name} holds NaN or infinity")


@contextmanager
def on_its_base(recipe: Recipe) -> Iterator[None]:
    """Name the adapter where the names of modules are wrong that the recipe takes from it."""
    try:
        yield
    except RecipeError as error:
        if recipe.origin(("lora", "target_modules")).kind != "start_from":
            raise
        said = _said_base(recipe, start_adapter(recipe))
        fault = f"the adapter is of another base model{said}: {error.problems[0].message.partition('; ')[0]}"
        raise RecipeError([recipe.problem(START, fault)]) from error


def _said_base(recipe: Recipe, folder: Path) -> str:
    """The base model that a config names, which may be any text, where it is not the recipe's."""
    name = read_json(folder / CONFIG, dict).get("base_model_name_or_path")
    return (
        f" (its config says {quote(name)})" if name and name != recipe["base_model"]["name_or_path"] else ""
    )


def load_start(recipe: Recipe, tuned: PeftModel) -> None:
    """Give the adapter of a model the weights that training starts from, in the dtypes that it has."""
    if "start_from" in recipe["lora"]:
        tuned.load_adapter(start_adapter(recipe), "default", is_trainable=True, autocast_adapter_dtype=False)


def start_notes(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """What is taken from the adapter that training starts from, and how its chat template differs.

    Raises:
        RecipeError: it was trained with a token that the recipe's tokenizer has not, or has elsewhere.
    """
    if "start_from" not in recipe["lora"]:
        return ()
    folder, ids = start_adapter(recipe), tokenizer.get_vocab()
    with of_a_stranger(recipe, START):
        there = (folder / TOKENIZER).is_file()
        tokens = read_json(folder / TOKENIZER, TOKENS)["added_tokens"] if there else []
    for token in tokens:
        if ids.get(token["content"]) != token["id"]:
            fault = f"the adapter was trained with the token {quote(token['content'])} as {token['id']}"
            advice = "write its tokenizer section, or name an adapter of this base model"
            raise RecipeError([recipe.problem(START, f"{fault}, which it is not here; {advice}")])
    return tuple(_notes(recipe, folder / CHAT_TEMPLATE, tokenizer.chat_template))


def _notes(recipe: Recipe, template: Path, ours: str | None) -> Iterator[str]:
    taken = {
        key: value for key, value in recipe["lora"].items() if recipe.origin(("lora", key)).kind == START[-1]
    }
    if taken:
        settings = ", ".join(f"{key}: {quote(value)[1:-1]}" for key, value in taken.items())
        yield f"taken from lora.start_from: {settings}"
    if template.is_file() and template.read_text("utf-8", errors="replace") != (ours or ""):
        yield "lora.start_from was trained with another chat template than this recipe's"
