"""What each model makes of the same rows: the base model, the recipe's adapter, and others beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loracook import data, model
from loracook.data import EvaluationPrompt
from loracook.errors import TRAIN_AGAIN, DivergedError
from loracook.evaluation.comparison import ADAPTER, BASE
from loracook.progress import Progress
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Seen:
    """What was seen of one model: the losses of rows, and the answers to prompts."""

    losses: Sequence[model.RowLoss]
    answers: Sequence[model.Generated]


@dataclass(frozen=True)
class Evaluation:
    """A loaded model with its adapter, and how the recipe evaluates it."""

    recipe: Recipe
    tuned: PeftModel
    tokenizer: PreTrainedTokenizerBase
    progress: Progress

    @property
    def sides(self) -> tuple[str, ...]:
        """The names of the models, the base model first."""
        return (BASE, ADAPTER, *_others(self.recipe))

    @contextmanager
    def using(self, side: str) -> Iterator[None]:
        """The model without an adapter, with the recipe's or with another one."""
        if side == BASE:
            with self.tuned.disable_adapter():
                yield
            return
        self.tuned.set_adapter("default" if side == ADAPTER else side)
        yield

    def of(self, row_set: data.RowSet, side: str) -> Seen:
        """What the model, as it is now, makes of rows and prompts; raises DivergedError."""
        losses = [] if row_set.rows is None else self._losses(row_set.rows, side)
        return Seen(losses, self.answers(row_set.prompts, side))

    def _losses(self, rows: Dataset, side: str) -> list[model.RowLoss]:
        losses = model.row_losses(
            self.tuned,
            rows,
            pad=self.tokenizer.pad_token_id,
            batch_size=self.recipe["evaluate"]["batch_size"],
            on_progress=lambda done: self.progress.advance(done, len(rows), f"{side}: loss"),
        )
        if wrong := [row.mean for row in losses if not math.isfinite(row.mean)]:
            advice = "write base_model.dtype: bfloat16 or float32" if side == BASE else TRAIN_AGAIN
            raise DivergedError(f"the {side}'s loss on the evaluation rows is {wrong[0]}; {advice}")
        return losses

    def answers(self, prompts: Sequence[EvaluationPrompt], side: str) -> list[model.Generated]:
        """The answers to the prompts, in their order."""
        section = self.recipe["evaluate"]
        return model.generate(
            self.tuned,
            self.tokenizer,
            [prompt.prompt_ids for prompt in prompts],
            ends=data.end_ids(self.tokenizer),
            settings=section["generation"],
            batch_size=section["batch_size"],
            seed=section["seed"],
            on_progress=lambda done: self.progress.advance(done, len(prompts), f"{side}: answers"),
        )


def tuned(recipe: Recipe, cache: Path, adapter: Path) -> PeftModel:
    """The model to measure: the base model with the recipe's adapter, and those to be evaluated beside it."""
    from trl.trainer.utils import add_fused_lm_head

    base = model.load_model(recipe, model.fetch(recipe, cache), recipe["evaluate"].get("dtype"))
    add_fused_lm_head(base)
    loaded = model.load_tuned(recipe, base, adapter)
    for name in _others(recipe):
        model.add_adapter(recipe, loaded, name)
    return loaded


def _others(recipe: Recipe) -> tuple[str, ...]:
    """The names of the adapters that are evaluated beside the recipe's own."""
    return tuple(recipe["evaluate"].get("adapters", ()))
