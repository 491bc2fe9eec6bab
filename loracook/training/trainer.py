"""The recipe as TRL's SFTTrainer: what is checked before weights are downloaded, then the trainer itself."""

from __future__ import annotations

import importlib.util
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook import data, model
from loracook.data.order import train_arguments
from loracook.errors import MachineError, RecipeError
from loracook.estimate.batches import is_flat
from loracook.estimate.memory import autocast
from loracook.estimate.meta_model import MetaModel, meta_model
from loracook.machine.devices import device_here
from loracook.model.packing_isolation import isolates_packed_sequences
from loracook.progress import Progress
from loracook.recipe.recipe import Recipe
from loracook.store.folders import commit
from loracook.training import compiled, group
from loracook.training.processes import DDP, FSDP2

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig, SFTTrainer

    from loracook.training.one_order import OneOrderTrainer


OURS = ("early_stopping", *compiled.KEYS)
"""Keys of the section that SFTConfig does not get."""
ROW_BY_ROW = "attention is computed for each row of a batch alone"
PRECISIONS = {"fp16": ("cuda", "mps"), "tf32": ("cuda",)}
"""Kinds of mixed precision, and the kinds of devices that have them."""


@dataclass(frozen=True)
class TrainerInputs:
    """What a trainer needs besides weights: tokenizer with its template, rows, and the model's structure."""

    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase
    rows: data.Prepared
    meta_model: MetaModel
    tokenizer_commit: str | None
    """The commit on the hub of another tokenizer than the base model's own."""

    @property
    def commit(self) -> str | None:
        """The base model's commit on the hub, None for a local one."""
        return commit(self.meta_model.folder)

    @property
    def draws_random_numbers(self) -> bool:
        """Whether training drops units or adds noise at random, which differs from process to process."""
        noise = self.recipe["train"].get("neftune_noise_alpha")
        return bool(noise) or self.meta_model.drops_units


def trainer(recipe: Recipe, folder: Path, *, cache: Path, progress: Progress) -> SFTTrainer:
    """The recipe as a configured SFTTrainer, the base model loaded and the data prepared, not yet run.

    Everything that can be known from the config, the tokenizer and the data is checked before weights are
    downloaded.

    Raises:
        RecipeError: the recipe does not fit its model or its data.
        MachineError: this machine cannot run it.
    """
    check_trackers(recipe)
    inputs = read_inputs(model.started(recipe), cache, progress)
    return build(inputs, folder / "checkpoints", cache=cache, progress=progress)


def read_inputs(
    recipe: Recipe, cache: Path, progress: Progress, *, first: int | None = None
) -> TrainerInputs:
    """What training needs besides weights, all of it checked against the recipe, that of each process.

    The rows are all of them, or those that training takes `first` (loracook.data.prepare).

    Raises:
        RecipeError: a module that does not exist, rows that cannot be used or exceed the recipe's limits, a
            prompt that is too long for the model.
    """
    check_precision(recipe)
    compiled.check_compiler(recipe)
    folder = model.fetch_description(recipe, cache)
    loaded = model.read_tokenizer(recipe, model.fetch_tokenizer(recipe, cache))
    pads = loaded.tokenizer.pad_token is not None
    tokenizer = data.with_template(recipe, loaded.tokenizer)
    if not pads:
        progress.note(f"the tokenizer has no padding token; '{tokenizer.pad_token}' pads")
    notes = (*loaded.notes, *model.start_notes(recipe, tokenizer))
    structure = meta_model(recipe, folder, len(tokenizer)).noting(notes)
    model.check_loadable(structure.config)
    if "merge" in recipe:
        model.try_tokenizer(recipe, folder, tokenizer)
    if "export" in recipe:
        model.try_export(recipe, folder, tokenizer)
    rows = data.prepare(recipe, tokenizer, cache, progress=progress, first=first)
    for note in (*structure.notes, *rows.notes):
        progress.note(note)
    _check_limits(recipe, tokenizer, rows, cache=cache, progress=progress)
    if "evaluate" in recipe:
        further = data.further_row_sets(recipe, tokenizer, cache, progress=progress).values()
        prompts = [*data.all_prompts(recipe, tokenizer), *(each for rows in further for each in rows.prompts)]
        model.check_prompts(
            structure.base, recipe, max((len(prompt.prompt_ids) for prompt in prompts), default=0)
        )
    return TrainerInputs(recipe, tokenizer, rows, structure, loaded.commit)


def _check_limits(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    rows: data.Prepared,
    *,
    cache: Path,
    progress: Progress,
) -> None:
    """Raise RecipeError for rows over the recipe's limits; those of a part are for all rows to decide."""
    over = data.over_limits(rows.statistics, recipe)
    if over and rows.statistics["part"]:  # shares of few rows say little of all
        statistics = data.prepared_statistics(recipe, tokenizer, cache, progress=progress)
        over = data.over_limits(statistics, recipe)
    if over:
        raise RecipeError(over)


def check_trackers(recipe: Recipe) -> None:
    """Raise MachineError for a tracker that is not installed; upstream says so after loading weights."""
    trackers = recipe["train"]["report_to"]
    for name in [trackers] if isinstance(trackers, str) else trackers:
        if name != "none" and importlib.util.find_spec(name) is None:
            raise MachineError(f"train.report_to: {name} is not installed; run: pip install {name}")


def check_precision(recipe: Recipe) -> None:
    """Raise MachineError for a precision that cannot be used here; upstream says so after loading weights."""
    device = device_here()
    for name, kinds in PRECISIONS.items():
        if recipe["train"].get(name) and device.kind not in kinds:
            raise MachineError(f"train.{name} requires a GPU, not {device.name}; write {name}: false")


def build(
    inputs: TrainerInputs, output: Path, *, cache: Path, progress: Progress, strategy: str = DDP
) -> OneOrderTrainer:
    """The SFTTrainer of a recipe, its weights loaded, which writes checkpoints below `output`."""
    from loracook.model.row_attention import attend_row_by_row
    from loracook.training.one_order import OneOrderTrainer, with_masked_row

    recipe = inputs.recipe
    arguments = sft_config(recipe, output)
    progress.advance(0, 0, "loading the base model")
    place = {"device_map": None} if strategy == FSDP2 else {}  # it may not fit a device whole
    base = model.load_model(recipe, model.fetch(recipe, cache), **place)
    model.fit_embeddings(base, len(inputs.tokenizer))
    check_packing(base, recipe)
    _keep_attention(base, recipe)
    sft = OneOrderTrainer(
        model=base,
        args=arguments,
        train_dataset=with_masked_row(inputs.rows.train) if group.size() > 1 else inputs.rows.train,
        eval_dataset=inputs.rows.evaluation,
        processing_class=inputs.tokenizer,
        peft_config=deepcopy(inputs.meta_model.lora_config),
        callbacks=_early_stopping(recipe),
        strategy=strategy,
        taken=inputs.rows.taken,
    )
    sft.args.max_length = recipe["train"]["max_length"]
    model.load_start(recipe, sft.model)
    _use_loraplus(sft, recipe)
    if is_flat(recipe["train"]) and sft.args.device.type == "cpu" and attend_row_by_row(base):
        sft.speedups.append(ROW_BY_ROW)
    sft.speedups += compiled.compile_layers(sft.model, recipe, cache)
    return sft


def _keep_attention(base: PreTrainedModel, recipe: Recipe) -> None:
    """Have selective checkpointing wrap the base model: TRL 1.16 wraps the adapted one.

    transformers 5.23 passes over that one's method, and torch fails on the key.
    """
    from trl.models import enable_selective_activation_checkpointing

    if recipe["train"].get("activation_checkpointing_kwargs", {}).get("selective"):
        enable_selective_activation_checkpointing(base)


def check_packing(base: PreTrainedModel, recipe: Recipe) -> None:
    """Raise RecipeError where rows are packed and packed sequences attend to each other in the model."""
    train = recipe["train"]
    if is_flat(train) and not isolates_packed_sequences(base, autocast(train)):
        key = "packing" if train.get("packing") else "padding_free"
        message = (
            f"packed sequences attend to each other in '{base.config.model_type}' models; write {key}: false"
        )
        raise RecipeError([recipe.problem(("train", key), message)])


def sft_config(recipe: Recipe, output: Path) -> SFTConfig:
    """The recipe's `train` section as TRL's own config, with what loracook decides for every run."""
    from trl import SFTConfig

    section = {key: value for key, value in train_arguments(recipe).items() if key not in OURS}
    if section.get("padding_free") and not section.get("packing"):
        section["max_length"] = None  # TRL would not cut rows to it; loracook.data did
    if section.get("activation_checkpointing_kwargs", {}).get("use_reentrant"):
        section["ddp_find_unused_parameters"] = False  # DDP fails where it looks for them
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
        raise MachineError(device_here().bfloat16_advice or str(error)) from error


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
