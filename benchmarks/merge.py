"""A merge weight by weight, beside PEFT's merge of the whole model and beside copying the files.

The base model is SmolLM2-135M of the quickstart saved in eight shards, the adapter a random one of rank 16 on
all linear modules. Each way runs in a process of its own, which states the seconds and how much its memory
grew while merging and saving; imports are left out.

    python benchmarks/merge.py [--large]

With --large, the base model is a random one of 1.7 billion parameters, whose files take 3.4 GB.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loracook
from loracook import model
from loracook.machine import memory
from loracook.recipe.recipe import Recipe
from loracook.store.folders import default_cache

RECIPE = Path(__file__).parent.parent / "recipes" / "quickstart.yaml"
SHARDS = 8
TEXT = """version: 1
name: merged
base_model: {name_or_path: ./base, dtype: bfloat16}
dataset: {path: ./rows.jsonl, format: text}
lora: {r: 16, target_modules: all-linear}
train: {max_steps: 1, max_length: 64}
merge: {}
"""


def main() -> None:
    """Print a table, a line for each way."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, large="--large" in sys.argv)
        shards = sorted((folder / "base").glob("*.safetensors"))
        megabytes = [file.stat().st_size / 1e6 for file in shards]
        adapter = (folder / "adapter/adapter_model.safetensors").stat().st_size / 1e6
        print(f"{len(shards)} shards of {sum(megabytes):.0f} MB, the largest {max(megabytes):.0f} MB")
        print(f"adapter of {adapter:.0f} MB")
        for way in WAYS:
            done = subprocess.run(
                [sys.executable, __file__, way, name], check=True, capture_output=True, text=True
            )
            print(done.stdout.splitlines()[-1])


def prepare(folder: Path, *, large: bool) -> None:
    """Save the base model in shards, and a random adapter for it."""
    import torch
    from peft import get_peft_model

    quickstart = loracook.load(RECIPE)
    found = model.fetch(quickstart, default_cache())
    causal = random_model() if large else model.load_model(quickstart, found, "bfloat16")
    size = sum(weight.numel() * weight.element_size() for weight in causal.parameters())
    causal.save_pretrained(folder / "base", max_shard_size=size // SHARDS)
    tokenizer = model.load_tokenizer(quickstart, found)
    tokenizer.save_pretrained(folder / "base")
    (folder / "rows.jsonl").write_text('{"text": "Soup"}\n')
    (folder / "recipe.yaml").write_text(TEXT)
    recipe = loracook.load(folder / "recipe.yaml")
    tuned = get_peft_model(causal, model.lora_config(recipe))
    torch.manual_seed(0)
    for weight_name, weight in tuned.named_parameters():
        if "lora_B" in weight_name:
            torch.nn.init.normal_(weight, std=0.01)
    tuned.save_pretrained(folder / "adapter")
    tokenizer.save_pretrained(folder / "adapter")


def random_model() -> Any:
    """A model with the shape of SmolLM2-1.7B."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=24, num_attention_heads=32,
        num_key_value_heads=32, vocab_size=49_152, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    return LlamaForCausalLM(shape)


def measured(way: str, folder: Path) -> None:
    """Do it once to have everything imported, then once more, and print what that took."""
    recipe = loracook.load(folder / "recipe.yaml")
    WAYS[way](recipe, folder)
    before, start = memory.baseline("cpu"), time.perf_counter()
    WAYS[way](recipe, folder)
    seconds, grown = time.perf_counter() - start, memory.peak_above(before, "cpu")
    print(f"{way:<16}{seconds:6.2f} s   peak {(grown or 0) / 1e6:6.0f} MB above the start")


def copy(recipe: Recipe, folder: Path) -> None:
    """Copy the files of the base model, and sync them."""
    import os

    out = fresh(folder)
    out.mkdir()
    for file in (folder / "base").glob("*.safetensors"):
        shutil.copyfile(file, out / file.name)
        with (out / file.name).open("rb+") as copied:
            os.fsync(copied.fileno())


def weight_by_weight(recipe: Recipe, folder: Path) -> None:
    """The merge as loracook does it."""
    merge = model.streamed_merge(recipe, folder / "base", folder / "adapter", dtype="bfloat16")
    merge.save(fresh(folder))


def whole_model(recipe: Recipe, folder: Path) -> None:
    """PEFT's own merge."""
    base = model.load_to_merge(recipe, folder / "base", "bfloat16")
    model.load_tuned(recipe, base, folder / "adapter").merge_and_unload().save_pretrained(fresh(folder))


def fresh(folder: Path) -> Path:
    """Where to write, empty."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    return folder / "out"


WAYS: dict[str, Callable[[Recipe, Path], None]] = {
    "copy": copy,
    "weight by weight": weight_by_weight,
    "whole model": whole_model,
}


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measured(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
