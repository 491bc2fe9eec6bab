"""The trainer's batches hold what preview showed, for every format and loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

import loracook.data as data
from loracook.data.preview import preview
from loracook.progress import Silent
from tests.data.read.test_oasst import TREE
from tests.data.samples import chat, json_lines, recipe, tokenizer

LONG = "Leek and potato. " * 20
FORMATS: dict[str, list[dict[str, Any]]] = {
    "messages": [chat("Soup?", "Leek.", "More?", LONG), chat("Which?", "Potato.")],
    "sharegpt": [{"conversations": [{"from": "human", "value": "Soup?"}, {"from": "gpt", "value": LONG}]}],
    "alpaca": [{"instruction": "Name a soup.", "input": "It is cold.", "output": "Leek."}],
    "prompt_completion": [
        {"prompt": "Soup?", "completion": "Leek."},
        {"prompt": "More?", "completion": LONG},
    ],
    "text": [{"text": "Leek."}, {"text": LONG}],
    "oasst": [{"message_tree_id": "q", "prompt": TREE}],
    "columns": [{"q": "Soup", "a": "Leek"}],
}
LOSSES = {"text": ("all",), "messages": ("assistant", "last_turn", "all")}
CASES = [
    (format, template, loss)
    for format in FORMATS
    for template in ("chatml", "plain", "none", "llama3")
    for loss in LOSSES.get(format, ("completion", "all"))
    if template != "none" or format in ("prompt_completion", "alpaca", "text", "columns")
]


@pytest.mark.parametrize(("format", "template", "loss"), CASES)
def test_batches_hold_what_preview_showed(format: str, template: str, loss: str, tmp_path: Path) -> None:
    json_lines(tmp_path / "rows.jsonl", FORMATS[format])
    columns = {"prompt": "{q}?", "completion": "{a}."} if format == "columns" else {}
    book = recipe(
        tmp_path,
        dataset={"path": "./rows.jsonl", "format": format, "shuffle": False},
        template={"chat_template": template, "loss": loss, **columns},
        train={"max_length": 64},
    )
    made = data.with_template(book, tokenizer(bos="<s>"))
    shown = preview(book, made, tmp_path / "cache", progress=Silent(), rows=100)
    rows = [[token for token in row.tokens if token.state != "truncated"] for row in shown.rows]
    expected = [
        ([token.id for token in row], [token.id if token.state == "trained" else -100 for token in row])
        for row in rows
    ]
    assert (
        batches(data.prepare(book, made, tmp_path / "cache", progress=Silent()), made, tmp_path) == expected
    )


def batches(prepared: data.Prepared, made: Any, folder: Path) -> list[tuple[list[int], list[int]]]:
    """The rows of the trainer's batches in their order, without padding."""
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    arguments = SFTConfig(
        output_dir=str(folder / "out"),
        use_cpu=True,
        activation_checkpointing=False,
        bf16=False,
        report_to="none",
        per_device_train_batch_size=2,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SFTTrainer(
        model=LlamaForCausalLM(LlamaConfig(vocab_size=len(made), **small)),
        args=arguments,
        train_dataset=prepared.train,
        processing_class=made,
    )
    found = []
    for batch in trainer.get_train_dataloader():
        for ids, labels, real in zip(
            batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True
        ):
            length = int(real.sum())
            found.append((ids[:length].tolist(), labels[:length].tolist()))
    return found
