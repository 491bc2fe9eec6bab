"""What a run trains and takes, known before weights: one value for `plan`, `--probe` and the run itself."""

from dataclasses import dataclass
from pathlib import Path

from loracook import data, model
from loracook.errors import LoracookError, RecipeError, UnreachableError
from loracook.estimate.batches import Batch, TokenCount, count_tokens, largest_batch, planned_steps
from loracook.estimate.fake_step import FakeStepError, step_memory
from loracook.estimate.memory import StageMemory, autocast, stage_memory
from loracook.estimate.meta_model import MetaModel, meta_model, named_tokens
from loracook.estimate.rows import RowStats, row_stats
from loracook.machine.devices import Device
from loracook.recipe.derived import Steps, fixed_steps
from loracook.recipe.recipe import Recipe


@dataclass(frozen=True)
class Estimate:
    """A recipe on a device: its model, rows, steps, largest batch and memory.

    What is None cannot be known here; `unknown` says what, and why.
    """

    recipe: Recipe
    meta_model: MetaModel
    rows: RowStats | None
    steps: Steps | None
    batch: Batch
    device: Device
    memory: StageMemory | None
    unknown: tuple[str, ...] = ()

    @property
    def tokens(self) -> TokenCount | None:
        """The tokens of the whole run."""
        if self.rows is None or self.steps is None:
            return None
        return count_tokens(self.recipe, self.rows, self.steps)

    @property
    def exact_steps(self) -> bool:
        """Whether the number of steps is exact: the recipe sets it, or every row was counted."""
        return bool(fixed_steps(self.recipe["train"]) or (self.rows and self.rows.exact))

    @property
    def precision_advice(self) -> dict[str, str]:
        """What to set instead of each precision of the recipe that the device is slow or bad at."""
        compute = self.meta_model.quantization.get("bnb_4bit_compute_dtype")
        dtypes = {str(self.meta_model.dtype), str(autocast(self.recipe["train"])), f"torch.{compute}"}
        advice = {"bfloat16": self.device.bfloat16_advice, "float16": self.device.float16_advice}
        return {name: text for name, text in advice.items() if text and f"torch.{name}" in dtypes}

    @property
    def too_large(self) -> list[str]:
        """The stages that do not fit the device."""
        return self.memory.too_large(self.device.bytes) if self.memory else []


def estimate(
    recipe: Recipe,
    meta_model: MetaModel,
    rows: RowStats | None,
    *,
    device: Device,
    unknown: tuple[str, ...] = (),
) -> Estimate:
    """The estimate of a recipe whose model and rows are known; `unknown` is passed on.

    Raises:
        RecipeError: a row is too long for the model, there is no batch to train on, or the model cannot be
            trained with activation checkpointing.
    """
    if rows is not None:
        model.check_rows(meta_model.base, recipe, rows.longest)
    batch, steps = largest_batch(recipe, rows), planned_steps(recipe, rows)
    try:
        memory = stage_memory(recipe, meta_model, batch, device=device.kind)
    except FakeStepError as error:
        _check_checkpointing(recipe, meta_model, batch)
        memory = None
        reason = f"this model's code does not run without weights ({error}); add --probe to measure"
        unknown = (*unknown, f"memory: {reason}")
    return Estimate(recipe, meta_model, rows, steps, batch, device, memory, unknown)


def _check_checkpointing(recipe: Recipe, meta_model: MetaModel, batch: Batch) -> None:
    """Raise RecipeError where a step fails with activation checkpointing, and without it not so.

    The inputs of checkpointed layers require gradients, which code that changes embeddings in place rejects.
    """
    train = recipe["train"]
    if not train.get("activation_checkpointing"):
        return
    failures = list[str]()
    for checkpointing in (True, False):
        try:
            step_memory(meta_model.tuned, batch, checkpointing=checkpointing, autocast=autocast(train))
            failures.append("")
        except FakeStepError as error:
            failures.append(str(error))
    failure, without = failures
    if failure and failure != without:
        message = f"the code of '{meta_model.config.model_type}' models fails with it; write false"
        raise RecipeError([recipe.problem(("train", "activation_checkpointing"), message)])


def read_and_estimate(recipe: Recipe, cache: Path, device: Device) -> Estimate:
    """The estimate of a recipe from config, tokenizer and data, each read once; of many rows, a sample.

    Args:
        recipe: what is to be run.
        cache: the folder of converted models and prepared data.
        device: where it is to run.

    Raises:
        RecipeError: the model cannot be found or trained, a module name matches nothing, or the data cannot
            be used.
    """
    unknown = list[str]()
    folder = model.fetch_description(recipe, cache)
    loaded = model.tokenizer_in(recipe, folder)
    if loaded is None:
        unknown.append("tokens and steps: the base model's folder has no tokenizer")
        unknown += [
            f"whether {token} is a new token: counted as one" for token in sorted(named_tokens(recipe))
        ]
        return estimate(recipe, meta_model(recipe, folder, None), None, device=device, unknown=tuple(unknown))
    tokenizer, rows = data.with_template(recipe, loaded.tokenizer), None
    if "merge" in recipe:
        model.try_tokenizer(recipe, folder, tokenizer)
    if "export" in recipe:
        model.try_export(recipe, folder, tokenizer)
    try:
        rows = row_stats(recipe, tokenizer, cache)
    except UnreachableError as error:
        unknown.append(f"tokens and steps: {message_of(error)}")
    notes = (*loaded.notes, *model.start_notes(recipe, tokenizer))
    base = meta_model(recipe, folder, len(tokenizer)).noting(notes)
    return estimate(recipe, base, rows, device=device, unknown=tuple(unknown))


def message_of(error: LoracookError) -> str:
    """The message of an error, without the places in the recipe."""
    problems = error.problems if isinstance(error, RecipeError) else ()
    return "; ".join(problem.message for problem in problems) or str(error)
