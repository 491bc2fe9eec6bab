"""Rules that join two entries of a recipe; each gives the problems it finds in valid data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from loracook.errors import Problem

Data = dict[str, Any]
Rule = Callable[[Data], Iterator[Problem]]


def four_and_eight_bit(data: Data) -> Iterator[Problem]:
    """bitsandbytes loads in 4 bit or in 8 bit."""
    quantization = data.get("quantization", {})
    if quantization.get("load_in_4bit") and quantization.get("load_in_8bit"):
        path = ("quantization", "load_in_8bit")
        yield Problem(path, "4 bit and 8 bit exclude each other; remove one of the two", "four-and-eight-bit")


def quantization_without_lora(data: Data) -> Iterator[Problem]:
    """Quantized weights cannot be trained; an adapter on them can."""
    if "quantization" in data and "lora" not in data:
        message = "quantized weights cannot be trained themselves; add a 'lora:' section or remove this one"
        yield Problem(("quantization",), message, "quantization-without-lora")


def merge_without_lora(data: Data) -> Iterator[Problem]:
    """Merging puts an adapter into its base model."""
    if "merge" in data and "lora" not in data:
        message = "there is no adapter to merge; add a 'lora:' section or remove this one"
        yield Problem(("merge",), message, "merge-without-lora")


def push_without_place(data: Data) -> Iterator[Problem]:
    """A push needs to know where to."""
    push = data.get("push")
    if push is not None and "repo_id" not in push and "folder" not in push:
        message = "nowhere to push to; write 'repo_id: organization/name' or 'folder: name'"
        yield Problem(("push",), message, "push-without-place")


RULES: tuple[Rule, ...] = (
    four_and_eight_bit,
    quantization_without_lora,
    merge_without_lora,
    push_without_place,
)
