"""Errors of this machine: a full disk, too little memory or an unusable folder, and what to do about it."""

import errno
import logging
import re
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from loracook.errors import LoracookError, MachineError, reworded
from loracook.machine.memory import tightest_limit
from loracook.store.files import free_bytes
from loracook.units import size

OTHER_FOLDERS = "--runs DIR, LORACOOK_CACHE=DIR or HF_HOME=DIR"
FREE_DISK = f"free some space, set a lower train.save_total_limit, or use other folders: {OTHER_FOLDERS}"
CLOSE_PROGRAMS = "close other programs and run the same command again"
FULL_DISK = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|PytorchStreamWriter failed"
    r"|unexpected pos \d+ vs \d+"  # torch, in the middle of a file
    r"|basic_ios::clear: iostream error"  # torch, at its end
    r"|\d+ requested and \d+ written"  # numpy
    r"|Not enough disk space"  # datasets
)
FULL_GPU = re.compile(
    r"CUDA (error: )?out of memory|CUBLAS_STATUS_ALLOC_FAILED"
    r"|Cuda failure (\d+ )?'out of memory'"  # NCCL
)
"""What torch says of a GPU's memory, its own and what CUDA's libraries take beside it."""
FULL_MEMORY = re.compile(
    r"can't allocate memory"  # torch
    r"|[Cc]annot allocate memory|failed to map segment"  # the loader of shared libraries
    r"|can't start new thread"
)
FULL_DISK_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Error numbers of a full disk, a quota, and a limit on the size of files."""
FILES = 1024
"""Open files that a run may need; what most systems allow."""
UNUSABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EIO,
    errno.ELOOP,
}
"""Error numbers that mean that an existing file or folder cannot be used."""


@contextmanager
def machine_errors(stage: str, *folders: Path, advice: str) -> Iterator[None]:
    """Turn errors of this machine into MachineError, and add the stage's name to any other error as a note.

    `folders` are those that the stage writes to, `advice` helps where it runs out of memory.
    """
    try:
        yield
    except LoracookError as error:
        if error.__cause__:
            logging.getLogger("loracook").exception("%s failed", stage)
        raise
    except Exception as error:  # a library may report a full disk or memory by any type of error
        if message := machine_fault(error, folders, advice):
            logging.getLogger("loracook").exception("%s failed", stage)
            raise reworded(MachineError(f"{stage}: {message}"), error) from error
        error.add_note(f"in the stage {stage}")
        raise


def machine_fault(error: BaseException, folders: Sequence[Path], advice: str = CLOSE_PROGRAMS) -> str | None:
    """What is wrong with this machine and what to do, as a message; None when the error is something else."""
    short = shortage(error)
    if short == "memory":
        limit = ""
        with suppress(MemoryError):  # looking for it takes some, too
            limit = "" if _is_of_a_gpu(error) else tightest_limit()
        return f"out of memory{f' within {limit}' if limit else ''}; {advice}"
    if short == "disk":
        hub = sys.modules.get("huggingface_hub.constants")  # only if this process has imported it
        caches = [Path(hub.HF_HUB_CACHE)] if hub else []
        free = ", ".join(f"{size(free_bytes(path))} free at {path}" for path in (*folders, *caches))
        return f"disk full: {free}{_file_limit()}; {FREE_DISK}"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"too many open files; raise the limit: ulimit -n {FILES}"
    if isinstance(error, OSError) and error.filename and _is_unusable(error, folders):
        why = (error.strerror or "").lower()
        return f"cannot use {error.filename}: {why}; fix that, or use other folders: {OTHER_FOLDERS}"
    return None


def _is_of_a_gpu(error: BaseException) -> bool:
    """Whether memory of a GPU ran out, which the limits of main memory have nothing to do with."""
    cause = error.__cause__
    return bool(FULL_GPU.search(str(error))) or (cause is not None and _is_of_a_gpu(cause))


def _is_unusable(error: OSError, folders: Sequence[Path]) -> bool:
    """Whether a file or folder cannot be used, or one of ours cannot be made, as below /proc."""
    above = {str(each) for folder in folders for each in (folder, *folder.parents)}
    return error.errno in UNUSABLE or (error.errno == errno.ENOENT and str(error.filename) in above)


def _file_limit() -> str:
    """The limit on the size of files, as part of a message; empty where there is none."""
    most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return "" if most == resource.RLIM_INFINITY else f", files limited to {size(most)} (ulimit -f)"


def shortage(error: BaseException) -> str | None:
    """What ran out, "disk" or "memory", or None when the error is something else.

    torch and safetensors raise errors of their own, which only quote the system's message.
    """
    full = isinstance(error, OSError) and error.errno in FULL_DISK_NUMBERS
    if full or FULL_DISK.search(str(error)):
        return "disk"
    torch = sys.modules.get("torch")
    memory = isinstance(error, MemoryError) or FULL_MEMORY.search(str(error)) or FULL_GPU.search(str(error))
    if memory or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return "memory"
    return shortage(error.__cause__) if isinstance(error.__cause__, Exception) else None
