"""A checkpoint is loaded when all that is in it fits the model, the optimizer and the schedule; else it is skipped."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import loracook
from loracook.store import files
from loracook.training.checkpoints import STATE
from loracook.training.loadable import ADAPTER, OPTIMIZER, RANDOM, SCHEDULER, misfit
from tests.tiny_recipes import TWO_STEPS, twin_file

if TYPE_CHECKING:
    from trl import SFTTrainer

EMBEDDINGS = {
    "target_modules": ["q_proj", "v_proj"],
    "modules_to_save": ["embed_tokens"],
    "ensure_weight_tying": True,
}
LORAPLUS = {"loraplus": {"loraplus_lr_ratio": 16.0}}


def trained(folder: Path, train: dict[str, Any], lora: dict[str, Any]) -> tuple[Path, SFTTrainer]:
    """A checkpoint of two steps, and a trainer that has not begun."""
    sections: dict[str, Any] = {"evaluate": None, "dataset": {"eval": None}, "lora": lora}
    recipe = loracook.load(twin_file("opt-350m-lora", folder, train={**TWO_STEPS, **train}, **sections))
    loracook.trainer(recipe, folder / "out").train()
    checkpoint = folder / "out" / "checkpoints" / "checkpoint-2"
    files.seal(checkpoint, made={}, tokens=1)
    return checkpoint, loracook.trainer(recipe, folder / "out")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("train", "lora"),
    [
        ({"optim": "adafactor"}, {}),
        ({"optim": "sgd", "lr_scheduler_type": "inverse_sqrt"}, {}),
        ({"optim": "adamw_torch", "lr_scheduler_type": "constant"}, LORAPLUS),
        ({"optim": "paged_adamw_8bit", "lr_scheduler_type": "cosine"}, EMBEDDINGS),
        ({"optim": "ademamix_8bit", "lr_scheduler_type": "polynomial"}, {"use_dora": True}),
    ],
)
def test_a_checkpoint_fits_the_trainer_that_wrote_it_before_and_after_it_is_resumed(
    train: dict[str, Any], lora: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint, trainer = trained(tmp_path, train, lora)
    assert misfit(checkpoint, trainer) is None
    trainer.args.max_steps = trainer.args.save_steps = 4
    trainer.train(resume_from_checkpoint=str(checkpoint))
    files.seal(checkpoint.with_name("checkpoint-4"), made={}, tokens=1)
    assert misfit(checkpoint.with_name("checkpoint-4"), trainer) is None


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SFTTrainer]:
    return trained(tmp_path_factory.mktemp("written"), {}, {})


def optimizer(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda folder: changed(folder / OPTIMIZER, change)


def changed(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, file)


def moment(change: Callable[[torch.Tensor], object]) -> Callable[[Path], None]:
    """Another first moment of the first parameter."""
    return optimizer(lambda it: it["state"][0].update(exp_avg=change(it["state"][0]["exp_avg"])))


def state(**entries: object) -> Callable[[Path], object]:
    return lambda it: (it / STATE).write_text(json.dumps(json.loads((it / STATE).read_text()) | entries))


def adapter(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        tensors = load_file(folder / ADAPTER)
        change(tensors)
        save_file(tensors, folder / ADAPTER, {"format": "pt"})

    return harm


def cut(tensors: dict[str, torch.Tensor]) -> None:
    name = min(tensors)
    tensors[name] = tensors[name][:1].clone()


def compress(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


HARM: dict[str, tuple[str, Callable[[Path], object]]] = {
    "moments cut short": (OPTIMIZER, moment(lambda it: it.flatten()[:1].clone())),
    "moments with the shape of others": (OPTIMIZER, moment(lambda it: it.T.contiguous())),
    "moments of one value in memory": (OPTIMIZER, moment(lambda it: it.new_zeros(1, 1).expand(it.shape))),
    "moments of another dtype": (OPTIMIZER, moment(torch.Tensor.double)),
    "moments that are whole numbers": (OPTIMIZER, moment(torch.Tensor.int)),
    "moments without memory": (OPTIMIZER, moment(lambda it: it.to("meta"))),
    "sparse moments": (OPTIMIZER, moment(torch.Tensor.to_sparse)),
    "moments that are a number": (OPTIMIZER, moment(lambda it: 0.0)),
    "moments left out": (OPTIMIZER, optimizer(lambda it: it["state"][0].pop("exp_avg_sq"))),
    "a step that is text": (OPTIMIZER, optimizer(lambda it: it["state"][0].update(step="2"))),
    "moments of a parameter too many": (OPTIMIZER, optimizer(lambda it: it["state"].update({999: it["state"][0]}))),
    "a parameter twice": (OPTIMIZER, optimizer(lambda it: it["param_groups"][0]["params"].append(0))),
    "a group too many": (OPTIMIZER, optimizer(lambda it: it["param_groups"].append(it["param_groups"][0]))),
    "a setting as text": (OPTIMIZER, optimizer(lambda it: it["param_groups"][0].update(betas="high"))),
    "a setting too many": (OPTIMIZER, optimizer(lambda it: it["param_groups"][0].update(soup=1))),
    "no optimizer state": (OPTIMIZER, lambda it: torch.save([], it / OPTIMIZER)),
    "a pickle": (OPTIMIZER, lambda it: torch.save({"state": Path}, it / OPTIMIZER)),
    "no file of torch": (OPTIMIZER, lambda it: (it / OPTIMIZER).write_text("soup")),
    "the old format": (OPTIMIZER, lambda it: torch.save({}, it / OPTIMIZER, _use_new_zipfile_serialization=False)),
    "a file that unpacks": (OPTIMIZER, lambda it: compress(it / OPTIMIZER)),
    "a schedule of other keys": (SCHEDULER, lambda it: changed(it / SCHEDULER, lambda state: state.update(step=1))),
    "a schedule of another length": (SCHEDULER, lambda it: changed(it / SCHEDULER, lambda state: state["base_lrs"].pop())),
    "a random state cut short": (RANDOM, lambda it: torch.save({"python": (3, (), None), "numpy": (), "cpu": 0}, it / RANDOM)),
    "an adapter cut short": (ADAPTER, adapter(cut)),
    "an adapter of another dtype": (ADAPTER, adapter(lambda it: it.update({name: it[name].double() for name in it}))),
    "an adapter without a weight": (ADAPTER, adapter(lambda it: it.pop(min(it)))),
    "an adapter with a weight more": (ADAPTER, adapter(lambda it: it.update(soup=torch.zeros(1)))),
    "a header that is none": (ADAPTER, lambda it: (it / ADAPTER).write_bytes(b"\xff" * 64)),
    "an epoch as text": (STATE, state(epoch="1")),
    "a field of no state": (STATE, state(soup=1)),
    "a log without steps": (STATE, state(log_history=[{"loss": 1.0}])),
    "a log of text": (STATE, state(log_history=[{"step": 1, "loss": "<b>"}])),
    "callbacks as a list": (STATE, state(stateful_callbacks=[])),
}  # fmt: skip


@pytest.mark.parametrize("kind", HARM)
def test_a_checkpoint_that_does_not_fit_is_named_before_anything_of_it_is_loaded(
    kind: str, written: tuple[Path, SFTTrainer], tmp_path: Path
) -> None:
    checkpoint, trainer = written
    name, harm = HARM[kind]
    place = shutil.copytree(checkpoint, tmp_path / checkpoint.name)
    harm(place)
    assert misfit(place, trainer) == f"{name} does not fit the model"


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "pytorch_model.bin",
        "adapter_model.bin",
        "config.json",
        "other/adapter_model.safetensors",
    ],
)
def test_a_file_that_would_be_loaded_in_place_of_the_adapter_is_refused(
    name: str, written: tuple[Path, SFTTrainer], tmp_path: Path
) -> None:
    checkpoint, trainer = written
    place = shutil.copytree(checkpoint, tmp_path / checkpoint.name)
    (place / name).parent.mkdir(exist_ok=True)
    shutil.copy(place / ADAPTER, place / name)
    files.seal(place, made={}, tokens=1)
    assert misfit(place, trainer) == f"{name} is not of an adapter's checkpoint"


@pytest.mark.parametrize("name", [ADAPTER, OPTIMIZER, SCHEDULER, RANDOM])
def test_a_file_that_transformers_would_do_without_is_missed(
    name: str, written: tuple[Path, SFTTrainer], tmp_path: Path
) -> None:
    checkpoint, trainer = written
    place = shutil.copytree(checkpoint, tmp_path / checkpoint.name)
    (place / name).unlink()
    assert misfit(place, trainer) == f"{name} is missing"
