"""What the trainer gets is what TRL would make of the rows, and is counted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

import loracook.data as data
from loracook.errors import RecipeError
from loracook.progress import Silent
from loracook.recipe.recipe import Recipe
from tests.data.samples import chat, json_lines, marked, recipe, tokenizer

ASKED = [chat(f"What is soup {i}?", f"Leek, {i} times.", "And now?", "Potato " * i) for i in range(1, 9)]
PAIRS = [{"prompt": f"What is soup {i}? ", "completion": f"Leek and {i} potatoes."} for i in range(1, 9)]


def prepared(book: Recipe, tmp_path: Path, made: Any) -> data.Prepared:
    return data.prepare(book, data.with_template(book, made), tmp_path / "cache", progress=Silent())


def theirs(rows: list[dict[str, Any]], made: Any, **config: Any) -> list[dict[str, Any]]:
    """The rows as SFTTrainer's own preparation leaves them."""
    args = SFTConfig(
        output_dir="unused",
        bf16=False,
        report_to="none",
        use_cpu=True,
        activation_checkpointing=False,
        **{"max_length": 40, **config},
    )
    sample = rows[0]
    trainer = SimpleNamespace(
        _tokenizer=made, chat_template=None, completion_only_loss="prompt" in sample, _is_vlm=False
    )
    dataset = Dataset.from_list(rows)
    found = SFTTrainer._prepare_dataset(trainer, dataset, made, args, args.packing, None, "train")
    columns = ("input_ids", "labels", "seq_lengths")
    return list(found.select_columns([name for name in columns if name in found.column_names]))


def test_chat_rows_are_those_of_trl(tmp_path: Path) -> None:
    json_lines(tmp_path / "chat.jsonl", ASKED)
    book = recipe(
        tmp_path,
        dataset={"path": "./chat.jsonl", "shuffle": False},
        template={"chat_template": "chatml", "loss": "assistant"},
        train={"max_length": 40},
    )
    made = tokenizer()
    ours = prepared(book, tmp_path, made)
    assert list(ours.train) == theirs(ASKED, made, assistant_only_loss=True)


def test_plain_pairs_are_those_of_trl(tmp_path: Path) -> None:
    json_lines(tmp_path / "pairs.jsonl", PAIRS)
    book = recipe(
        tmp_path,
        dataset={"path": "./pairs.jsonl", "shuffle": False},
        template={"chat_template": "none"},
        train={"max_length": 40},
    )
    made = tokenizer(bos="<s>")
    assert list(prepared(book, tmp_path, made).train) == theirs(PAIRS, made)


def test_plain_text_is_that_of_trl(tmp_path: Path) -> None:
    rows = [{"text": f"soup {i} " * i} for i in range(1, 9)]
    json_lines(tmp_path / "text.jsonl", rows)
    book = recipe(tmp_path, dataset={"path": "./text.jsonl", "shuffle": False}, train={"max_length": 40})
    made = tokenizer()
    assert list(prepared(book, tmp_path, made).train) == theirs(rows, made)


def test_conversational_pairs_are_those_of_trl(tmp_path: Path) -> None:
    rows = [{"prompt": row["messages"][:3], "completion": row["messages"][3:]} for row in ASKED]
    json_lines(tmp_path / "pairs.jsonl", rows)
    book = recipe(
        tmp_path,
        dataset={"path": "./pairs.jsonl", "shuffle": False},
        template={"chat_template": "chatml"},
        train={"max_length": 90},
    )
    made = tokenizer()
    assert list(prepared(book, tmp_path, made).train) == theirs(rows, made, max_length=90)


@pytest.mark.parametrize("strategy", ["bfd", "bfd_split", "wrapped"])
def test_packed_rows_are_those_of_trl(tmp_path: Path, strategy: str) -> None:
    json_lines(tmp_path / "chat.jsonl", ASKED)
    book = recipe(
        tmp_path,
        dataset={"path": "./chat.jsonl"},
        template={"chat_template": "chatml", "loss": "assistant"},
        train={"max_length": 40, "packing": True, "packing_strategy": strategy},
    )
    made = tokenizer()
    ours = prepared(book, tmp_path, made)
    config = {"packing": True, "packing_strategy": strategy, "seed": 42}
    assert list(ours.train) == theirs(ASKED, made, assistant_only_loss=True, **config)


class States(Silent):
    """Progress that records the states it is told."""

    def __init__(self) -> None:
        self.states: list[tuple[int, int, str]] = []

    def advance(self, done: int, total: int, text: str) -> None:
        self.states.append((done, total, text))


def test_reading_and_tokenizing_report_progress(tmp_path: Path) -> None:
    json_lines(tmp_path / "rows.jsonl", [{"text": f"Soup {i}."} for i in range(1500)])
    book, progress = recipe(tmp_path, dataset={"path": "./rows.jsonl"}), States()
    data.prepare(book, data.with_template(book, tokenizer()), tmp_path / "cache", progress=progress)
    assert progress.states == [
        (0, 0, "hashing or downloading the data"),
        (1000, 0, "rows of ./rows.jsonl read"),
        (1000, 1500, "rows tokenized"),
        (1500, 1500, "rows tokenized"),
    ]


def test_the_answers_and_their_end_are_trained(tmp_path: Path) -> None:
    json_lines(tmp_path / "chat.jsonl", [chat("Soup?", "Leek.", "More?", "No.")])
    made = tokenizer()
    shown = {}
    for loss in ("assistant", "last_turn", "completion", "all"):
        book = recipe(
            tmp_path,
            dataset={"path": "./chat.jsonl"},
            template={"chat_template": "chatml", "system": "Be brief.", "loss": loss},
        )
        row = prepared(book, tmp_path, made).train[0]
        shown[loss] = marked(row["input_ids"], row["labels"], made)
    opening = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nSoup?<|im_end|>\n<|im_start|>assistant\n"
    )
    between = "\n<|im_start|>user\nMore?<|im_end|>\n<|im_start|>assistant\n"
    last = f"{opening}Leek.<|im_end|>{between}⟦No.<|im_end|>\n⟧"
    assert shown == {
        "assistant": f"{opening}⟦Leek.<|im_end|>⟧{between}⟦No.<|im_end|>⟧\n",
        "last_turn": last,
        "completion": last,
        "all": f"⟦{opening}Leek.<|im_end|>{between}No.<|im_end|>\n⟧",
    }


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize(
    ("eval_rows", "line"),
    [
        ([chat("Soup?", "Leek.")], "dataset: no training row has a token in the loss; {advice}"),
        ([chat("Soup? " * 50, "Leek.")], "dataset.eval: no evaluation row has a token in the loss; {advice}"),
    ],
)
def test_rows_of_which_nothing_is_left_are_refused(
    eval_rows: list[Any], line: str, packing: bool, tmp_path: Path
) -> None:
    trained = chat("Soup?", "Leek.") if "eval" in line else chat("Soup? " * 50, "Leek.")
    json_lines(tmp_path / "train.jsonl", [trained])
    json_lines(tmp_path / "eval.jsonl", eval_rows)
    book = recipe(
        tmp_path,
        dataset={"path": "./train.jsonl", "eval": {"path": "./eval.jsonl"}},
        template={"chat_template": "chatml"},
        train={"max_length": 40, "packing": packing, "eval_strategy": "epoch"},
    )
    with pytest.raises(RecipeError) as caught:
        prepared(book, tmp_path, tokenizer())
    advice = "raise train.max_length or change template.loss"
    assert str(caught.value).endswith(line.format(advice=advice))


def test_evaluation_prompts_end_where_the_answer_begins(tmp_path: Path) -> None:
    json_lines(tmp_path / "chat.jsonl", ASKED)
    book = recipe(
        tmp_path,
        dataset={"path": "./chat.jsonl", "eval": {"rows": 2}, "shuffle": False},
        template={"chat_template": "plain"},
    )
    made = data.with_template(book, tokenizer())
    first = data.evaluation_prompts(book, made, 1)[0]
    asked = "User: What is soup 7?\nAssistant: Leek, 7 times.</s>\nUser: And now?\nAssistant:"
    assert (made.decode(first.prompt_ids), first.reference) == (asked, " Potato" * 7 + " ")
    assert made.decode(data.prompt_ids(book, made, "Soup?")) == "User: Soup?\nAssistant:"
