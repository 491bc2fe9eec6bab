"""Every private name of upstream that loracook relies on is there and does what it is relied on for."""

import inspect
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, Trainer
from trl import SFTTrainer

import loracook
from loracook.machine import upstream
from tests.tiny_recipes import twin


def source_of(owner: type) -> str:
    return inspect.getsource(inspect.getmodule(owner) or owner)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (SFTTrainer, "self._total_train_tokens"),
        (SFTTrainer, "self._metrics"),
        (Trainer, "def _prepare_inputs("),
        (Trainer, "def _get_train_sampler("),
        (Trainer, "def _move_model_to_device("),
        (Trainer, "def _wrap_model("),
        (PreTrainedModel, "_supports_attention_backend"),
        (PreTrainedModel, "_attn_implementation_internal"),
    ],
)
def test_the_attributes_that_are_read_or_set_are_there(owner: type, name: str) -> None:
    assert name in source_of(owner)


def test_a_trainer_counts_tokens_gathers_metrics_keeps_them_and_moves_batches(tmp_path: Path) -> None:
    sft = loracook.trainer(twin("opt-350m-lora", tmp_path, evaluate=None), tmp_path / "out")
    upstream.set_trained_tokens(sft, 12)
    batch = sft.data_collator([sft.train_dataset[0]])
    loss = sft.compute_loss(sft.model, upstream.on_device(sft, batch))
    assert loss.isfinite()
    assert upstream.trained_tokens(sft) == 12 + int(batch["attention_mask"].sum())
    gathered = {name: list(values) for name, values in sft._metrics["train"].items()}
    assert gathered
    with upstream.metrics_aside(sft):
        sft.compute_loss(sft.model, upstream.on_device(sft, batch))
    assert (upstream.trained_tokens(sft), sft._metrics["train"]) == (
        12 + int(batch["attention_mask"].sum()),
        gathered,
    )


def test_the_largest_norms_let_nan_and_infinity_through() -> None:
    tensors = [torch.tensor([1.0, -3.0]), torch.tensor([float("inf")]), torch.tensor([float("nan")])]
    largest, infinite, nan = map(float, upstream.largest_norms(tensors))
    assert (largest, infinite, nan == nan) == (3.0, float("inf"), False)


def test_the_cpu_says_whether_it_has_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    assert upstream.cpu_has_bfloat16() == torch.ops.mkldnn._is_mkldnn_bf16_supported()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert upstream.cpu_has_bfloat16()


def test_views_share_a_storage_and_copies_do_not() -> None:
    weight = torch.zeros(4)
    ids = [upstream.storage_id(one.untyped_storage()) for one in (weight, weight[1:], weight.clone())]
    assert ids[0] == ids[1] != ids[2]


def test_a_module_s_own_tensors_exclude_those_of_its_children() -> None:
    parameters, buffers = upstream.own_tensors(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    assert (dict(parameters), dict(buffers)) == ({}, {})
    parameters, buffers = upstream.own_tensors(nn.BatchNorm1d(2))
    assert (set(parameters), "running_mean" in buffers) == ({"weight", "bias"}, True)


def test_fake_tensors_have_a_shape_and_no_data() -> None:
    mode = upstream.fake_tensor_mode()
    fake = upstream.fake_cpu_tensor(mode, torch.ones(2, 3))
    with mode:
        product = fake @ torch.empty(3, 5)
    assert (tuple(product.shape), str(product.device), type(product)) == ((2, 5), "cpu", type(fake))


def test_a_dispatch_mode_sees_every_operator() -> None:
    seen = list[str]()

    class Watch(upstream.dispatch_mode()):  # type: ignore[misc]
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with Watch():
        torch.ones(2) + 1
    assert seen == ["aten.ones.default", "aten.add.Tensor"]


def test_the_leaves_of_nested_containers() -> None:
    assert upstream.tree_leaves({"a": [1, (2,)], "b": None}) in ([1, 2], [1, 2, None])


def test_attention_can_be_read_and_set_without_checks_for_kernels() -> None:
    config = SimpleNamespace(_attn_implementation="sdpa", _attn_implementation_internal="sdpa")
    config.get_text_config = lambda decoder: config
    model = SimpleNamespace(config=config, _supports_attention_backend=True)
    upstream.set_attention_implementation(model, "flash_attention_2")
    assert upstream.attention_implementation(model) == "sdpa"
    assert config._attn_implementation_internal == "flash_attention_2"
    assert upstream.takes_any_attention(model)


def test_trl_s_fused_head_has_the_two_steps_of_its_backward_pass() -> None:
    gradient, tile, weight = torch.zeros(2, 3), torch.ones(2, 4), torch.ones(4, 3)
    upstream.add_product(gradient, tile, weight)
    assert torch.equal(gradient, torch.full((2, 3), 4.0))
    logits, losses, ids = torch.zeros(1, 4), torch.full((1,), math.log(4)), torch.tensor([2])
    flags = {"HAS_SOFTCAP": False, "HAS_LOGPROB_GRAD": True, "HAS_ENTROPY_GRAD": False}
    scale = {"logit_scale": 1.0, "softcap": 1.0, "inv_t": 1.0}
    shape = {"vocab_start": 0, "n_cols": 4, "BLOCK_SIZE": 0}
    upstream.loss_gradient_tile(logits, losses, ids, **flags, **scale, **shape)
    probabilities = torch.full((1, 4), 0.25)
    torch.testing.assert_close(logits, math.log(4) * (torch.tensor([[0.0, 0, 1, 0]]) - probabilities))


def test_datasets_identifies_rows_and_names_its_builders() -> None:
    rows = Dataset.from_dict({"text": ["one"]})
    assert upstream.dataset_fingerprint(rows)
    assert {"json", "csv", "parquet", "text"} <= upstream.dataset_builders()


def test_which_quantized_weights_can_be_turned_back() -> None:
    kinds = ("bitsandbytes_4bit", "bitsandbytes_8bit", "gptq", "awq")
    assert [upstream.dequantizes(kind) for kind in kinds] == [True, True, False, False]


def test_a_chat_template_tells_what_it_reads() -> None:
    template = (
        "{% set end = '.' %}{% for m in messages %}{{ m.content }}{% if think %}…{% endif %}{% endfor %}"
    )
    assert upstream.template_variables(template) == ["messages", "think"]
    assert upstream.template_variables(None) == []
