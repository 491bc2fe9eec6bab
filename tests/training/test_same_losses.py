"""A run's losses are those of the same job written by hand with TRL, bit for bit with the same loss head."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from trl import SFTConfig, SFTTrainer

import loracook
from loracook.model.cpu_loss import score_trained_positions
from loracook.model.row_attention import attend_row_by_row
from tests.tiny_models import LINES, write_twin

CHATML = (
    "{% for message in messages %}<{{ message.role }}>{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content }}<|endoftext|>{% endgeneration %}"
    "{% else %}{{ message.content }}{% endif %}\n{% endfor %}"
)
TRAIN: dict[str, Any] = {
    "max_steps": 6,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-3,
    "max_length": 48,
    "logging_steps": 1,
    "activation_checkpointing": False,
    "save_strategy": "no",
}
DECIDED = {"lr_scheduler_type": "cosine", "warmup_steps": 0.03, "seed": 42, "report_to": "none"}
"""What loracook decides where a recipe says nothing; a script has to say it."""


@pytest.mark.parametrize(
    ("dropout", "settings"),
    [
        (0.0, {}),
        (0.1, {"packing": True}),
        (0.1, {"neftune_noise_alpha": 5}),
        (0.1, {"lr_scheduler_type": "linear", "optim": "adafactor"}),
    ],
    ids=["plain", "packed", "neftune", "adafactor"],
)
def test_losses_are_those_of_a_script_written_by_hand(
    tmp_path: Path, dropout: float, settings: dict[str, Any]
) -> None:
    write_twin(tmp_path / "model", "llama")
    rows = [{"messages": said(line, number)} for number, line in enumerate(LINES * 6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "chat.jinja").write_text(CHATML)
    ours = by_loracook(tmp_path, TRAIN | settings, dropout)
    assert ours == by_hand(tmp_path, TRAIN | DECIDED | settings, dropout, as_ours)
    if not settings:
        assert ours == pytest.approx(by_hand(tmp_path, TRAIN | DECIDED, dropout), rel=1e-5)


def as_ours(base: PreTrainedModel) -> None:
    """Let a model compute its loss and attend as in a run on a CPU."""
    score_trained_positions(base)
    attend_row_by_row(base)


def said(line: str, number: int) -> list[dict[str, str]]:
    """A question and its answer."""
    return [
        {"role": "user", "content": line[:20]},
        {"role": "assistant", "content": f"{number} {line[20:60]}"},
    ]


def by_loracook(folder: Path, train: dict[str, Any], dropout: float) -> list[float]:
    """The losses that a run of the recipe logs."""
    recipe = {
        "version": 1,
        "name": "same",
        "base_model": {"name_or_path": "./model"},
        "dataset": {"path": "./rows.jsonl", "limits": {"truncated": 1.0, "missing_eos": 1.0}},
        "template": {"chat_template": "./chat.jinja"},
        "lora": {"r": 4, "lora_alpha": 8, "lora_dropout": dropout, "target_modules": "all-linear"},
        "train": train,
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    loracook.run(loracook.load(folder / "recipe.yaml"), folder / "runs")
    log = next((folder / "runs").glob("same/train-*/log.jsonl"))
    return losses(map(json.loads, log.read_text().splitlines()))


def by_hand(
    folder: Path, train: dict[str, Any], dropout: float, head: Callable[[Any], None] = lambda _: None
) -> list[float]:
    """The losses of SFTTrainer used directly, with TRL's own tokenizing and masking, and another loss head."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenizer.chat_template = CHATML
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype="bfloat16"),
        args=SFTConfig(
            output_dir=str(folder / "hand"),
            use_cpu=True,
            assistant_only_loss=True,
            disable_tqdm=True,
            **train,
        ),
        train_dataset=load_dataset(
            "json", data_files=str(folder / "rows.jsonl"), split="train", cache_dir=str(folder / "cache")
        ),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    head(trainer.model.get_base_model())
    trainer.train()
    return losses(trainer.state.log_history)


def losses(log: Any) -> list[float]:
    """The loss of every step."""
    return [entry["loss"] for entry in log if "loss" in entry]
