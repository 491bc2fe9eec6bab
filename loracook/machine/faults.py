"""What stands around a stage: a fault of the machine becomes an error that the user can mend."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loracook.errors import LoracookError, MachineError
from loracook.store.files import free_bytes
from loracook.units import size

DISK = "free some room, write a lower train.save_total_limit, or name other folders"
FOLDERS = "--runs DIR, LORACOOK_CACHE=DIR or HF_HOME=DIR"
ADVICE = {
    "train": "write train.per_device_train_batch_size: 1 with a larger gradient_accumulation_steps, "
    "a smaller train.max_length, or quantization: {load_in_4bit: true}",
    "evaluate": "write evaluate.batch_size: 1 or a smaller evaluate.generation.max_new_tokens",
    "merge": "write merge.dtype: bfloat16, or merge on a machine with more memory: --only merge",
    "push": "stop other programs and run the same command again",
}
"""What helps a stage that is out of memory."""
FULL_DISK = re.compile(
    r"No space left on device|PytorchStreamWriter failed"
    r"|unexpected pos \d+ vs \d+"  # torch, amid a file
    r"|basic_ios::clear: iostream error"  # torch, at its end
    r"|\d+ requested and \d+ written"  # numpy
    r"|Not enough disk space"  # datasets
)
UNUSABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EIO}
"""What the system says of a file or folder that is there and cannot be used."""


@contextmanager
def mended(stage: str, *places: Path) -> Iterator[None]:
    """Turn a fault of this machine into MachineError, and note on any other error the stage it came from.

    `places` are the folders that the stage writes to.
    """
    try:
        yield
    except LoracookError:
        raise
    except Exception as error:
        if said := said_of(error, places, ADVICE[stage]):
            raise MachineError(f"{stage}: {said}") from error
        error.add_note(f"in the stage {stage}")
        raise


def said_of(error: Exception, places: Sequence[Path], memory: str = ADVICE["push"]) -> str | None:
    """What is wrong with this machine, in sizes, and what to do; None when it is something else.

    Args:
        error: what was raised.
        places: the folders that were written to.
        memory: what helps where memory ran out.
    """
    short = shortage(error)
    if short == "memory":
        return f"out of memory; {memory}"
    if short == "disk":
        free = ", ".join(f"{size(free_bytes(place))} at {place}" for place in (*places, *_hub_cache()))
        return f"out of disk: free are {free}; {DISK}: {FOLDERS}"
    if isinstance(error, OSError) and error.errno in UNUSABLE and error.filename:
        why = (error.strerror or "").lower()
        return f"{error.filename} cannot be used: {why}; mend that, or name other folders: {FOLDERS}"
    return None


def _hub_cache() -> list[Path]:
    """Where huggingface_hub keeps what it fetches, if this process made use of it."""
    constants = sys.modules.get("huggingface_hub.constants")
    return [Path(constants.HF_HUB_CACHE)] if constants else []


def shortage(error: Exception) -> str | None:
    """What this machine had too little of, "disk" or "memory", or None when it is something else.

    torch and safetensors raise errors of their own, which only quote the system's words.
    """
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or FULL_DISK.search(str(error)):
        return "disk"
    torch = sys.modules.get("torch")
    memory = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
    if memory or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return "memory"
    return shortage(error.__cause__) if isinstance(error.__cause__, Exception) else None
