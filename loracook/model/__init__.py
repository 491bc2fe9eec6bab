"""The base model: fetching and loading it, and the modules that an adapter is applied to."""

from loracook.model.adapter import check_modules, lora_config, train_in_float32
from loracook.model.contents import unused_keys
from loracook.model.fetch import fetch, fetch_description, fetch_tokenizer, files
from loracook.model.finite import not_finite
from loracook.model.generation_config import generation_settings
from loracook.model.gguf_export import try_export
from loracook.model.hub_info import HubInfo, hub_info
from loracook.model.inference import Generated, RowLoss, generate, row_losses
from loracook.model.load import (
    fit_embeddings,
    has_accelerator,
    load_config,
    load_model,
    load_on_meta,
    load_unquantized,
)
from loracook.model.logits import agreement, logits_of
from loracook.model.merged_check import Expected, expected_logits, unlike
from loracook.model.merging import (
    PROBES,
    PUSH_THE_ADAPTER,
    WholeMerge,
    different_tokens,
    load_merged,
    load_to_merge,
    trains_quantized,
    try_merge,
    try_tokenizer,
    where_it_fits,
)
from loracook.model.own_code import own_code
from loracook.model.own_tokenizer import tokenized
from loracook.model.quantized import (
    check_loadable,
    is_quantized,
    quantization_in_training,
    quantization_notes,
    quantization_problems,
    stored_quantization,
)
from loracook.model.reached import left_out
from loracook.model.saved_adapter import add_adapter, load_tuned, other_adapter, saved_tokenizer
from loracook.model.serving import Serving, adapter_serving, merged_serving
from loracook.model.start_from import (
    check_start,
    load_start,
    on_its_base,
    start_adapter,
    start_files,
    start_notes,
    started,
)
from loracook.model.streamed_merge import NotStreamedError, StreamedMerge, streamed_merge, whole_merge_reason
from loracook.model.tokenizer import load_tokenizer, read_tokenizer, tokenizer_files, tokenizer_in
from loracook.model.unsupported import check_prompts, check_rows, most_positions, unsupported
