"""A tiny config of every kind of causal model that the installed transformers has, shrunk by key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

WIDTH, HEADS, HEAD, LAYERS = 64, 4, 16, 2
SIZES = {
    r"(\w+_)?vocab_size(_per_layer_input)?": 400,
    r"(\w+_)?hidden_size(_per_layer_input)?|d_model|n_embd|dim|(\w+_)?embed_dim|embedding_size|word_embed_proj_dim"
    r"|emb_dim|embedding_dim|lru_width|attention_hidden_size": WIDTH,
    r"(\w+_)?intermediate_size(_mlp)?|(\w+_)?ffn_dim|d_ff|dff|dim_ff|(\w+_)?ffn_hidden_size|mlp_dim"
    r"|feed_forward_size|mamba_d_ssm": WIDTH * 2,
    r"(num_|n_|\w+_)?(hidden_)?layers?|depth|num_blocks": LAYERS,
    r"(\w+_)?num_key_value_heads|num_kv_heads|num_query_groups": HEADS // 2,
    r"(num_|n_|\w+_)?(attention_)?heads?": HEADS,
    r"(\w+_)?head_dim|kv_channels|dim_head|d_head|d_kv|mamba_d_head|mamba_headdim|attention_head_size": HEAD,
    r"(num_|n_|moe_num_)(local_|routed_)?experts": 4,
    r"num_experts_per_tok|moe_topk|moe_k": 2,
    r"(\w+_)?(lora_)?rank": HEAD,
    r"image_size|crop_size": 32,
    r"patch_size": 16,
    r"max_position_embeddings|n_positions|n_ctx|max_seq_len|model_max_length": 512,
}
"""What numbers of a config become, by their names."""
TEXT = {"layer_types": ["full_attention"] * LAYERS}
OWN: dict[str, dict[str, Any]] = {
    "bamba": {"mamba_n_heads": 8},
    "falcon_h1": {"mamba_n_heads": 8},
    "granitemoehybrid": {"mamba_n_heads": 8},
    "mamba2": {"num_heads": 8},
    "dbrx": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "reformer": {"is_decoder": True},
    "musicgen": {},
}
"""What else of a kind has to differ."""
LEFT_OUT = (
    "transformers_version",
    "model_type",
    "architectures",
    "dtype",
    "attention_layers",
    "id2label",
    "label2id",
)


def causal_kinds() -> list[type[PretrainedConfig]]:
    """The config class of every kind, sorted by the name of its kind."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING.keys(), key=lambda kind: str(kind.model_type))


def tiny(kind: type[PretrainedConfig]) -> PretrainedConfig:
    """A config of a few narrow layers, one of each type that the kind has."""
    return kind(**_shrunk(kind().to_dict()) | OWN.get(kind.model_type, {}))


def _shrunk(config: Mapping[str, Any]) -> dict[str, Any]:
    types = list(dict.fromkeys(config.get("layer_types") or []))
    layers, number = config.get("num_hidden_layers"), max(LAYERS, len(types))
    kept = {key: value for key, value in config.items() if key not in LEFT_OUT}
    return {key: _small(key, value, layers, number, types) for key, value in kept.items()}


def _small(key: Any, value: Any, layers: int | None, number: int, types: list[str]) -> Any:
    key = str(key)
    if isinstance(value, dict):
        if key == "per_layer_config":
            return {}
        return _shrunk(value) | ({"model_type": value["model_type"]} if "model_type" in value else {})
    if isinstance(value, list) and (key == "layer_types" or len(value) == layers):
        ts = list(dict.fromkeys(value)) if all(isinstance(v, (str,)) for v in value) else value[:1]
        ts = [_small(key, t, None, number, types) if not isinstance(t, str) else t for t in ts]
        return (ts * number)[:number]
    if key.endswith("_token_id"):
        return value if value is None or isinstance(value, list) else min(value, 1)
    if isinstance(value, bool) or not isinstance(value, int) or not value:
        return value
    size = next((size for pattern, size in SIZES.items() if re.fullmatch(pattern, key)), value)
    return min(number if key == "num_hidden_layers" else size, value)
