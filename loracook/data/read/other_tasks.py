"""Records for another kind of training than supervised fine-tuning on text, told by their columns."""

from collections.abc import Iterable, Mapping
from typing import Any

from loracook.data.read.message_keys import is_empty
from loracook.data.read.turns import as_turns

PREFERENCES = "pairs (chosen, rejected) are for DPO; for SFT on the chosen"
OTHER_TASKS = {
    "chosen": f"{PREFERENCES}, columns: {{completion: chosen}}",
    "preferred_output": "pairs (preferred_output, non_preferred_output) are for DPO",
    "label": "rated answers (label) are for KTO; for SFT on the good ones, where: {label: true}",
    "kto_tag": "rated answers (kto_tag) are for KTO; for SFT on the good ones, where: {kto_tag: true}",
    "images": "rows with images are for vision models; loracook trains on text only",
    "image": "rows with an image are for vision models; loracook trains on text only",
    "videos": "rows with videos are for vision models; loracook trains on text only",
    "audios": "rows with audio are for audio models; loracook trains on text only",
    "turns": "questions without answers cannot be trained on; list them in evaluate.prompts",
}
"""Columns that mark data for another kind of training than supervised fine-tuning on text."""


def other_task(columns: Mapping[str, Any], filtered: Iterable[str]) -> str:
    """Which other kind of training a record is for, or ""; columns that `where` filters on do not count."""
    if OTHER_TASKS.keys().isdisjoint(columns):
        return ""
    names = (name for name in OTHER_TASKS if name not in filtered and _marks(name, columns.get(name)))
    name = next(names, "")
    return _of_chosen(columns) if name == "chosen" else OTHER_TASKS.get(name, "")


def _of_chosen(columns: Mapping[str, Any]) -> str:
    """What to say of preferences, with the columns that train on the chosen answers in their shape."""
    if isinstance(columns.get("messages"), list):
        return f"{PREFERENCES}, set format: messages"
    chosen = as_turns("messages", columns["chosen"])
    if isinstance(chosen, list) and len(chosen) > 1:
        return f"{PREFERENCES}, columns: {{messages: chosen}}"
    if "prompt" in columns or isinstance(chosen, list):
        return OTHER_TASKS["chosen"]
    return f"{PREFERENCES}, columns: {{text: chosen}}"


def _marks(name: str, value: object) -> bool:
    """Whether a column of this name has the values it has in preference, rating or image data."""
    if name in ("label", "turns"):
        return isinstance(value, bool if name == "label" else list)
    return not is_empty(value)
