"""The commented recipe that `loracook init` writes."""

from loracook.recipe.yaml_values import scalar

TEXT = """\
# yaml-language-server: $schema=https://loracook.github.io/schemas/recipe-1.json
# To look up any key: loracook explain {name}.yaml lora.r
version: 1
name: {title}

base_model:
  name_or_path: {model}
  # revision: a commit hash, to get exactly these weights again
  dtype: bfloat16

dataset:
  path: {data}
  # format: messages, sharegpt, alpaca, prompt_completion, text, oasst or columns; detected if left out
  eval: {{fraction: 0.05}} # held out of the training rows, to detect overfitting

template:
  # chat_template: chatml, for a base model without a chat template
  # system: You are a helpful assistant.
  loss: assistant # compute the loss on the assistant turns only

# quantization: {{load_in_4bit: true, bnb_4bit_quant_type: nf4, bnb_4bit_compute_dtype: bfloat16}}

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
  max_length: 1024
  eval_strategy: epoch

evaluate:
  rows: 20
  prompts:
    - Say in one sentence what you can do.
  generation: {{max_new_tokens: 128}}

# merge: {{dtype: bfloat16}}
# push: {{repo_id: me/{name}, private: true}}
"""


def starter(name: str, *, model: str, data: str) -> str:
    """The text of a recipe for a model and a data set, each a hub id or a path in the recipe's folder."""
    return TEXT.format(name=name, title=scalar(name), model=scalar(model), data=scalar(data))
