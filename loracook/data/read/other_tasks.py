"""Rows that are there for another kind of training, which loracook would train as answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

REFUSED = {
    "chosen": "rows of preferences (chosen, rejected) are for DPO; loracook trains answers",
    "label": "rows that rate answers (label) are for KTO; loracook trains answers",
    "images": "rows with images are for vision models; loracook trains text",
    "image": "rows with an image are for vision models; loracook trains text",
    "videos": "rows with videos are for vision models; loracook trains text",
    "turns": "rows of questions without answers train nothing; name them in evaluate.prompts",
}
ANSWERS = ("messages", "sharegpt", "alpaca", "prompt_completion")
"""Formats whose rows would be trained as answers, whatever else stands beside them."""


def other_training(columns: Mapping[str, Any], asked_for: Iterable[str]) -> str:
    """What a record is there for, "" where that is answers or the recipe asks for the column that tells."""
    telling = (name for name in REFUSED if name not in asked_for and _tells(name, columns.get(name)))
    return next((REFUSED[name] for name in telling), "")


def _tells(name: str, value: object) -> bool:
    """Whether a column holds what its name says in data for preferences, ratings or pictures."""
    if name in ("label", "turns"):
        return isinstance(value, bool if name == "label" else list)
    return value is not None and value != []
