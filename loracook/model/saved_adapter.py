"""The adapter and the tokenizer that training saved, read as a stranger's: their run folder may be one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loracook.errors import TRAIN_AGAIN, DivergedError, MachineError, RecipeError
from loracook.model.contents import check_contents
from loracook.model.finite import not_finite
from loracook.model.load import fit_embeddings
from loracook.model.own_code import NO_CODE
from loracook.model.parameters import is_base
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def saved_tokenizer(recipe: Recipe, adapter: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that training saved beside an adapter.

    Raises:
        MachineError: its files lead elsewhere, as those of a stranger's run may.
    """
    from transformers import AutoTokenizer

    try:
        check_contents(recipe, adapter)
    except RecipeError as error:
        fault = error.problems[0].message
        raise MachineError(f"'{adapter}': {fault}; remove '{adapter.parent}' and run again") from error
    return AutoTokenizer.from_pretrained(adapter, **NO_CODE)


def load_tuned(recipe: Recipe, model: PreTrainedModel, adapter: Path) -> PeftModel:
    """`model` with the adapter of a folder applied, its embeddings grown to the adapter's tokenizer.

    Raises:
        MachineError: the folder holds another kind of adapter, which may read what its config names.
        DivergedError: a weight of the adapter is not finite.
    """
    from peft import LoraConfig, PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(adapter)
    if type(config) is not LoraConfig:
        raise MachineError(f"'{adapter}' is no LoRA adapter; remove '{adapter.parent}' and run again")
    fit_embeddings(model, len(saved_tokenizer(recipe, adapter)))
    tuned = PeftModel.from_pretrained(model, adapter, config=config).eval()
    own = (named for named in tuned.named_parameters() if not is_base(named[0]))
    if name := not_finite(own):
        raise DivergedError(f"the adapter's weight {name} holds NaN or infinity; {TRAIN_AGAIN}")
    return tuned
