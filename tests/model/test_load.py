"""A base model's files that are damaged, incomplete or no model at all, said where the recipe names it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import loracook
from loracook import model
from loracook.errors import MachineError
from loracook.model.load import load_config
from loracook.recipe.recipe import Recipe
from tests.tiny_recipes import twin

Damage = Callable[[Path], object]
READERS: dict[str, Callable[[Recipe, Path], object]] = {
    "config.json": model.load_on_meta,
    "tokenizer": model.load_tokenizer,
    "weights": model.load_model,
}


def wrote(name: str, text: str) -> Damage:
    """Damage that replaces a file's content."""
    return lambda folder: (folder / name).write_text(text, "utf-8")


def removed(*names: str) -> Damage:
    """Damage that moves files away."""
    return lambda folder: [(folder / name).rename(folder.parent / name) for name in names]


def cut(name: str, size: int) -> Damage:
    """Damage that leaves the first bytes of a file alone."""
    return lambda folder: os.truncate(folder / name, size)


FAULTS: dict[str, tuple[str, Damage]] = {
    "its config.json cannot be read: It looks like the config file at 'config.json' is not a valid JSON": (
        "config.json",
        wrote("config.json", '{"model_type": '),
    ),
    "the installed transformers does no": ("config.json", wrote("config.json", "[1]")),
    "its config.json cannot be read: Validation error for field 'hidden_size'": (
        "config.json",
        wrote("config.json", '{"model_type": "opt", "hidden_size": "many"}'),
    ),
    "its config.json cannot be read: integer division": (
        "config.json",
        wrote("config.json", '{"model_type": "opt", "num_attention_heads": 0}'),
    ),
    "its tokenizer cannot be read: Expecting property name": ("tokenizer", wrote("tokenizer.json", "{")),
    "its tokenizer cannot be read: KeyError('added_tokens')": ("tokenizer", wrote("tokenizer.json", "{}")),
    "its tokenizer cannot be read: 'list' object has no": ("tokenizer", wrote("tokenizer_config.json", "[]")),
    "its tokenizer cannot be read: a chat template that is no text": (
        "tokenizer",
        wrote("tokenizer_config.json", '{"chat_template": 1000}'),
    ),
    "its tokenizer cannot be read: it is nested too deep": (
        "tokenizer",
        wrote("special_tokens_map.json", '{"unk_token": {"quant_method": "x"}}'),
    ),
    "its tokenizer cannot be read: Couldn't instantiate": ("tokenizer", removed("tokenizer.json")),
    "the model's folder has no tokenizer": ("tokenizer", removed("tokenizer.json", "tokenizer_config.json")),
    "its weights cannot be read: Error while deserializing header: inc": (
        "weights",
        cut("model.safetensors", 9999),
    ),
    "its weights cannot be read: Error while deserializing header: header too small": (
        "weights",
        cut("model.safetensors", 0),
    ),
    "its weights cannot be read: Error no file named model.safetensors found in directory": (
        "weights",
        lambda folder: (folder / "model.safetensors").rename(folder / "part-1.safetensors"),
    ),
}


@pytest.mark.parametrize("said", FAULTS)
def test_a_damaged_base_model_is_reported_where_the_recipe_names_it(said: str, tmp_path: Path) -> None:
    what, damage = FAULTS[said]
    recipe = twin("opt-350m-lora", tmp_path)
    damage(tmp_path / "model")
    with pytest.raises(loracook.RecipeError) as caught:
        READERS[what](recipe, tmp_path / "model")
    (problem,) = caught.value.problems
    assert (problem.path, problem.message[: len(said)]) == (("base_model", "name_or_path"), said)
    assert problem.position is not None
    assert "\n" not in problem.message


def test_weights_of_another_shape_are_refused_by_name(tmp_path: Path) -> None:
    recipe = twin("opt-350m-lora", tmp_path)
    config = tmp_path / "model/config.json"
    config.write_text(config.read_text().replace('"ffn_dim": 128', '"ffn_dim": 64'))
    with pytest.raises(
        loracook.RecipeError,
        match=r"wrong shape for 6 parameters, such as .*fc1\.bias",
    ):
        model.load_model(recipe, tmp_path / "model")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "base_model.name_or_path: cut.gguf cannot be read: cannot mmap an empty file; copy"),
        (b"GGUF\x03\0\0\0" + b"\x01\0" * 8, "base_model.name_or_path: cut.gguf cannot be read: "),
    ],
)
def test_a_damaged_gguf_file_is_reported_where_the_recipe_names_it(
    content: bytes, said: str, tmp_path: Path
) -> None:
    recipe = twin("opt-350m-lora", tmp_path, base_model={"name_or_path": "./cut.gguf"})
    (tmp_path / "cut.gguf").write_bytes(content)
    with pytest.raises(loracook.RecipeError, match=said):
        model.fetch_tokenizer(recipe, tmp_path / "cache")


def test_a_gguf_file_that_is_not_in_the_folder_is_refused(tmp_path: Path) -> None:
    recipe = twin("opt-350m-lora", tmp_path, base_model={"gguf_file": "no.gguf"})
    with pytest.raises(loracook.RecipeError, match=r"gguf_file: the model has no file 'no\.gguf'"):
        model.fetch(recipe, tmp_path / "cache")


ENCODERS = {
    "bert", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert", "reformer", "rembert",
    "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip


def test_encoders_are_refused_unless_they_are_made_decoders_and_no_other_kind_is(tmp_path: Path) -> None:
    recipe = twin("opt-350m-lora", tmp_path)
    kinds = sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - {"gemma4_assistant"})  # needs more than its kind
    assert {kind for kind in kinds if refused(recipe, kind)} == ENCODERS
    assert not {kind for kind in ENCODERS if refused(recipe, kind, is_decoder=True)}


def refused(recipe: Recipe, kind: str, **settings: bool) -> bool:
    """Whether a kind of model is said to be no causal one."""
    config = recipe.file.parent / "model/config.json"
    config.write_text(json.dumps({"model_type": kind, **settings}))
    try:
        load_config(recipe, config.parent)
    except loracook.RecipeError as error:
        (problem,) = error.problems
        return "is not a causal language model; loracook trains causal" in problem.message
    return False


@pytest.mark.skipif(torch.cuda.is_available(), reason="FlashAttention may be there")
@pytest.mark.parametrize("name", ["flash_attention_2", "flash_attention_3"])
def test_flash_attention_that_is_not_installed_is_a_sentence(name: str, tmp_path: Path) -> None:
    recipe = twin("opt-350m-lora", tmp_path, base_model={"attn_implementation": name})
    with pytest.raises(MachineError, match=r"cannot be built here: .*; write attn_implementation: sdpa$"):
        model.load_on_meta(recipe, tmp_path / "model")
