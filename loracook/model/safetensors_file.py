"""A safetensors file written tensor by tensor; the package's own writer holds all of them, and a copy."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
"""The names of torch's dtypes in a file (https://huggingface.co/docs/safetensors, Format)."""
ALIGNED = 8
"""Bytes that the header is a multiple of."""


def dtype_in_file(name: str) -> torch.dtype:
    """torch's dtype by its name in a file; raises ValueError for one that torch has not, or loracook."""
    import torch

    found = next((ours for ours, theirs in DTYPES.items() if theirs == name), None)
    if found is None:
        raise ValueError(f"a weight is stored as {name}")
    dtype: torch.dtype = getattr(torch, found)
    return dtype


def write_safetensors(file: Path, outlines: Mapping[str, Tensor], tensors: Iterable[Tensor]) -> None:
    """Write `tensors`, of the names, shapes and dtypes of `outlines` in their order, and sync the file."""
    import torch

    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, outline in outlines.items():
        start, end = end, end + outline.numel() * outline.element_size()
        kind = DTYPES[str(outline.dtype).removeprefix("torch.")]
        header[name] = {"dtype": kind, "shape": list(outline.shape), "data_offsets": [start, end]}  # type: ignore[dict-item]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNED)
    with file.open("xb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for (name, outline), tensor in zip(outlines.items(), tensors, strict=True):
            if (tensor.shape, tensor.dtype) != (outline.shape, outline.dtype):
                raise AssertionError(f"{name} is {tensor.shape} {tensor.dtype}")
            out.write(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        out.flush()
        os.fsync(out.fileno())
