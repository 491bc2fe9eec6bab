"""What a process makes of its place among others."""

from __future__ import annotations

import os

import pytest

from loracook.errors import LoracookError, MachineError
from loracook.training import group

WHOLE = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*WHOLE, "LOCAL_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "change",
    [
        *({name: ""} for name in WHOLE),
        *({"WORLD_SIZE": text} for text in ("two", "-2", "2.0", "²", "9" * 5000)),
        {"RANK": "abc"},
        {"RANK": "2"},
    ],
    ids=str,
)
def test_a_place_that_is_not_whole_is_refused(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, str]
) -> None:
    for name, value in (WHOLE | change).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LoracookError, match=f"{next(iter(change))} is"):
        group.join()


def test_a_whole_place_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    group.join()
    assert (group.rank(), group.size()) == (1, 2)


@pytest.mark.parametrize(("visible", "device"), [("3", "0"), ("GPU-8a4b", "0"), ("0,1", "1"), ("", "1")])
def test_a_process_that_sees_one_gpu_takes_that_one(
    monkeypatch: pytest.MonkeyPatch, visible: str, device: str
) -> None:
    for name, value in (WHOLE | {"CUDA_VISIBLE_DEVICES": visible}).items():
        monkeypatch.setenv(name, value)
    group.join()
    assert os.environ["LOCAL_RANK"] == device


@pytest.mark.parametrize("nodes", [{}, {"SLURM_STEP_NODELIST": "a"}], ids=["no list", "no scontrol"])
def test_slurm_that_does_not_say_where_its_step_runs_is_refused(
    monkeypatch: pytest.MonkeyPatch, nodes: dict[str, str]
) -> None:
    monkeypatch.setenv("PATH", "")
    for name, value in {"SLURM_STEP_NUM_TASKS": "2", **nodes}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MachineError, match="unset SLURM_STEP_NUM_TASKS"):
        group.join()
