"""Parameters are counted as PEFT counts them, for the models everybody knows and for any torch module."""

from __future__ import annotations

from typing import Any

import pytest
from peft import LoraConfig
from torch import nn

from loracook.model.parameters import ParameterCounts, count_parameters, fold_names

LINEAR = [
    nn.Linear(20, 2000),
    nn.ReLU(),
    nn.Linear(2000, 200),
    nn.ReLU(),
    nn.Linear(200, 2),
    nn.LogSoftmax(dim=-1),
]


@pytest.mark.parametrize(
    ("more", "counts"),
    [
        ({}, ParameterCounts(442_602, 12_660, 455_262, {"0": 1, "2": 1})),
        ({"modules_to_save": ["4"]}, ParameterCounts(442_602, 13_062, 455_664, {"0": 1, "2": 1})),
    ],
)
def test_a_plain_torch_module_is_counted(more: dict[str, Any], counts: ParameterCounts) -> None:
    assert (
        count_parameters(nn.Sequential(*LINEAR), LoraConfig(r=3, target_modules=["0", "2"], **more)) == counts
    )


def test_counting_leaves_the_module_as_it_is() -> None:
    module = nn.Sequential(*LINEAR)
    before = {name: id(part) for name, part in module.named_parameters()}
    count_parameters(module, LoraConfig(r=3, target_modules=["0"]))
    assert {name: id(part) for name, part in module.named_parameters()} == before


def test_numbers_of_repeated_layers_fold_and_others_stay() -> None:
    blocks = nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2)])
    names = ["blocks.0.0", "blocks.1.0", "blocks.1.1"]
    assert fold_names(nn.ModuleDict({"blocks": blocks}), names) == ["blocks.*.0", "blocks.*.0", "blocks.*.1"]
