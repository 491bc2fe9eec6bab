"""The recipe as TRL's SFTTrainer: what is checked before weights are fetched, then the trainer itself."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook import data, model
from loracook.errors import MachineError, RecipeError
from loracook.estimate.batches import as_trained, flattened
from loracook.estimate.memory import autocast
from loracook.model.packing_isolation import keeps_rows_apart
from loracook.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig, SFTTrainer

    from loracook.recipe.recipe import Recipe

NESTED = ("early_stopping",)


@dataclass(frozen=True)
class Ingredients:
    """The tokenizer with its template, the rows as the trainer gets them, and the base model's hub commit."""

    tokenizer: PreTrainedTokenizerBase
    rows: data.Prepared
    commit: str | None


def trainer(recipe: Recipe, folder: Path, *, cache: Path, progress: Progress) -> SFTTrainer:
    """The recipe as a configured SFTTrainer, the base model loaded and the data prepared, not yet run.

    Everything that can be known from the config, the tokenizer and the data is checked before weights are
    fetched.

    Raises:
        RecipeError: the recipe does not fit its model or its data.
        MachineError: this machine cannot run it.
    """
    ingredients = prepared(recipe, cache, progress)
    return build(recipe, ingredients, folder / "checkpoints", cache=cache, progress=progress)


def prepared(recipe: Recipe, cache: Path, progress: Progress) -> Ingredients:
    """What training needs besides weights, all of it checked against the recipe.

    Raises:
        RecipeError: a module that is not there, rows that cannot be used or exceed the recipe's limits.
    """
    check_trackers(recipe)
    description = model.fetch_description(recipe, cache)
    model.check_modules(model.skeleton(recipe, description), recipe)
    tokenizer = model.load_tokenizer(recipe, model.fetch_tokenizer(recipe, cache))
    data.with_template(recipe, tokenizer)
    rows = data.prepare(recipe, tokenizer, cache, progress=progress)
    for note in rows.notes:
        progress.note(note)
    if over := data.over_limits(rows.statistics, recipe):
        raise RecipeError(over)
    return Ingredients(tokenizer, rows, model.commit(description))


def check_trackers(recipe: Recipe) -> None:
    """Raise MachineError for a tracker that is not installed; upstream says so after loading weights."""
    asked = recipe["train"]["report_to"]
    for name in [asked] if isinstance(asked, str) else asked:
        if name != "none" and importlib.util.find_spec(name) is None:
            raise MachineError(f"train.report_to: {name} is not installed; run: pip install {name}")


def build(
    recipe: Recipe, ingredients: Ingredients, output: Path, *, cache: Path, progress: Progress
) -> SFTTrainer:
    """The SFTTrainer of a recipe, its weights loaded, which writes checkpoints below `output`."""
    from trl import SFTTrainer

    arguments = sft_config(recipe, output)
    base = model.load_model(recipe, model.fetch(recipe, cache))
    if added := model.fit_embeddings(base, len(ingredients.tokenizer)):
        trained = "" if recipe["lora"].get("modules_to_save") else "; lora.modules_to_save would train them"
        progress.note(f"{added} embedding rows added for new tokens{trained}")
    check_separation(base, recipe)
    sft = SFTTrainer(
        model=base,
        args=arguments,
        train_dataset=ingredients.rows.train,
        eval_dataset=ingredients.rows.evaluation,
        processing_class=ingredients.tokenizer,
        peft_config=model.lora_config(recipe),
        callbacks=_early_stopping(recipe),
    )
    _use_loraplus(sft, recipe)
    return sft


def check_separation(base: PreTrainedModel, recipe: Recipe) -> None:
    """Raise RecipeError where rows are to be joined and the model would let them see one another."""
    train = recipe["train"]
    if flattened(train) and not keeps_rows_apart(base, autocast(train)):
        key = "packing" if train.get("packing") else "padding_free"
        message = f"'{base.config.model_type}' models let joined rows see one another; write {key}: false"
        raise RecipeError([recipe.problem(("train", key), message)])


def sft_config(recipe: Recipe, output: Path) -> SFTConfig:
    """The recipe's `train` section as TRL's own config, with what loracook decides for every run."""
    from trl import SFTConfig

    section = {key: value for key, value in as_trained(recipe).items() if key not in NESTED}
    try:
        return SFTConfig(
            **section,
            output_dir=str(output),
            use_cpu=not model.has_accelerator(),
            disable_tqdm=True,
            logging_nan_inf_filter=False,  # it logs 0.0 for a NaN loss and trains on
            dataset_kwargs={"skip_prepare_dataset": True},  # loracook.data did it, and counted what it did
        )
    except ValueError as error:
        if "bf16" not in str(error):
            raise
        raise MachineError(
            "this GPU has no bfloat16; write train.fp16: true and base_model.dtype: float16"
        ) from error


def _early_stopping(recipe: Recipe) -> list[Any]:
    from transformers import EarlyStoppingCallback

    section = recipe["train"].get("early_stopping")
    return [EarlyStoppingCallback(**section)] if section else []


def _use_loraplus(sft: SFTTrainer, recipe: Recipe) -> None:
    section = recipe["lora"].get("loraplus")
    if section is None:
        return
    from peft.optimizers import create_loraplus_optimizer

    optimizer, settings = sft.get_optimizer_cls_and_kwargs(sft.args, sft.model)
    sft.optimizer = create_loraplus_optimizer(
        model=sft.model,
        optimizer_cls=optimizer,
        loraplus_weight_decay=sft.args.weight_decay,
        **{**settings, **section},
    )
