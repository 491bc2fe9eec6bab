"""The base model: fetching and loading it, and the modules that an adapter lands on."""

from loracook.model.adapter import check_modules, lora_config
from loracook.model.fetch import commit, fetch, fetch_description, fetch_tokenizer, files
from loracook.model.generate import generate
from loracook.model.load import (
    fit_embeddings,
    has_accelerator,
    load_config,
    load_model,
    load_tokenizer,
    load_tuned,
    load_unquantized,
    skeleton,
)
from loracook.model.mean_loss import mean_loss

__all__ = [
    "check_modules",
    "commit",
    "fetch",
    "fetch_description",
    "fetch_tokenizer",
    "files",
    "fit_embeddings",
    "generate",
    "has_accelerator",
    "load_config",
    "load_model",
    "load_tokenizer",
    "load_tuned",
    "load_unquantized",
    "lora_config",
    "mean_loss",
    "skeleton",
]
