"""The joined rules know what upstream knows: whatever it refuses of a recipe's sections, a rule refuses first."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from loracook.cli.run import LOG
from loracook.recipe.rules import rule_problems
from loracook.recipe.rules.schedule import NEED_EVAL_LOSS, SETTINGS_OF
from loracook.recipe.schema import with_defaults
from loracook.stages import STAGES
from loracook.store.run_folder import LATEST

BASE = {
    "version": 1,
    "base_model": {"name_or_path": "org/model"},
    "dataset": {"path": "org/rows", "eval": {"rows": 5}},
}
GIVEN = {"optimizer", "last_epoch", "num_warmup_steps", "num_training_steps", "kwargs"}


def refused(**sections: dict[str, Any]) -> bool:
    """Whether a rule finds an error in a recipe with these sections."""
    data = with_defaults(BASE | {"lora": {"r": 8}} | sections)
    return any(problem.severity == "error" for problem in rule_problems(data))


def products(**choices: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """Every choice of values; None leaves a key out."""
    for values in itertools.product(*choices.values()):
        yield {key: value for key, value in zip(choices, values, strict=True) if value is not None}


def test_what_fits_together_is_not_refused() -> None:
    best = {"eval_strategy": "steps", "eval_steps": 30, "save_steps": 60, "load_best_model_at_end": True}
    assert not refused()
    assert not refused(train=best)
    assert not refused(train=best | {"eval_steps": 0.25, "save_steps": 0.5})
    assert not refused(
        lora={"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "layers"}
    )
    assert not refused(lora={"lora_bias": True, "init_lora_weights": False})


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_is_published_in_place_of_what_a_run_makes(stage: str) -> None:
    for name in (
        f"{stage}-0123abcd",
        LATEST,
        LATEST.upper(),
        LOG,
        "trainer",
        "published.part",
        "published.old",
    ):
        assert refused(push={"folder": name})
    for name in ("published", "trained", "mergers", "log.txt2", "oldest"):
        assert not refused(push={"folder": name})


def test_the_settings_of_a_schedule_are_those_that_its_function_takes() -> None:
    from torch.optim.lr_scheduler import ReduceLROnPlateau
    from transformers import SchedulerType
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR

    functions = TYPE_TO_SCHEDULER_FUNCTION | {
        SchedulerType.REDUCE_ON_PLATEAU: ReduceLROnPlateau,
        SchedulerType.GREEDY: GreedyLR,
    }
    for name, function in functions.items():
        assert SETTINGS_OF[name.value] <= set(inspect.signature(function).parameters) - GIVEN
    taken = {
        name.value: set(inspect.signature(function).parameters) - GIVEN
        for name, function in functions.items()
    }
    assert {
        name: taken[name] - read
        for name, read in SETTINGS_OF.items()
        if name not in NEED_EVAL_LOSS and taken[name] != read
    } == {}


def test_whatever_the_training_arguments_refuse_a_rule_refuses(tmp_path: Any) -> None:
    from transformers import TrainingArguments

    missed = []
    for train in products(
        eval_strategy=(None, "steps", "epoch"),
        save_strategy=(None, "no", "epoch", "best"),
        eval_steps=(None, 30, 0.25),
        save_steps=(None, 60, 0.5, 0.3),
        load_best_model_at_end=(None, True),
    ):
        effective = with_defaults(BASE | {"lora": {}, "train": train})["train"]
        keys = {key: effective[key] for key in (*train, "logging_steps", "save_strategy", "save_steps")}
        try:
            TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **keys)
        except ValueError as error:
            if not refused(train=train):
                missed.append((train, str(error)))
    assert missed == []


@pytest.mark.parametrize(
    "train",
    [
        {"bf16": True, "fp16": True},
        {"bf16_full_eval": True, "fp16_full_eval": True},
        {"lr_scheduler_type": "reduce_lr_on_plateau"},
        {"lr_scheduler_type": "greedy"},
        {"dataloader_prefetch_factor": 2},
        {"logging_steps": 1.5},
    ],
    ids=lambda train: "-".join(train),
)
def test_each_of_these_is_refused_by_both(train: dict[str, Any], tmp_path: Any) -> None:
    from transformers import TrainingArguments

    with pytest.raises(ValueError, match=r"."):
        TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **train)
    assert refused(train=train)


def test_whatever_the_lora_config_refuses_a_rule_refuses() -> None:
    from peft import LoraConfig

    missed = []
    for lora in products(
        target_modules=(["q_proj"], "all-linear"),
        layers_to_transform=(None, [0]),
        layers_pattern=(None, "layers"),
        lora_bias=(None, True),
        use_dora=(None, True),
        init_lora_weights=(None, "gaussian", "orthogonal", "mica", False),
    ):
        try:
            LoraConfig(**lora)
        except ValueError as error:
            if not refused(lora=lora):
                missed.append((lora, str(error)))
    assert missed == []
