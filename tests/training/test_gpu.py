"""What training does on a GPU alone, as far as a CPU can show it."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerCallback, TrainerControl
from transformers.utils.import_utils import enable_tf32

import loracook
from loracook import model
from loracook.errors import DivergedError
from loracook.estimate.meta_model import meta_model
from loracook.machine import upstream
from loracook.progress import Silent
from loracook.runner import run
from loracook.stages.base import Consent
from loracook.training.callbacks import ProgressLog
from loracook.training.largest_batch import measure
from loracook.training.memory_check import check_memory
from loracook.training.trainer import sft_config
from tests.tiny_recipes import twin
from tests.training.test_memory_check import inputs_of

ALONE = {"evaluate": None, "merge": None, "push": None}


def log(folder: Path, entry: dict[str, float], *, fp16: bool) -> None:
    """Log an entry of the second step."""
    trainer: Any = SimpleNamespace(_total_train_tokens=12)
    memory: Any = SimpleNamespace(peak=lambda: None)
    callback = ProgressLog(trainer, folder / "log.jsonl", kept=folder, memory=memory, progress=Silent())
    state = SimpleNamespace(log_history=[dict(entry)], global_step=2)
    callback.on_log(SimpleNamespace(fp16=fp16), state, TrainerControl(), logs=entry)


def test_a_step_that_loss_scaling_skips_is_logged_and_does_not_end_a_run_in_float16(tmp_path: Path) -> None:
    skipped = {"loss": 2.0, "grad_norm": math.inf}
    log(tmp_path, skipped, fp16=True)
    assert '"grad_norm": Infinity' in (tmp_path / "log.jsonl").read_text("utf-8")
    with pytest.raises(DivergedError, match="grad_norm is inf at step 2"):
        log(tmp_path, skipped, fp16=False)
    with pytest.raises(DivergedError, match="loss is nan at step 2"):
        log(tmp_path, {"loss": math.nan, "grad_norm": 1.0}, fp16=True)


def test_an_adapter_on_a_quantized_base_can_be_trained_in_float32(tmp_path: Path) -> None:
    tuned = loracook.trainer(twin("phi2-oasst", tmp_path, **ALONE), tmp_path / "out").model
    trained = [weight for weight in tuned.parameters() if weight.requires_grad]
    assert {weight.dtype for weight in trained} == {torch.bfloat16}
    model.train_in_float32(tuned)
    assert {weight.dtype for weight in trained} == {torch.float32}


def test_the_plan_of_a_quantized_training_in_float16_has_an_adapter_in_float32(tmp_path: Path) -> None:
    precision = {"bf16": False, "fp16": True}
    recipe = twin("phi2-oasst", tmp_path, **ALONE, train=precision)
    folder = model.fetch_description(recipe, tmp_path / "cache")
    tuned = meta_model(recipe, folder, None).tuned
    assert {weight.dtype for weight in tuned.parameters() if weight.requires_grad} == {torch.float32}


def test_a_process_that_sees_two_gpus_trains_on_one(tmp_path: Path) -> None:
    recipe = twin("opt-350m-lora", tmp_path, evaluate=None)
    arguments = sft_config(recipe, tmp_path / "out")
    arguments._n_gpu = 2  # what transformers counts
    assert arguments.train_batch_size == 2 * recipe["train"]["per_device_train_batch_size"]
    upstream.use_one_gpu(arguments)
    assert arguments.train_batch_size == recipe["train"]["per_device_train_batch_size"]


class InTF32(TrainerCallback):
    """Trains as with `tf32: true`, which needs a GPU."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set what transformers sets for the whole process."""
        enable_tf32(True)


def test_stages_after_a_training_in_tf32_compute_in_float32(tmp_path: Path) -> None:
    recipe, consent = twin("opt-350m-lora", tmp_path, evaluate=None), Consent(callbacks=(InTF32(),))
    before = torch.backends.fp32_precision
    run(recipe, runs=tmp_path / "runs", consent=consent)
    assert torch.backends.fp32_precision == before != "tf32"


def test_the_largest_batch_is_tried_with_its_activations_offloaded(tmp_path: Path) -> None:
    recipe = twin("opt-350m-lora", tmp_path, evaluate=None)
    check = check_memory(inputs_of(recipe))
    sft = loracook.trainer(recipe, tmp_path / "out")
    offloaded = list[torch.Size]()

    def offload(tensor: torch.Tensor) -> torch.Tensor:
        offloaded.append(tensor.shape)
        return tensor

    # TRL's own needs a GPU
    sft.maybe_activation_offload_context = torch.autograd.graph.saved_tensors_hooks(offload, lambda x: x)
    measure(sft, check)
    assert offloaded
