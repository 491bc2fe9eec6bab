"""The commented recipe that `loracook init` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from loracook.recipe.yaml_values import scalar

TEXT = """\
# yaml-language-server: $schema=https://loracook.github.io/schemas/recipe-1.json
# To look up any key: loracook explain {name}.yaml lora.r
version: 1
name: {title}

base_model:
  name_or_path: {model}
  # revision: a commit hash, to get exactly these weights again
  dtype: {dtype}

dataset:
  path: {data}
{format}
  {eval}

{template}

# quantization: {{load_in_4bit: true, bnb_4bit_quant_type: nf4, bnb_4bit_compute_dtype: {dtype}}}

lora:
  r: 16
  lora_alpha: 32
  lora_dropout: 0.05
  target_modules: all-linear

train:
  num_train_epochs: 1
  per_device_train_batch_size: 4
  gradient_accumulation_steps: 4
  learning_rate: 2e-4
  max_length: {max_length}
  {eval_strategy}
{precision}
evaluate:
{rows}
  prompts:
    - Say in one sentence what you can do.
  generation: {{max_new_tokens: 128}}

# merge: {{dtype: bfloat16}}
# push: {{repo_id: me/{name}, private: true}}
"""
LOSSES = {
    "assistant": "compute the loss on the assistant turns only",
    "completion": "compute the loss on the completions only",
}


@dataclass(frozen=True)
class Choices:
    """What a model and the first rows decide in a recipe; None where they were not looked at."""

    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    chat_template: str | None = None
    loss: str = "assistant"
    max_length: int = 1024
    dtype: str = "bfloat16"
    held_out: bool = True


UNSEEN = Choices()


def starter(name: str, *, model: str, data: str, choices: Choices = UNSEEN) -> str:
    """The text of a recipe for a model and a data set, each a hub id or a path in the recipe's folder."""
    asked = choices.loss in LOSSES and choices.held_out
    trained = "  rows: 20" if asked else "  # rows: 20, where rows with prompts are held out"
    off = "" if choices.held_out else "# "
    return TEXT.format(
        name=name,
        title=scalar(name),
        model=scalar(model),
        data=scalar(data),
        format="\n".join(_format(choices)),
        template="\n".join(_template(choices)),
        eval=f"{off}eval: {{fraction: 0.05}} # held out of the training rows, to detect overfitting",
        eval_strategy=f"{off}eval_strategy: epoch",
        max_length=choices.max_length,
        dtype=choices.dtype,
        precision="" if choices.dtype == "bfloat16" else "  bf16: false\n",
        rows=trained,
    )


def _format(choices: Choices) -> list[str]:
    if choices.format is None:
        formats = "messages, sharegpt, alpaca, prompt_completion, text, oasst or columns"
        return [f"  # format: {formats}; detected if left out"]
    columns = ", ".join(f"{ours}: {scalar(theirs)}" for ours, theirs in choices.columns.items())
    return [f"  format: {choices.format}", *([f"  columns: {{{columns}}}"] if columns else ())]


def _template(choices: Choices) -> list[str]:
    if choices.loss not in LOSSES:
        return ["# template: {prompt: ..., completion: ...}, to train on parts of the rows only"]
    own = "  # chat_template: chatml, for a base model without a chat template"
    return [
        "template:",
        f"  chat_template: {choices.chat_template}" if choices.chat_template else own,
        "  # system: You are a helpful assistant.",
        f"  loss: {choices.loss} # {LOSSES[choices.loss]}",
    ]
