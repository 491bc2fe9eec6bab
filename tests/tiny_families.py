"""A tiny config of every kind of causal model that the installed transformers has, shrunk by the names of its keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

WIDTH, HEADS, HEAD, LAYERS = 64, 4, 16, 2
SIZES = {
    r"(\w+_)?vocab_size(_per_layer_input)?": 400,
    r"(\w+_)?hidden_size(_per_layer_input)?|d_model|n_embd|dim|(\w+_)?embed_dim|embedding_size"
    r"|word_embed_proj_dim|emb_dim|embedding_dim|lru_width|attention_hidden_size": WIDTH,
    r"(\w+_)?intermediate_size(_mlp)?|(\w+_)?ffn_dim|d_ff|dff|dim_ff|(\w+_)?ffn_hidden_size|mlp_dim"
    r"|feed_forward_size|mamba_d_ssm": WIDTH * 2,
    r"(num_|n_|\w+_)?(hidden_)?layers?|depth|num_blocks": LAYERS,
    r"(\w+_)?num_key_value_heads|num_kv_heads|num_query_groups": HEADS // 2,
    r"(num_|n_|\w+_)?(attention_)?heads?": HEADS,
    r"(\w+_)?head_dim|kv_channels|dim_head|d_head|d_kv|mamba_d_head|mamba_headdim|attention_head_size": HEAD,
    r"(num_|n_|moe_num_)(local_|routed_)?experts": 4,
    r"num_experts_per_tok|moe_topk|moe_k": 2,
    r"(\w+_)?(lora_)?rank": HEAD,
    r"rotary_dim": HEAD // 2,
    r"image_size|crop_size": 32,
    r"patch_size": 16,
    r"max_position_embeddings|n_positions|n_ctx|max_seq_len|model_max_length": 512,
}
"""What numbers of a config become at most, by their names."""
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": HEAD, "mamba_expand": 2}
OWN: dict[str, dict[str, Any]] = {
    "bamba": MAMBA,
    "falcon_h1": MAMBA,
    "granitemoehybrid": MAMBA,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "hunyuan_v1_dense": {"head_dim": HEAD},
    "hunyuan_v1_moe": {"head_dim": HEAD},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": HEAD},
    "nemotron": {"head_dim": HEAD},
    "reformer": {"is_decoder": True},
}
"""What else has to differ for a kind."""
LEFT_OUT = (
    "transformers_version",
    "model_type",
    "architectures",
    "dtype",
    "attention_layers",
    "id2label",
    "label2id",
)


def causal_kinds() -> dict[str, type[PretrainedConfig]]:
    """The config class of every kind of causal model by its name."""
    return {str(kind.model_type): kind for kind in MODEL_FOR_CAUSAL_LM_MAPPING}


def tiny(name: str) -> PretrainedConfig:
    """A config of a few narrow layers, one of each type that the kind has."""
    kind = causal_kinds()[name]
    return kind(**_shrunk(kind().to_dict()) | OWN.get(name, {}))


def _shrunk(config: Mapping[str, Any]) -> dict[str, Any]:
    types = list(dict.fromkeys(config.get("layer_types") or ()))
    layers, few = config.get("num_hidden_layers"), max(LAYERS, len(types))
    small = {key: _small(key, value, layers, few) for key, value in config.items() if key not in LEFT_OUT}
    if small.get("kv_lora_rank"):  # whose attention has a key of its own for every head
        small["num_key_value_heads"] = HEADS
    return small


def _small(key: str, value: Any, layers: int | None, few: int) -> Any:
    if isinstance(value, dict):
        kind = {"model_type": value["model_type"]} if "model_type" in value else {}
        return {} if key == "per_layer_config" else _shrunk(value) | kind
    if isinstance(value, list) and value and len(value) == layers:
        kinds = list(dict.fromkeys(value)) if isinstance(value[0], str) else value[:1]
        return ([_small(key, one, None, few) for one in kinds] * few)[:few]
    if isinstance(value, bool | float | str | list | None) or not value:
        return value
    if key.endswith("_token_id"):
        return min(value, 1)
    if key == "num_hidden_layers":
        return min(few, value)
    return min(next((size for pattern, size in SIZES.items() if re.fullmatch(pattern, key)), value), value)
