"""What `loracook inspect` says of an adapter is what numpy says of PEFT's own dense ΔW, for any module."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from loracook.errors import DivergedError, LoracookError
from loracook.model.adapter_effect import Effect, by_layer, effects
from loracook.model.base_weights import open_weights
from loracook.model.lora_factors import read_adapter

SMALL = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {**SMALL, "num_key_value_heads": 2},
    "gpt2": {"n_embd": 24, "n_layer": 2, "n_head": 4},
    "mixtral": {**SMALL, "num_key_value_heads": 2, "num_local_experts": 4},
    "gpt_oss": {**SMALL, "head_dim": 8, "num_key_value_heads": 2, "num_local_experts": 4},
}
EXPERTS = {"target_modules": [], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # PEFT's


class Net(nn.Module):
    """Convolutions, an embedding and linear layers, as nobody's library has them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 12)
        self.body = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 12))
        self.conv = nn.Conv2d(4, 6, 3)
        self.point = nn.Conv2d(6, 6, 1)


def causal(kind: str) -> nn.Module:
    made = AutoConfig.for_model(kind, vocab_size=48, **KINDS[kind])
    return AutoModelForCausalLM.from_config(made, dtype=torch.float32)


def saved(folder: Path, base: nn.Module, dtype: torch.dtype = torch.float32, **lora: Any) -> PeftModel:
    """A random adapter on a random base, saved as `adapter` and `base.safetensors`."""
    torch.manual_seed(0)
    base = base.to(dtype)
    weights = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    save_file(weights, folder / "base.safetensors")
    tuned = get_peft_model(base, LoraConfig(**{"r": 4, "lora_alpha": 6, "init_lora_weights": False, **lora}))
    tuned.save_pretrained(folder / "adapter", save_embedding_layers=False)
    return tuned


def read(folder: Path) -> dict[str, Effect]:
    found, misfits = effects(read_adapter(folder / "adapter"), open_weights(folder / "base.safetensors"))
    assert misfits == []
    return {effect.module: effect for effect in found}


def dense(tuned: PeftModel) -> dict[str, tuple[float, ...]]:
    """Norm, ratio, effective rank and amplification of each adapted weight, from its whole ΔW and W."""
    found = {}
    for name, layer in tuned.named_modules():
        if isinstance(layer, LoraLayer) and hasattr(layer, "get_delta_weight"):
            parameter = getattr(layer, "parameter_name", None)
            weight = layer.get_param() if parameter else layer.get_base_layer().weight
            plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
            delta = layer.get_delta_weight("default").detach()
            found[plain + (f".{parameter}" if parameter else "")] = _dense(delta, weight.detach())
    return found


def _dense(delta: torch.Tensor, weight: torch.Tensor) -> tuple[float, ...]:
    stack = delta.shape[:-2] if delta.ndim == 3 else (1,)
    changes, whole = (
        each.double().numpy().reshape(*stack, each.shape[-2] if delta.ndim == 3 else each.shape[0], -1)
        for each in (delta, weight)
    )
    ranks, squares = [], 0.0
    for change, own in zip(changes, whole, strict=True):
        r = np.linalg.matrix_rank(change, tol=1e-5)
        u, values, v = np.linalg.svd(change, full_matrices=False)
        shares = values[:r] / values[:r].sum()
        ranks.append(np.exp(-(shares * np.log(shares)).sum()))
        squares += np.linalg.norm(u[:, :r].T @ own @ v[:r].T) ** 2
    norm = np.linalg.norm(changes)
    return norm, norm / np.linalg.norm(whole), float(np.mean(ranks)), norm / np.sqrt(squares)


def agrees(folder: Path, tuned: PeftModel) -> None:
    """Hold every figure against the dense computation, to 1e-5 of it."""
    expected, found = dense(tuned), read(folder)
    assert set(found) == set(expected)
    for name, figures in expected.items():
        each = found[name]
        assert (each.norm, each.ratio, each.effective_rank, each.amplification) == pytest.approx(
            figures, rel=1e-5
        ), name


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": "all-linear"},
        {"target_modules": "all-linear", "use_rslora": True, "rank_pattern": {"q_proj": 2, "0.mlp.*": 7}},
        {"target_modules": ["v_proj", "embed_tokens"], "alpha_pattern": {r"1\.self_attn\.v_proj": 32}},
    ],
    ids=["linear", "rslora and patterns", "embeddings"],
)
def test_the_modules_of_a_llama(lora: dict[str, Any], tmp_path: Path) -> None:
    agrees(tmp_path, saved(tmp_path, causal("llama"), **lora))


def test_the_conv1d_of_a_gpt2_whose_weights_are_stored_transposed(tmp_path: Path) -> None:
    lora = {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}
    agrees(tmp_path, saved(tmp_path, causal("gpt2"), **lora))


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_experts_that_are_stacked_in_one_parameter(kind: str, tmp_path: Path) -> None:
    agrees(tmp_path, saved(tmp_path, causal(kind), **EXPERTS))


def test_convolutions_embeddings_and_linear_layers_of_a_plain_module(tmp_path: Path) -> None:
    agrees(tmp_path, saved(tmp_path, Net(), target_modules=["embed", "body.0", "body.2", "conv", "point"]))


def test_a_base_in_bfloat16_is_read_as_it_is(tmp_path: Path) -> None:
    tuned = saved(tmp_path, causal("llama"), torch.bfloat16, target_modules="all-linear")
    assert {tensor.dtype for tensor in load_file(tmp_path / "base.safetensors").values()} == {torch.bfloat16}
    for name, effect in read(tmp_path).items():
        weight = tuned.get_submodule(f"base_model.model.{name}").get_base_layer().weight
        assert effect.base_norm == pytest.approx(float(weight.detach().double().norm()), rel=1e-9)


def test_a_weight_that_is_saved_whole_is_compared_with_the_base(tmp_path: Path) -> None:
    tuned = saved(tmp_path, causal("llama"), target_modules=["q_proj"], modules_to_save=["lm_head"])
    own, file = (
        dict(tuned.get_base_model().named_parameters()),
        tmp_path / "adapter/adapter_model.safetensors",
    )
    changed = load_file(file)
    changed["base_model.model.lm_head.weight"] += 0.5
    save_file(changed, file)
    effect, weight = read(tmp_path)["lm_head"], own["lm_head.original_module.weight"].detach()
    assert effect.norm == pytest.approx(0.5 * weight.numel() ** 0.5)
    assert effect.base_norm == pytest.approx(float(weight.norm()))
    assert (effect.r, effect.effective_rank, effect.amplification) == (None, None, None)


def test_weights_that_are_saved_whole_can_be_left_out(tmp_path: Path) -> None:
    saved(tmp_path, causal("llama"), target_modules=["q_proj"], modules_to_save=["lm_head"])
    adapter, base = read_adapter(tmp_path / "adapter"), open_weights(tmp_path / "base.safetensors")
    found, notes = effects(adapter.factors_alone(), base)
    assert ({effect.kind for effect in found}, notes) == ({"q_proj"}, [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_embeddings_that_were_resized_and_not_trained_are_said_to_be_the_base_models(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    """PEFT saves them whole: in the precision of training, with rows of new tokens."""
    saved(tmp_path, causal("llama"), target_modules=["q_proj"], modules_to_save=["lm_head"])
    file = tmp_path / "adapter/adapter_model.safetensors"
    grown = load_file(file)
    grown["base_model.model.lm_head.weight"] = torch.cat(
        [grown["base_model.model.lm_head.weight"], torch.ones(2, 24)]
    ).to(dtype)
    save_file(grown, file)
    found, notes = effects(read_adapter(tmp_path / "adapter"), open_weights(tmp_path / "base.safetensors"))
    assert "lm_head" not in {effect.module for effect in found}
    assert notes == ["lm_head is saved whole, with the base model's values and 2 new rows: it has no ΔW"]


def test_an_untrained_adapter_has_changed_nothing(tmp_path: Path) -> None:
    saved(tmp_path, causal("llama"), target_modules=["q_proj"], init_lora_weights=True)
    figures = {
        (each.norm, each.ratio, each.effective_rank, each.amplification) for each in read(tmp_path).values()
    }
    assert figures == {(0.0, 0.0, 0.0, None)}


def test_directions_of_no_size_are_left_out_of_the_amplification(tmp_path: Path) -> None:
    tuned = saved(tmp_path, causal("llama"), target_modules=["q_proj"], r=8)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data[:, 3:] = 0
    tuned.save_pretrained(tmp_path / "adapter")
    agrees(tmp_path, tuned)
    assert all(each.effective_rank <= 3 for each in read(tmp_path).values() if each.effective_rank)


@pytest.mark.parametrize("in_file", ["", "transformer.", "model.language."])
def test_a_base_may_have_another_prefix_in_its_file(in_file: str, tmp_path: Path) -> None:
    saved(tmp_path, causal("gpt2"), target_modules=["c_attn"], fan_in_fan_out=True)
    expected, file = read(tmp_path), tmp_path / "base.safetensors"
    renamed = {name.replace("transformer.", in_file, 1): tensor for name, tensor in load_file(file).items()}
    save_file(renamed, file)
    assert read(tmp_path) == expected


def test_one_layer_is_not_taken_for_another(tmp_path: Path) -> None:
    saved(tmp_path, nn.ModuleDict({"a": nn.Linear(6, 6), "b": nn.Linear(6, 6)}), target_modules=["a", "b"])
    weights = load_file(tmp_path / "base.safetensors")
    save_file(
        {"x.0.a.weight": weights["a.weight"], "y.0.a.weight": weights["b.weight"]},
        tmp_path / "base.safetensors",
    )
    assert {each.unknown for each in read(tmp_path).values()} == {"no weight of this name in the base model"}


@pytest.mark.parametrize(
    ("weight", "unknown"),
    [
        (torch.zeros(12, dtype=torch.uint8), "stored as U8, which is quantized"),
        (torch.zeros(24, 24, dtype=torch.int8), "stored as I8, which is quantized"),
        (torch.zeros(24, 24).to(torch.float8_e4m3fn), "stored as F8_E4M3, which is quantized"),
        (torch.zeros(24, 23), "another shape in the base model"),
        (torch.tensor(1.0), "another shape in the base model"),
        (torch.full((24, 24), torch.nan), "NaN or infinity in the base model"),
        (None, "no weight of this name in the base model"),
    ],
)
def test_without_w_the_rest_is_shown_and_why(
    weight: torch.Tensor | None, unknown: str, tmp_path: Path
) -> None:
    saved(tmp_path, causal("llama"), target_modules=["q_proj"])
    whole, file = read(tmp_path), tmp_path / "base.safetensors"
    named, name = load_file(file), "model.layers.0.self_attn.q_proj"
    del named[f"{name}.weight"]
    save_file(named | ({} if weight is None else {f"{name}.weight": weight}), file)
    found = read(tmp_path)
    assert found[name] == replace(whole[name], base_norm=None, amplification=None, unknown=unknown)
    assert {**found, name: None} == {**whole, name: None}


def test_the_change_of_a_layer_is_that_of_all_its_modules_together(tmp_path: Path) -> None:
    saved(tmp_path, causal("llama"), target_modules=["q_proj", "v_proj"])
    found = read(tmp_path)
    layers = by_layer(found.values())
    assert [each.layer for each in layers] == ["model.layers.0", "model.layers.1"]
    inside = [each for name, each in found.items() if ".0." in name]
    assert layers[0].norm == pytest.approx(sum(each.norm**2 for each in inside if each.norm) ** 0.5)
    assert layers[0].ratio == pytest.approx(
        layers[0].norm / sum(each.base_norm**2 for each in inside if each.base_norm) ** 0.5
    )


def test_no_more_than_a_block_of_a_weight_is_read_at_a_time(tmp_path: Path) -> None:
    save_file(
        {"wide.weight": torch.ones(3, 1 << 22), "tall.weight": torch.ones(1 << 12, 3)},
        tmp_path / "x.safetensors",
    )
    weights = open_weights(tmp_path / "x.safetensors")
    for name, blocks in (("wide.weight", [2, 1]), ("tall.weight", [1 << 12])):
        weight = weights.find(name)
        assert weight is not None
        assert [len(block) for _, _, block in weight.blocks(1)] == blocks


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"peft_type": "VERA"}, "holds 'VERA'; name a LoRA adapter"),
    ({"r": "8"}, "is no config that PEFT wrote"),
    ({"r": None}, "do not fit r = 8"),
    ({"r": 0}, "has r = 0"),
    ({"r": -4}, "has r = -4"),
    ({"r": 10**18}, "do not fit r = 1000000000000000000"),
    ({"lora_alpha": [1]}, "is no config that PEFT wrote"),
    ({"lora_alpha": float("nan")}, "lora_alpha = nan"),
    ({"lora_alpha": 1e300}, "lora_alpha = 1e+300"),
    ({"rank_pattern": ["q_proj"]}, "is no config that PEFT wrote"),
    ({"rank_pattern": {"q_proj": 4.5}}, "is no config that PEFT wrote"),
    (
        {"rank_pattern": {"(a+)+": 4}},
        "the pattern '(a+)+' in adapter_config.json is too complex",
    ),
    ({"alpha_pattern": {".*.*.*.*x": 4}}, "is too complex"),
    ({"rank_pattern": {f"q{n}": 2 for n in range(300)}}, "has 300 patterns; name an adapter with fewer"),
    ({"rank_pattern": {"a{99999999999999999999}": 2}}, "is invalid"),
    ({"alpha_pattern": {"[": 4}}, "the pattern '[' in adapter_config.json is invalid"),
    ({"target_parameters": 3}, "is no config that PEFT wrote"),
    ({"base_model_name_or_path": {}}, "is no config that PEFT wrote"),
]


@pytest.mark.parametrize(("settings", "said"), SETTINGS, ids=[str(settings) for settings, _ in SETTINGS])
def test_a_config_that_cannot_be_followed_is_refused(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    saved(tmp_path, causal("llama"), target_modules=["q_proj"])
    file = tmp_path / "adapter/adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    with pytest.raises(LoracookError) as refused:
        effects(read_adapter(tmp_path / "adapter"), None)
    assert said in str(refused.value)


TENSORS: list[tuple[dict[str, torch.Tensor], type[Exception], str]] = [
    ({"A": torch.full((4, 24), torch.nan)}, DivergedError, "lora_A.weight holds NaN or infinity"),
    (
        {"B": torch.full((24, 4), 1e200, dtype=torch.float64)},
        DivergedError,
        "lora_B.weight holds NaN or infinity",
    ),
    ({"A": torch.ones(3, 24)}, LoracookError, "lora_A and lora_B of 3x24 and 24x4 do not fit r = 4"),
    ({"B": torch.ones(24)}, LoracookError, "lora_A or lora_B is no matrix"),
    ({"A": torch.ones(4, 0)}, LoracookError, "lora_A and lora_B of 4x0 and 24x4 do not fit r = 4"),
    ({"A": torch.ones(4, 24, dtype=torch.int32)}, LoracookError, "lora_A.weight is stored as I32"),
    ({"embedding_A": torch.ones(4)}, LoracookError, "has no pair of lora_A and lora_B"),
]


@pytest.mark.parametrize(("changed", "error", "said"), TENSORS, ids=[said for _, _, said in TENSORS])
def test_weights_that_are_no_factors_are_refused(
    changed: dict[str, torch.Tensor], error: type[Exception], said: str, tmp_path: Path
) -> None:
    saved(tmp_path, nn.Sequential(nn.Linear(24, 24)), target_modules=["0"])
    file = tmp_path / "adapter/adapter_model.safetensors"
    named = {f"base_model.model.0.lora_{part}.weight": tensor for part, tensor in changed.items()}
    save_file(load_file(file) | named, file)
    with pytest.raises(error) as refused:
        effects(read_adapter(tmp_path / "adapter"), None)
    assert said in str(refused.value)


def test_files_that_lead_out_of_the_adapter_s_folder_are_not_read(tmp_path: Path) -> None:
    saved(tmp_path, nn.Sequential(nn.Linear(24, 24)), target_modules=["0"])
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (tmp_path / "adapter" / name).rename(tmp_path / name)
        (tmp_path / "adapter" / name).symlink_to(tmp_path / name)
        with pytest.raises(LoracookError, match=f"{name}' is no file of that folder"):
            read_adapter(tmp_path / "adapter")
        (tmp_path / "adapter" / name).unlink()
        os.mkfifo(tmp_path / "adapter" / name)
        with pytest.raises(LoracookError, match=f"{name}' is no file of that folder"):
            read_adapter(tmp_path / "adapter")
        (tmp_path / "adapter" / name).unlink()
        (tmp_path / name).rename(tmp_path / "adapter" / name)


def test_an_adapter_in_the_hub_s_cache_is_read_through_its_links(tmp_path: Path) -> None:
    saved(tmp_path, nn.Sequential(nn.Linear(24, 24)), target_modules=["0"])
    snapshot = tmp_path / "models--me--x/snapshots/abc"
    snapshot.mkdir(parents=True)
    for file in (tmp_path / "adapter").iterdir():
        blob = file.rename(tmp_path / "models--me--x" / file.name)
        (snapshot / file.name).symlink_to(f"../../{blob.name}")
    assert [each.module for each in effects(read_adapter(snapshot), None)[0]] == ["0"]


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"\xff" * 64])
def test_weights_that_are_no_safetensors_are_refused(content: bytes, tmp_path: Path) -> None:
    saved(tmp_path, nn.Sequential(nn.Linear(24, 24)), target_modules=["0"])
    (tmp_path / "adapter/adapter_model.safetensors").write_bytes(content)
    with pytest.raises(LoracookError, match="cannot be read"):
        read_adapter(tmp_path / "adapter")


def test_a_number_in_a_name_may_be_any_digit(tmp_path: Path) -> None:
    modules = nn.ModuleDict({name: nn.Linear(6, 6) for name in ("10", "9", "²", "٣")})
    saved(tmp_path, modules, target_modules=list(modules))
    assert list(read(tmp_path)) == ["٣", "9", "10", "²"]


@pytest.mark.parametrize("weight", [torch.tensor(1.0), torch.ones(3), torch.ones(6, 6, dtype=torch.int32)])
@pytest.mark.parametrize(
    "base", [torch.tensor(1.0), torch.ones(4), torch.full((6, 6), 1e200, dtype=torch.float64)]
)
def test_a_whole_weight_that_does_not_fit_leaves_the_others(
    weight: torch.Tensor, base: torch.Tensor, tmp_path: Path
) -> None:
    saved(
        tmp_path, nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)), target_modules=["0"], modules_to_save=["1"]
    )
    for file, name, tensor in (
        ("adapter/adapter_model.safetensors", "base_model.model.1.weight", weight),
        ("base.safetensors", "1.weight", base),
    ):
        save_file(load_file(tmp_path / file) | {name: tensor}, tmp_path / file)
    found, _ = effects(read_adapter(tmp_path / "adapter"), open_weights(tmp_path / "base.safetensors"))
    assert [each.norm for each in found if each.module == "1"] in ([], [None])
    assert [each.ratio is not None for each in found if each.module == "0"] == [True]


def test_a_base_of_numbers_whose_squares_overflow_is_said_to_be_infinite(tmp_path: Path) -> None:
    saved(tmp_path, nn.Sequential(nn.Linear(6, 6)), target_modules=["0"])
    save_file({"0.weight": torch.full((6, 6), 1e200, dtype=torch.float64)}, tmp_path / "base.safetensors")
    assert read(tmp_path)["0"].unknown == "NaN or infinity in the base model"


def test_experts_are_not_compared_with_a_weight_of_another_number_of_them(tmp_path: Path) -> None:
    saved(tmp_path, causal("mixtral"), **EXPERTS)
    weights, name = load_file(tmp_path / "base.safetensors"), "model.layers.0.mlp.experts.down_proj"
    for changed in (weights[name][0].clone(), weights[name][:2].clone()):
        save_file(weights | {name: changed}, tmp_path / "base.safetensors")
        found = read(tmp_path)
        assert name not in found
        assert found["model.layers.0.mlp.experts.gate_up_proj"].ratio
