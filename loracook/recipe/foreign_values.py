"""Keys of other tools whose values are spelt otherwise here, too, and how each is translated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Change = Callable[[Any], tuple[str, Any]]
PRECISIONS = {"fp16": True, "bf16": True, "no": False, "fp32": False, "false": False}
VALUES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "fp32": "float32",
    "float": "float32",
    "fa2": "flash_attention_2",
    "fa3": "flash_attention_3",
    "disabled": "eager",
    "adam": "adamw_torch",
    "adamw": "adamw_torch",
    "adamw_hf": "adamw_torch",
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chat": "messages",
    "chat_template": "messages",
    "completion": "prompt_completion",
}
"""What other tools call a value."""


def _listed(value: Any) -> Any:
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


def _targets(value: Any) -> tuple[str, Any]:
    return "lora.target_modules", "all-linear" if value in ("all", "all-linear", ["all"]) else _listed(value)


def _dtype(value: Any) -> Any:
    text = str(value).removeprefix("torch.")
    return VALUES.get(text, text)


def _held_out(value: Any) -> tuple[str, Any]:
    if value in (0, "0"):
        return "dataset", None
    rows = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return ("dataset.eval.rows" if rows else "dataset.eval.fraction"), value


def _bits(value: Any) -> tuple[str, Any]:
    if value in (16, 32):
        return "quantization", None
    return f"quantization.load_in_{8 if value == 8 else 4}bit", True if value in (4, 8) else None


def _loss(value: Any) -> tuple[str, Any]:
    return "template.loss", {"True": "all", "False": "assistant"}.get(str(value))


def _precision(value: Any) -> tuple[str, Any]:
    return ("train.fp16" if value == "fp16" else "train.bf16"), PRECISIONS.get(str(value).lower())


def _to(path: str, translate: Callable[[Any], Any]) -> Change:
    return lambda value: (path, translate(value))


def _switched(path: str, meaning: str) -> Change:
    """A switch of another tool that is a value here, and nothing at all where it is off."""
    off = path.partition(".")[0]
    return lambda value: (off, None) if value is False else (path, meaning if value is True else None)


def _learned(meaning: str) -> Change:
    return lambda value: ("template.loss", meaning if value is True else None)


CHANGED: dict[str, Change] = {
    "targets": _targets,
    "lora_target": _targets,
    "lora_target_modules": _targets,
    "lora_target_linear": _switched("lora.target_modules", "all-linear"),
    "lora_modules_to_save": _to("lora.modules_to_save", _listed),
    "additional_target": _to("lora.modules_to_save", _listed),
    "torch_dtype": _to("base_model.dtype", _dtype),
    "model_dtype": _to("base_model.dtype", _dtype),
    "compute_dtype": _to("quantization.bnb_4bit_compute_dtype", _dtype),
    "flash_attn": _to("base_model.attn_implementation", lambda value: VALUES.get(str(value), value)),
    "flash_attention": _switched("base_model.attn_implementation", "flash_attention_2"),
    "use_flash_attention_2": _switched("base_model.attn_implementation", "flash_attention_2"),
    "sdp_attention": _switched("base_model.attn_implementation", "sdpa"),
    "eager_attention": _switched("base_model.attn_implementation", "eager"),
    "datasets": _to("dataset.sources", lambda value: None),
    "val_size": _held_out,
    "val_set_size": _held_out,
    "train_on_inputs": _loss,
    "train_on_prompt": _loss,
    "assistant_only_loss": _learned("assistant"),
    "completion_only_loss": _learned("completion"),
    "mask_history": _learned("last_turn"),
    "bits": _bits,
    "quantization_bit": _bits,
    "load_in_2bit": _to("quantization.load_in_4bit", lambda value: None),
    "load_in_3bit": _to("quantization.load_in_4bit", lambda value: None),
    "load_in_5bit": _to("quantization.load_in_4bit", lambda value: None),
    "load_in_6bit": _to("quantization.load_in_4bit", lambda value: None),
    "optimizer": _to("train.optim", lambda value: VALUES.get(str(value).lower(), value)),
    "group_by_length": _switched("train.train_sampling_strategy", "group_by_length"),
    "length_grouped_batches": _switched("train.train_sampling_strategy", "group_by_length"),
    "mixed_precision": _precision,
}
