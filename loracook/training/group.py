"""The processes that train together: who this one is, and what all of them have to agree on.

A process learns of its place from RANK, WORLD_SIZE and LOCAL_RANK, which torchrun and others set. What is
exchanged here goes through main memory (gloo): it waits for no GPU and runs into no timeout of a step.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from loracook.errors import LoracookError, MachineError, quote
from loracook.model.load import has_accelerator

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

T = TypeVar("T")
PLACE = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What a process has to know besides WORLD_SIZE to join the others."""
NUMBER = re.compile(r"0|[1-9]\d{0,8}", re.ASCII)
ONE_GPU = re.compile(r"[^,]+")
"""What CUDA_VISIBLE_DEVICES names where Slurm gives each task a GPU of its own."""
ADVICE = "start it with torchrun, or unset WORLD_SIZE"
PATIENCE = timedelta(days=7)
"""How long one process waits for another that prepares data; the launcher notices a dead one."""


def size() -> int:
    """How many processes train together."""
    return max(1, _number("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process; the first one, 0, writes and reports."""
    return _number("RANK", "0") if size() > 1 else 0


def _number(name: str, default: str) -> int:
    """The whole number in an environment variable; raises LoracookError where it is none."""
    text = os.environ.get(name, default)
    if not NUMBER.fullmatch(text):
        raise LoracookError(f"the environment variable {name} is {quote(text)}, not a number; unset it")
    return int(text)


def is_first() -> bool:
    """Whether this process writes and reports."""
    return rank() == 0


@cache
def _group() -> ProcessGroup:
    """The group for what is exchanged here."""
    import torch
    from accelerate import PartialState

    PartialState(cpu=not has_accelerator())  # each process on a device of its own
    group: ProcessGroup = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
    return group


def meet() -> None:
    """Join the other processes, which wait for this one for ten minutes with GPUs (NCCL), and no longer."""
    if size() > 1:
        _group()


def from_first(make: Callable[[], T]) -> T:
    """What a function gives in the first process, in all of them."""
    if size() == 1:
        return make()
    import torch

    values: list[Any] = [make() if is_first() else None]
    torch.distributed.broadcast_object_list(values, src=0, group=_group())
    made: T = values[0]
    return made


def gathered(value: T) -> list[T]:
    """The value of each process, in the order of their numbers."""
    if size() == 1:
        return [value]
    import torch

    values: list[Any] = [None] * size()
    torch.distributed.all_gather_object(values, value, group=_group())
    return values


def first_of(value: T | None) -> T | None:
    """The value of the first process that has one."""
    return next((each for each in gathered(value) if each), None)


def any_of(flag: bool) -> bool:
    """Whether a flag is set in any process."""
    if size() == 1:
        return flag
    import torch

    total = torch.tensor(int(flag))
    torch.distributed.all_reduce(total, group=_group())
    return bool(total)


@contextmanager
def first_before_others() -> Iterator[None]:
    """Let the first process do the block alone, then the first of each machine, then all others."""
    mine = 0 if is_first() else 1 if os.environ.get("LOCAL_RANK") == "0" else 2
    for turn in range(3 if size() > 1 else 0):
        if turn == mine:
            break
        gathered(None)
    yield
    for _ in range(mine, 3 if size() > 1 else 0):
        gathered(None)


def check_same(facts: dict[str, Any], what: str) -> None:
    """Raise MachineError where facts are not the same in every process, naming the first that is not."""
    first, *others = gathered(facts)
    for number, theirs in enumerate(others, 1):
        for name, value in first.items():
            if theirs.get(name) != value:
                differ = f"{name} is {value} in process 0 and {theirs.get(name)} in process {number}"
                raise MachineError(f"{what}: {differ}")


_lost: list[bool] = [False]
"""Whether something has failed here in the middle of a job, so that the others no longer listen."""


@contextmanager
def together(job: Any) -> Iterator[None]:
    """Let the other processes take a job while the block does its part of it."""
    if is_first():
        from_first(lambda: job)
    try:
        yield
    except BaseException:
        _lost[0] = True
        raise


def next_job() -> Any:
    """What the first process asks of the others: a job, or the code to exit with."""
    return from_first(lambda: None)


@contextmanager
def followed() -> Iterator[None]:
    """Let the other processes, which wait for jobs, exit as the block ends."""
    code = 1
    try:
        yield
        code = 0
    except LoracookError as error:
        code = error.exit_code
        raise
    finally:
        if not _lost[0]:
            from_first(lambda: code)


def join() -> None:
    """Take the place among several processes that the environment gives, Slurm's where nothing else did.

    Raises:
        LoracookError: it is not a whole one: the processes would wait for one another for ever.
        MachineError: Slurm does not say where its step runs.
    """
    if "RANK" not in os.environ and _number("SLURM_STEP_NUM_TASKS", "1") > 1:
        os.environ |= _place_in_slurm_step()
    if size() == 1:
        return
    if missing := [name for name in PLACE if not os.environ.get(name)]:
        raise LoracookError(f"WORLD_SIZE is {size()}, but {missing[0]} is not set; {ADVICE}")
    if rank() >= size():
        raise LoracookError(f"RANK is {rank()}, and WORLD_SIZE only {size()}; {ADVICE}")
    if ONE_GPU.fullmatch(os.environ.get("CUDA_VISIBLE_DEVICES", "")):
        os.environ["LOCAL_RANK"] = "0"  # its number, as accelerate gives it to DDP, where each sees its own


def _place_in_slurm_step() -> dict[str, str]:
    """The place that Slurm's srun gives where it starts several processes."""
    try:
        count = int(os.environ["SLURM_STEP_NUM_TASKS"])
        nodes = ("scontrol", "show", "hostnames", os.environ["SLURM_STEP_NODELIST"])
        hosts = subprocess.run(nodes, check=True, capture_output=True, text=True).stdout.split()
        port = 10_000 + int(os.environ["SLURM_JOB_ID"]) % 20_000  # the same in all, another for each job
        return {
            "RANK": os.environ["SLURM_PROCID"],
            "LOCAL_RANK": os.environ["SLURM_LOCALID"],
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count // len(hosts)),
            "MASTER_ADDR": hosts[0],
            "MASTER_PORT": os.environ.get("MASTER_PORT", str(port)),
        }
    except (OSError, subprocess.CalledProcessError, LookupError, ValueError) as error:
        message = "Slurm started several processes, but does not say where (scontrol show hostnames)"
        raise MachineError(f"{message}; start them with torchrun, or unset SLURM_STEP_NUM_TASKS") from error
