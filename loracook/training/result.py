"""What the record of a training states of its result: losses, parameters, and what the adapter changed."""

from __future__ import annotations

import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.data import first_row
from loracook.machine.devices import computed_on
from loracook.model.adapter_effect import effects
from loracook.model.base_weights import open_weights
from loracook.model.fetch import fetched
from loracook.model.lora_factors import read_adapter
from loracook.progress import Progress
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from trl import SFTTrainer

    from loracook.training.one_order import OneOrderTrainer
    from loracook.training.trainer import TrainerInputs

MOST_READ = 16 << 30
"""Bytes of a base model that are read once more for the report's chart of what the adapter changed: 135
million weights took 1.6 s of one core. Larger ones have no chart; `loracook inspect` reads any."""


def adapter_effects(
    recipe: Recipe, adapter: Path, *, cache: Path, progress: Progress
) -> list[dict[str, Any]]:
    """What LoRA changed in each module: the report has no time to read the base model's weights."""
    try:
        base, saved = fetched(recipe, cache), read_adapter(adapter)
        weights = open_weights(base) if base else None
        small = weights if weights and weights.bytes <= MOST_READ else None
        found, _ = effects(saved.factors_alone(), small)
    except Exception as error:  # noqa: BLE001  # what is trained does not fail over a chart; log.txt has the traceback
        traceback.print_exc()
        progress.note(f"the report does not show what the adapter changed: {error}")
        return []
    return [asdict(each) for each in found]


def stated(sft: OneOrderTrainer, inputs: TrainerInputs) -> dict[str, Any]:
    """What the trainer and its inputs say of a training that has ended, as plain JSON values."""
    best = sft.state.best_model_checkpoint
    trainable, all_parameters = sft.model.get_nb_trainable_parameters()
    return {
        "losses": losses(sft),
        "loss_steps": loss_steps(sft),
        "parameters": {"trainable": trainable, "all": all_parameters},
        "settings": {"train": sft.args.to_dict(), "lora": sft.model.peft_config["default"].to_dict()},
        "speedups": sft.speedups,
        "steps": sft.state.global_step,
        "serving": [each.facts() for each in inputs.meta_model.serving(inputs.recipe)],
        "computed_on": computed_on(),
        "base_commit": inputs.commit,
        "tokenizer_commit": inputs.tokenizer_commit,
        "data": {
            "digest": inputs.rows.digest,
            "statistics": inputs.rows.statistics,
            "first_row": first_row(inputs.rows, inputs.tokenizer),
        },
        "best_checkpoint": best and Path(best).name,
    }


def losses(sft: SFTTrainer) -> dict[str, float]:
    """The last training and evaluation loss up to the step whose weights are the adapter's."""
    from loracook.training.callbacks import LOSSES

    return {name: entry[name] for entry in _entries(sft) for name in LOSSES if name in entry}


def loss_steps(sft: SFTTrainer) -> int:
    """How many steps the last training loss is the mean of."""
    steps = [0, *(entry["step"] for entry in _entries(sft) if "loss" in entry)]
    return int(steps[-1] - steps[-2]) if len(steps) > 1 else 0


def _entries(sft: SFTTrainer) -> list[dict[str, float]]:
    """The log up to the step whose weights are the adapter's."""
    state = sft.state
    best = state.best_global_step if sft.args.load_best_model_at_end else None
    return [entry for entry in state.log_history if entry["step"] <= (best or state.global_step)]
