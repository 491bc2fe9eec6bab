"""Every key that public chat formats use is read, named once as not read, or refused; none is passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from loracook.data.read.messages import normalize, tools_in_system
from loracook.data.read.selection import select
from loracook.errors import RecipeError
from loracook.progress import Silent
from tests.data.samples import json_lines, recipe

FUNCTION = {"name": "cook", "description": "Cook.", "parameters": {"type": "object", "properties": {}}}
CALL = {"type": "function", "function": {"name": "cook", "arguments": "{}"}}


class Key(NamedTuple):
    """A key of a row (`row.`), or of its user or assistant message, with a value and what becomes of it."""

    where: str
    value: Any
    outcome: str


READ, NAMED, REFUSED = "read", "named", "refused"
SOURCES: dict[str, list[Key]] = {
    "https://platform.openai.com/docs/guides/supervised-fine-tuning": [
        Key("row.tools", [{"type": "function", "function": FUNCTION}], READ),
        Key("row.functions", [FUNCTION], READ),
        Key("row.parallel_tool_calls", False, NAMED),
        Key("row.metadata", {"split": "a"}, NAMED),
        Key("assistant.weight", 0, READ),
        Key("user.weight", 1, NAMED),
        Key("user.name", "ann", READ),
        Key("assistant.name", "bob", READ),
        Key("assistant.tool_calls", [CALL], READ),
        Key("assistant.tool_calls.index", 0, NAMED),
        Key("assistant.function_call", {"name": "cook", "arguments": "{}"}, READ),
        Key("user.tool_call_id", "c1", READ),
    ],
    "https://platform.openai.com/docs/api-reference/chat/object": [
        Key("assistant.refusal", "No.", NAMED),
        Key("assistant.annotations", [{"type": "url_citation"}], NAMED),
        Key("assistant.audio", {"id": "a1"}, NAMED),
        Key("user.tool_calls", [CALL], NAMED),
        Key("row.response_format", {"type": "json_object"}, NAMED),
        Key("row.tool_choice", "auto", NAMED),
        Key("row.model", "gpt", NAMED),
        Key("row.temperature", 0.5, NAMED),
    ],
    "https://huggingface.co/docs/trl/dataset_formats": [
        Key("row.chat_template_kwargs", {"enable_thinking": False}, READ),
        Key("row.images", ["a.png"], REFUSED),
        Key("row.image", "a.png", REFUSED),
        Key("row.chosen", "x", REFUSED),
        Key("row.label", True, REFUSED),
        Key("row.label", "cooking", NAMED),
        Key("row.rejected", "x", NAMED),
        Key("row.environment", "kitchen", NAMED),
    ],
    "https://huggingface.co/docs/transformers/chat_templating": [
        Key("assistant.reasoning_content", "Hm.", READ),
        Key("assistant.reasoning", "Hm.", READ),
        Key("assistant.thinking", "Hm.", READ),
        Key("user.thinking", "Hm.", NAMED),
        Key("row.documents", [{"text": "x"}], NAMED),
    ],
    "https://docs.axolotl.ai/docs/dataset-formats/conversation.html": [
        Key("assistant.train", False, READ),
        Key("assistant.training", False, READ),
        Key("user.train", True, NAMED),
        Key("assistant.train_detail", [{"begin_offset": 0, "end_offset": 1, "train": True}], NAMED),
        Key("assistant.training_detail", [{"begin_offset": 0, "end_offset": 1, "train": True}], NAMED),
        Key("assistant.masked", True, NAMED),
    ],
    "https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md": [
        Key("row.system", "Be brief.", READ),
        Key("row.tools", '[{"name": "cook", "parameters": {}}]', READ),
        Key("row.videos", ["a.mp4"], REFUSED),
        Key("row.audios", ["a.wav"], REFUSED),
        Key("row.kto_tag", True, REFUSED),
        Key("row.history", [["a", "b"]], NAMED),
    ],
    "https://github.com/lm-sys/FastChat and ShareGPT": [
        Key("row.id", "identity_0", NAMED),
        Key("row.model", "x", NAMED),
        Key("assistant.markdown", {"answer": "x"}, NAMED),
        Key("assistant.value", "other", NAMED),
        Key("assistant.from", "human", NAMED),
    ],
    "https://huggingface.co/datasets/NousResearch/hermes-function-calling-v1": [
        Key("row.category", "cooking", NAMED),
        Key("row.subcategory", "soup", NAMED),
        Key("row.task", "x", NAMED),
        Key("row.schema", "{}", NAMED),
    ],
    "https://docs.mistral.ai/capabilities/finetuning/": [
        Key("assistant.prefix", True, NAMED),
        Key("assistant.weight", 1.0, READ),
    ],
    "https://swift.readthedocs.io/en/latest/Customization/Custom-dataset.html": [
        Key("assistant.loss", False, NAMED),
        Key("assistant.loss_scale", 0.5, NAMED),
        Key("row.rejected_response", "x", NAMED),
        Key("row.objects", {"bbox": []}, NAMED),
    ],
    "https://docs.anthropic.com/en/api/messages": [
        Key("user.cache_control", {"type": "ephemeral"}, NAMED),
        Key("assistant.stop_reason", "end_turn", NAMED),
    ],
    "https://ai.google.dev/gemini-api/docs/model-tuning": [
        Key("assistant.parts", [{"text": "other"}], NAMED),
        Key("row.systemInstruction", {"parts": [{"text": "x"}]}, NAMED),
    ],
    "https://huggingface.co/datasets/HuggingFaceH4/ultrachat_200k and others": [
        Key("row.prompt_id", "f0e37e9f", NAMED),
        Key("row.prompt", "Soup?", NAMED),
        Key("row.source", "x", NAMED),
        Key("row.score", 0.5, NAMED),
        Key("row.text", "x", REFUSED),
        Key("row.completion", "x", NAMED),
        Key("row.conversations", [{"from": "human", "value": "x"}], REFUSED),
        Key("assistant.content_type", "text", NAMED),
    ],
}
CASES = [(source, key) for source, keys in SOURCES.items() for key in keys]


def row(key: Key | None = None) -> dict[str, Any]:
    """A row of two messages, with one key more."""
    user, assistant = {"role": "user", "content": "Soup?"}, {"role": "assistant", "content": "Leek."}
    columns: dict[str, Any] = {"messages": [user, assistant]}
    if key is None:
        return columns
    where, _, name = key.where.partition(".")
    if name.startswith("tool_calls."):
        assistant["tool_calls"] = [{**CALL, name.removeprefix("tool_calls."): key.value}]  # type: ignore[assignment]
    else:
        {"row": columns, "user": user, "assistant": assistant}[where][name] = key.value
    return columns


def outcome(folder: Path, key: Key) -> str:
    """What becomes of a key: the row says it, a note does, or the row is refused."""
    json_lines(folder / "rows.jsonl", [row(key)])
    try:
        selection = select(recipe(folder, dataset={"path": "./rows.jsonl"}), Silent())
    except RecipeError:
        return REFUSED
    (scan,) = selection.scans
    name = key.where.partition(".")[2]
    unread = {*scan.unread_columns, *(told.partition(" of ")[0] for told in scan.unread_keys)}
    (found,) = (located.row for located in selection.train())
    json_lines(folder / "rows.jsonl", [row()])
    (plain,) = (located.row for located in select(selection.scans[0].source.recipe, Silent()).train())
    if name in unread:
        return NAMED
    return READ if found != plain or key.value == 1.0 else "silent"


@pytest.mark.parametrize(("source", "key"), CASES, ids=lambda value: str(getattr(value, "where", "")))
def test_a_key_is_read_named_or_refused(source: str, key: Key, tmp_path: Path) -> None:
    assert outcome(tmp_path, key) == key.outcome, source


@pytest.mark.parametrize(
    ("key", "empty"),
    [
        (Key("assistant.function_call", {"name": "cook", "arguments": "{}"}, READ), {"tool_calls": []}),
        (Key("assistant.text", "Onion.", READ), {"content": ""}),
    ],
)
def test_an_empty_value_hides_no_other_spelling(key: Key, empty: dict[str, Any]) -> None:
    (_, name) = key.where.split(".")
    user = {"role": "user", "content": "Soup?"}
    alone = {"role": "assistant", name: key.value}
    assert normalize([user, alone | empty], {}) == normalize([user, alone], {})


def test_empty_tools_of_a_system_message_hide_no_functions() -> None:
    system = {"role": "system", "content": "x", "tools": [], "functions": [FUNCTION]}
    assert tools_in_system([system], {}) == [FUNCTION]


def test_an_empty_function_call_is_none() -> None:
    answer = {"role": "assistant", "content": "Leek."}
    assert normalize([answer | {"function_call": {}}], {}) == (answer,)
