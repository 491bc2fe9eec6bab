"""The adapter as training leaves it: weights that anybody can load, with tokenizer, template and card."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from loracook import data, model
from loracook.errors import TRAIN_AGAIN, DivergedError, MachineError
from loracook.machine.versions import versions
from loracook.recipe.recipe import Recipe
from loracook.report.card import model_card, usage_prompt
from loracook.report.shareable import shareable
from loracook.store.release import ADAPTER, CARD
from loracook.training.trainer import TrainerInputs

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase
    from trl import SFTTrainer


def save_adapter(sft: SFTTrainer, inputs: TrainerInputs, folder: Path, *, sections: Sequence[str]) -> None:
    """Write weights, tokenizer and template, a card of these sections, the base model as others can name it.

    Raises:
        DivergedError: a trained weight is not finite.
        MachineError: what was written is not what was trained.
    """
    recipe, tuned = inputs.recipe, sft.model
    trained = (named for named in tuned.named_parameters() if named[1].requires_grad)
    if name := model.not_finite(trained):
        raise DivergedError(f"the trained weight {name} holds NaN or infinity; {TRAIN_AGAIN}")
    config = tuned.peft_config["default"]
    base = shareable(recipe)["base_model"]
    config.base_model_name_or_path, config.revision = base["name_or_path"], base.get("revision")
    for name, value in vars(config).items():
        if isinstance(value, set):  # PEFT would write it in an order that differs from process to process
            setattr(config, name, sorted(value))
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left, or a stranger put there
    # Grown embeddings are saved along, since nobody else has those rows.
    tuned.save_pretrained(folder, save_embedding_layers=inputs.meta_model.added_tokens > 0)
    check_saved(tuned, folder)
    sft.processing_class.save_pretrained(folder)
    card = _card(recipe, sections, folder, tokenizer=sft.processing_class)
    (folder / CARD).write_text(card, "utf-8")  # PEFT's is a form to fill in


def check_saved(tuned: PeftModel, folder: Path) -> None:
    """Raise MachineError where the adapter in a folder is not the trained one, tensor by tensor."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    saved, live = (
        load_file(folder / ADAPTER[1]),
        get_peft_model_state_dict(tuned, save_embedding_layers=False),
    )
    for name, weight in live.items():
        there = saved.get(name)
        if there is None or there.shape != weight.shape or not torch.equal(there, weight.detach().cpu()):
            raise MachineError(f"{folder / ADAPTER[1]} does not hold the trained weight {name}; run it again")


def _card(
    recipe: Recipe, sections: Sequence[str], folder: Path, *, tokenizer: PreTrainedTokenizerBase
) -> str:
    """The card of an adapter where it was trained, from the sections that decide the adapter alone."""
    decide = {name: recipe[name] for name in ("version", *sections) if name in recipe}
    own = replace(recipe, sections={**decide, "name": recipe.name, "push": {"what": "adapter"}})
    files = [path.name for path in folder.iterdir()]
    exact = data.exact_text(own, tokenizer, usage_prompt(own))
    return model_card(own, name=f"./{folder.name}", files=files, metrics={}, versions=versions(), exact=exact)
