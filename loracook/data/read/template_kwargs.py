"""A row's own arguments for the chat template, as TRL takes them from the column `chat_template_kwargs`."""

from collections.abc import Mapping
from typing import Any

from loracook.data.read.rows import RowError
from loracook.data.read.tool_calls import decoded

RESERVED = frozenset(
    (
        *("messages", "conversation", "conversations", "tools", "chat_template", "add_generation_prompt"),
        *("continue_final_message", "return_assistant_tokens_mask", "tokenize", "sanitize_control_tokens"),
        *("padding", "truncation", "max_length", "return_tensors", "return_dict", "tokenizer_kwargs"),
        *("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"),
        *("processor_kwargs", "kwargs", "raise_exception", "strftime_now"),
    )
)
"""Arguments of apply_chat_template and names that it gives to templates: what loracook sets itself."""


def template_kwargs(value: object) -> Mapping[str, Any]:
    """The arguments that a row has for its chat template; raises RowError for those that it may not set."""
    value = decoded(value, "chat_template_kwargs") or {}
    if not isinstance(value, dict):
        raise RowError("invalid chat_template_kwargs", "it is not a mapping")
    if reserved := sorted(RESERVED.intersection(value)):
        raise RowError("invalid chat_template_kwargs", f"a row may not set {', '.join(map(repr, reserved))}")
    return value
