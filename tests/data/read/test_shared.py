"""Real files of every shape are read, each trap met by its message; skipped where the files are not there.

LORACOOK_SHARED_DATA names their folder. What they show is shown on handmade rows by the other tests, too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import loracook.data as data
from loracook.errors import RecipeError
from loracook.progress import Silent
from tests.data.samples import recipe, tokenizer

FOLDER = Path(os.environ.get("LORACOOK_SHARED_DATA") or Path(__file__).parents[4] / "shared" / "data")
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the shared data are not there")

QUESTIONS = {"columns": {"prompt": "question", "completion": "answer"}}
READ: dict[str, tuple[str, int, Mapping[str, Any]]] = {
    "c4_demo": ("text", 300, {}),
    "fastchat_dummy_conversation": ("sharegpt", 500, {}),
    "glaive_toolcall_en_demo": ("sharegpt", 300, {}),
    "gsm8k_test": ("prompt_completion", 1319, QUESTIONS),
    "gsm8k_train": ("prompt_completion", 2000, QUESTIONS),
    "identity": ("alpaca", 91, {}),
    "oasst_en_100_message": ("oasst", 546, {}),
    "oasst_en_100_tree": ("oasst", 546, {}),
    "oasst_realistic_seed": ("oasst", 154, {"on_bad_row": "skip"}),
    "openai_toy_chat_fine_tuning": ("messages", 4, {"on_bad_row": "skip"}),
    "reason_tool_use_demo_50": ("messages", 50, {}),
    "wikisql_mlx_test": ("text", 100, {}),
    "wikisql_mlx_train": ("text", 1000, {}),
    "wikisql_mlx_valid": ("text", 100, {}),
    "wwdc25_prompt_completion": ("prompt_completion", 1800, {}),
}


def prepared(folder: Path, name: str, **dataset: Any) -> data.Prepared:
    """A shared file, prepared under qwen3's template."""
    shutil.copy(FOLDER / f"{name}.jsonl", folder)
    book = recipe(
        folder,
        dataset={"path": f"./{name}.jsonl", **dataset},
        template={"chat_template": "qwen3"},
        train={"max_length": 32768},
    )
    return data.prepare(book, data.with_template(book, tokenizer()), folder / "cache", progress=Silent())


def shared(name: str) -> list[dict[str, Any]]:
    """The rows of a shared file."""
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def refusal(folder: Path, name: str, **dataset: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        prepared(folder, name, **dataset)
    return [problem.message for problem in caught.value.problems]


@pytest.mark.parametrize("name", READ)
def test_every_file_is_read_in_its_format(name: str, tmp_path: Path) -> None:
    format, count, dataset = READ[name]
    found = prepared(tmp_path, name, **dataset)
    assert (found.statistics["sources"][0]["format"], len(found.train)) == (format, count)
    assert found.statistics["flaws"]["fully_masked"]["rows"] == 0


def test_blank_messages_are_bad_rows(tmp_path: Path) -> None:
    name = "axolotl_conversation_missingturns"
    assert refusal(tmp_path, name) == [
        f"row 1 of {name}.jsonl: empty message: assistant has no text",
        "1 of 1 rows are bad (1 x empty message); fix them or set dataset.on_bad_row: skip",
    ]


def test_a_chat_without_a_user_is_bad_and_an_over_long_one_is_counted(tmp_path: Path) -> None:
    name = "openai_toy_chat_fine_tuning"
    assert (
        refusal(tmp_path, name)[0]
        == f"row 4 of {name}.jsonl: no user message: the roles are system, assistant"
    )
    lengths = prepared(tmp_path, name, on_bad_row="skip").statistics["lengths"]
    assert lengths["longest"] > 10_000


def test_placeholders_are_noted(tmp_path: Path) -> None:
    holding = shared("identity")
    count = sum("{{name}}" in row["output"] or "{{author}}" in row["output"] for row in holding)
    said = (
        "rows of ./identity.jsonl contain unfilled placeholders like {{name}}, first: row 1 of identity.jsonl"
    )
    assert f"{count} {said}" in prepared(tmp_path, "identity").notes


def test_questions_alone_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "mt_bench_question") == [
        "questions without answers cannot be trained on; list them in evaluate.prompts; "
        "the columns are question_id, category, turns"
    ]


def test_threads_of_trees_are_those_that_a_few_lines_count(tmp_path: Path) -> None:
    def answered(node: dict[str, Any]) -> int:
        below = sum(answered(reply) for reply in node["replies"])
        return below or int(node["role"] == "assistant")

    trees = [row["prompt"] for row in shared("oasst_en_100_tree")]
    assert len(prepared(tmp_path, "oasst_en_100_tree").train) == sum(map(answered, trees))
    best = prepared(tmp_path, "oasst_en_100_tree", threads="best")
    assert len(best.train) == sum(answered(tree) > 0 for tree in trees)


def test_trees_and_messages_give_the_same_threads(tmp_path: Path) -> None:
    def flat(node: dict[str, Any], parent: str | None) -> list[dict[str, Any]]:
        own = {key: value for key, value in node.items() if key != "replies"} | {"parent_id": parent}
        return [own] + [below for reply in node["replies"] for below in flat(reply, node["message_id"])]

    found = {
        name: sorted(prepared(tmp_path, name).train["input_ids"][:])
        for name in ("oasst_en_100_tree", "oasst_en_100_message")
    }
    trees = [row["prompt"] for row in shared("oasst_en_100_tree")]
    messages = [message for tree in trees for message in flat(tree, None)]
    (tmp_path / "flat.jsonl").write_text("".join(json.dumps(message) + "\n" for message in messages))
    book = recipe(
        tmp_path,
        dataset={"path": "./flat.jsonl"},
        template={"chat_template": "qwen3"},
        train={"max_length": 32768},
    )
    rebuilt = data.prepare(book, data.with_template(book, tokenizer()), tmp_path / "cache", progress=Silent())
    assert (
        found["oasst_en_100_tree"] == found["oasst_en_100_message"] == sorted(rebuilt.train["input_ids"][:])
    )


def test_tools_and_reasoning_reach_the_text(tmp_path: Path) -> None:
    found = prepared(tmp_path, "reason_tool_use_demo_50")
    text = tokenizer().decode(found.train[0]["input_ids"])
    assert re.search(r"<tools>.*</tools>", text, re.DOTALL)
    assert "<think>" in text
