"""What each family of chat templates learns, written out in tests/data/golden: answers and their ends.

`python -m tests.data.tokenize.test_golden` rewrites the files; read the difference before you commit it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loracook.data import with_template
from loracook.data.read.formats import ReadOptions, rows
from loracook.data.read.rows import RowError
from loracook.data.tokenize.encode import encode
from loracook.data.tokenize.render import Renderer
from tests.data.samples import marked, recipe, tokenizer

GOLDEN = Path(__file__).parent / "golden"
FAMILIES = {
    "chatml": "<|im_end|>",
    "plain": "</s>",
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "cohere2": "<|END_OF_TURN_TOKEN|>",
    "deepseekv3": "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "gemma": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "glm4moe": "<|user|>",
    "gptoss": "<|return|>",
    "lfm2": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "nemotron_3_nano": "<|im_end|>",
    "phi3": "</s>",
    "qwen2_5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "qwen3_5_nothink": "<|im_end|>",
}
LONG = re.compile(r"([^⟦⟧]{20})[^⟦⟧]{80,}([^⟦⟧]{60})")
ASK = {"role": "user", "content": "Which soup?"}
ANSWER = {"role": "assistant", "content": "Leek."}
CALL = {"type": "function", "function": {"name": "cook", "arguments": {"soup": "leek"}}}
TOOL = {
    "type": "function",
    "function": {
        "name": "cook",
        "description": "Cooks.",
        "parameters": {"type": "object", "properties": {"soup": {"type": "string"}}, "required": ["soup"]},
    },
}
CHATS: dict[str, dict[str, Any]] = {
    "one turn": {"messages": [ASK, ANSWER]},
    "several turns": {
        "messages": [
            ASK,
            ANSWER,
            {"role": "user", "content": "More?"},
            {"role": "assistant", "content": "No."},
        ]
    },
    "system": {"messages": [{"role": "system", "content": "Be brief."}, ASK, ANSWER]},
    "tools": {
        "messages": [
            ASK,
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "name": "cook", "content": "done"},
            ANSWER,
        ],
        "tools": [TOOL],
    },
}


def shown(family: str, folder: Path) -> Iterator[str]:
    """Each conversation as the family's template writes it, trained text in ⟦ ⟧, preambles shortened."""
    book = recipe(
        folder,
        dataset={"path": "./chat.jsonl", "format": "messages"},
        template={"chat_template": family, "loss": "assistant"},
    )
    made = with_template(book, tokenizer(bos="<s>"))
    renderer = Renderer(book, made)
    for name, columns in CHATS.items():
        (row,) = rows(columns, ReadOptions("messages"))
        yield f"=== {name}\n"
        try:
            found = encode([renderer.render(row)], made)[0]
        except RowError as error:
            yield f"refused: {error}\n"
        else:
            yield LONG.sub(r"\1 … \2", marked(found.ids, found.labels, made)) + "\n"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_named_template_sets_the_eos_token(family: str, tmp_path: Path) -> None:
    book = recipe(tmp_path, dataset={"path": "./chat.jsonl"}, template={"chat_template": family})
    assert with_template(book, tokenizer(bos="<s>")).eos_token == FAMILIES[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_and_their_end_tokens_are_trained(family: str, tmp_path: Path) -> None:
    assert "".join(shown(family, tmp_path)) == (GOLDEN / f"{family}.txt").read_text(encoding="utf-8")


def write() -> None:
    """Write the golden files."""
    GOLDEN.mkdir(exist_ok=True)
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            text = "".join(shown(family, Path(folder)))
        (GOLDEN / f"{family}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
