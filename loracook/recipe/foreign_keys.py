"""How other tools spell the keys that loracook offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loracook.errors import Path, dotted, quote, spell
from loracook.recipe.foreign_values import CHANGED


@dataclass(frozen=True)
class Spelling:
    """Where a key of another tool goes, and its value there; None where the user has to choose one.

    A path of a section alone says that the key is left out here, where that means the same.
    """

    path: Path
    value: Any = None

    def words(self, here: Path) -> str:
        """What to write instead of the key of the mapping at `here`."""
        *section, key = self.path
        if not section:
            return "remove it, as leaving it out means the same"
        written = key if self.value is None else f"{key}: {spell(self.value)}"
        return f"write {quote(written)}" + (
            "" if tuple(section) == here else f" below '{dotted(tuple(section))}:'"
        )


RENAMED = {
    "lora.r": "adapter_r rank lora_r lora_rank",
    "lora.lora_alpha": "alpha",
    "lora.lora_dropout": "dropout",
    "lora.fan_in_fan_out": "lora_fan_in_fan_out",
    "lora.layers_to_transform": "lora_layers_to_transform",
    "lora.task_type": "lora_task_type",
    "lora.init_lora_weights": "lora_init_weights",
    "lora.use_dora": "peft_use_dora dora",
    "lora.use_rslora": "peft_use_rslora rslora",
    "base_model.name_or_path": (
        "model model_id model_name model_name_or_path model_path pretrained_model_name_or_path"
    ),
    "base_model.revision": "model_revision",
    "dataset.path": "dataset_name dataset_path",
    "dataset.name": "dataset_config",
    "dataset.split": "dataset_train_split",
    "dataset.eval.split": "dataset_test_split",
    "dataset.streaming": "dataset_streaming",
    "dataset.data_files": "train_file train_files",
    "dataset.eval.data_files": "validation_file eval_file",
    "dataset.rows": "max_samples max_train_samples",
    "dataset.eval.rows": "max_eval_samples",
    "dataset.eval.fraction": "val_size val_set_size",
    "dataset.shuffle": "shuffle_dataset",
    "dataset.limits.missing_eos": "without_stop",
    "template.system": "system_prompt default_system",
    "quantization.load_in_4bit": "use_4bit load_4bit",
    "quantization.load_in_8bit": "use_8bit load_8bit",
    "quantization.bnb_4bit_quant_type": "quant_type",
    "quantization.bnb_4bit_use_double_quant": (
        "double_quant double_quantization use_nested_quant use_bnb_nested_quant"
    ),
    "train.learning_rate": "lr",
    "train.num_train_epochs": "epochs num_epochs n_epochs max_epochs",
    "train.max_steps": "steps num_steps num_train_steps max_train_steps",
    "train.per_device_train_batch_size": (
        "batch_size micro_batch_size train_batch_size per_device_batch_size "
        "per_gpu_train_batch_size device_train_microbatch_size"
    ),
    "train.per_device_eval_batch_size": "eval_batch_size",
    "train.gradient_accumulation_steps": (
        "gradient_accumulation grad_accum grad_accum_steps accumulate_grad_batches"
    ),
    "train.max_length": (
        "sequence_len sequence_length seq_length seq_len "
        "cutoff_len max_seq_len max_seq_length model_max_length block_size"
    ),
    "train.packing": "sample_packing",
    "train.eval_packing": "eval_sample_packing",
    "train.lr_scheduler_type": "scheduler lr_scheduler lr_schedule",
    "train.warmup_steps": "warmup warmup_ratio lr_warmup_steps num_warmup_steps",
    "train.activation_checkpointing": "gradient_checkpointing",
    "train.activation_checkpointing_kwargs": "gradient_checkpointing_kwargs",
    "train.max_grad_norm": "gradient_clipping max_norm clip_grad_norm",
    "train.eval_strategy": "evaluation_strategy",
    "train.load_best_model_at_end": "load_best load_best_model save_best",
    "train.early_stopping.early_stopping_patience": "early_stopping patience",
    "train.seed": "random_seed",
    "train.neftune_noise_alpha": "neftune_alpha noise_alpha",
    "train.project": "wandb_project",
    "train.run_name": "wandb_run_name",
    "evaluate.generation.max_new_tokens": "max_new_token max_tokens",
    "push.repo_id": "hub_model_id repo repository",
    "push.private": "hub_private_repo",
    "push.revision": "hub_revision",
}
HERE = {name: path for path, names in RENAMED.items() for name in names.split()}


def ours(name: str, value: Any) -> Spelling | None:
    """Where a key of another tool goes and its value there; None when it is no key that loracook knows of."""
    if name in CHANGED:
        path, value = CHANGED[name](value)
    elif name in HERE:
        path = HERE[name]
    else:
        return None
    return Spelling(tuple(path.split(".")), value)
