"""What an adapter changed, in a table by kind of module, with what changed most and advice on r."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loracook.model.adapter_effect import Effect
from loracook.views.adapter_effect import AdapterInspection, all_lines, as_json, as_lines

EFFECTS = [
    Effect(f"model.layers.{layer}.self_attn.{name}", r, norm, rank, 10.0, 20 * norm)
    for layer, norm in enumerate((0.1, 0.4, 0.2, 0.3))
    for name, r, rank in (("q_proj", 16, 9.5 + layer), ("v_proj", 64, 2.0 + layer))
]
INSPECTION = AdapterInspection(
    adapter="runs/chat/train-01234567/adapter",
    base_model="/models/tiny",
    r=16,
    lora_alpha=32,
    use_rslora=False,
    effects=[*EFFECTS, Effect("lm_head", None, None, unknown="another shape in the base model")],
    notes=["use_dora: the figures are those of BA alone, without what use_dora adds"],
)


def test_a_line_for_each_kind_of_module_and_what_follows_from_them() -> None:
    assert as_lines(INSPECTION) == [
        "runs/chat/train-01234567/adapter: LoRA r 16, lora_alpha 32; ΔW = lora_alpha / r · BA",
        "W: /models/tiny",
        "",
        "           modules      r  ‖ΔW‖  ‖ΔW‖/‖W‖  effective rank  amplification",
        "  q_proj         4     16  0.25     2.50%            11.0              5",
        "  v_proj         4     64  0.25     2.50%             3.5              5",
        "  lm_head        1  whole     -         -               -              -",
        "  (medians of each kind of module; --all shows every module)",
        "",
        "changed most: model.layers.1 (4.00%), model.layers.3 (3.00%), model.layers.2 (2.00%)",
        "",
        "r 64 is far above the effective rank of 'v_proj', which is 5.0 at most; try rank_pattern: {v_proj: 16}",
        "",
        "note: use_dora: the figures are those of BA alone, without what use_dora adds",
        "note: W is left out for 1 module: another shape in the base model",
    ]


def test_a_line_for_every_module() -> None:
    lines = all_lines(replace(INSPECTION, effects=EFFECTS[:2], notes=[]))
    assert lines[3:6] == [
        "                                    r  ‖ΔW‖  ‖ΔW‖/‖W‖  effective rank  amplification",
        "  model.layers.0.self_attn.q_proj  16   0.1     1.00%             9.5              2",
        "  model.layers.0.self_attn.v_proj  64   0.1     1.00%             2.0              2",
    ]


def test_a_chart_gets_a_value_for_each_layer() -> None:
    layers = as_json(INSPECTION)["layers"]
    assert [(each["layer"], each["ratio"]) for each in layers] == [
        (f"model.layers.{number}", pytest.approx(ratio))
        for number, ratio in enumerate((0.01, 0.04, 0.02, 0.03))
    ]


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        ("model.layers.3.self_attn.q_proj", "q_proj"),
        ("unet.blocks.1.to_out.0", "to_out.0"),
        ("0", "0"),
        ("layers.0.mlp.experts.down_proj", "down_proj"),
        ("features.2d", "2d"),
    ],
)
def test_the_kind_of_a_module_is_the_end_of_its_name(module: str, kind: str) -> None:
    assert Effect(module, 4, 1.0).kind == kind
