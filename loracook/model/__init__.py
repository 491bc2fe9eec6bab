"""The base model: fetching and loading it, and the modules that an adapter is applied to."""

from loracook.model.adapter import check_modules, lora_config
from loracook.model.fetch import commit, fetch, fetch_description, fetch_tokenizer, files
from loracook.model.hub_info import HubInfo, hub_info
from loracook.model.inference import generate, mean_loss
from loracook.model.load import (
    fit_embeddings,
    has_accelerator,
    load_config,
    load_model,
    load_on_meta,
    load_tokenizer,
    load_tuned,
    load_unquantized,
    tokenizer_in,
)
from loracook.model.reached import left_out
from loracook.model.unsupported import check_prompts, check_rows, unsupported
