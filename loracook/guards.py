"""What stands around a stage: a shortage of disk or memory becomes an error that the user can mend."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from loracook.errors import LoracookError, MachineError

DISK = "free some room, write a lower train.save_total_limit, or name another folder: --runs DIR"
ADVICE = {
    "train": "write train.per_device_train_batch_size: 1 with a larger gradient_accumulation_steps, "
    "a smaller train.max_length, or quantization: {load_in_4bit: true}",
    "evaluate": "write evaluate.batch_size: 1 or a smaller evaluate.generation.max_new_tokens",
    "merge": "write merge.dtype: bfloat16, or merge on a machine with more memory: --only merge",
    "push": "stop other programs and run the same command again",
}
"""What helps a stage that is out of memory."""
FULL_DISK = ("No space left on device", "PytorchStreamWriter failed")


@contextmanager
def mended(stage: str) -> Iterator[None]:
    """Turn a full disk or memory into MachineError, and note on any other the stage it came from."""
    try:
        yield
    except LoracookError:
        raise
    except Exception as error:
        short = shortage(error)
        if short is not None:
            advice = DISK if short == "disk" else ADVICE[stage]
            raise MachineError(f"{stage}: out of {short}; {advice}") from error
        error.add_note(f"in the stage {stage}")
        raise


def shortage(error: Exception) -> str | None:
    """What this machine had too little of, "disk" or "memory", or None when it is something else.

    torch and safetensors raise errors of their own, which only quote the system's words.
    """
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or any(words in str(error) for words in FULL_DISK):
        return "disk"
    torch = sys.modules.get("torch")
    memory = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
    if memory or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return "memory"
    return None
