"""Small recipes, data files and tokenizers for the tests of data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from loracook.recipe.recipe import Recipe, load

WORDS = ["What is the soup of the day, please?", "The soup is leek and potato.", "system user assistant\n\n"]


def chat(*turns: str) -> dict[str, Any]:
    """A row of messages in which user and assistant alternate."""
    roles = ["user", "assistant"] * len(turns)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]}


LONG_ROWS = [chat(f"Which {i}?", "Leek and potato. " * 20) for i in range(5)]
MASKED_ROWS = [chat(f"Which of the many soups? {i} " * 20, "Leek.") for i in range(3)]
SHORT_ROWS = [chat(f"Which soup, {i}?", f"Leek {i}.") for i in range(80)]
FLAWED_ROWS = [
    *LONG_ROWS,
    *MASKED_ROWS,
    *SHORT_ROWS,
    *SHORT_ROWS[:10],
    *(chat(f"Last {i}?", "No.") for i in range(2)),
]


def planted_flaws(folder: Path) -> Recipe:
    """100 rows: 5 too long, 3 fully masked once truncated, 10 duplicates; 2 of 10 evaluation rows leak."""
    json_lines(folder / "train.jsonl", FLAWED_ROWS)
    json_lines(folder / "eval.jsonl", [*SHORT_ROWS[:2], *(chat(f"New {i}?", "Yes.") for i in range(8))])
    return recipe(
        folder,
        dataset={"path": "./train.jsonl", "eval": {"path": "./eval.jsonl"}, "shuffle": False},
        template={"chat_template": "plain"},
        train={"max_length": 64},
    )


def tokenizer(
    *special: str, chat_template: str | None = None, bos: str | None = None
) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of some 300 tokens that knows `special` as whole tokens and ends with `</s>`."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    known = [*dict.fromkeys(["</s>", "<pad>", *([bos] if bos else []), *special])]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300 + len(known), special_tokens=known, initial_alphabet=alphabet
    )
    backend.train_from_iterator(WORDS, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", bos_token=bos
    )
    made.chat_template = chat_template
    return made


def recipe(folder: Path, **sections: Any) -> Recipe:
    """The recipe with these sections, saved in `folder` and loaded."""
    base = {"version": 1, "name": "soup", "base_model": {"name_or_path": "org/model"}}
    path = folder / "recipe.yaml"
    path.write_text(json.dumps({**base, **sections, "lora": {"r": 8}}, indent=1), encoding="utf-8")
    return load(path)


def json_lines(path: Path, rows: Iterable[Any]) -> Path:
    """Rows as JSON Lines in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def marked(ids: Sequence[int], labels: Sequence[int], made: PreTrainedTokenizerFast) -> str:
    """The text of a row, the part in the loss in double brackets."""
    parts: list[tuple[bool, list[int]]] = []
    for token, label in zip(ids, labels, strict=True):
        if not parts or parts[-1][0] != (label != -100):
            parts.append((label != -100, []))
        parts[-1][1].append(token)
    texts = [(trained, made.decode(tokens)) for trained, tokens in parts]
    return "".join(f"⟦{text}⟧" if trained else text for trained, text in texts)
