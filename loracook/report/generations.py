"""Answers of the base model and the adapter side by side, as a Markdown page."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from loracook.report.markdown import table

UNBOUNDED = {"loss", "perplexity"}
"""What is measured and is not a share; every metric that a recipe can name is one."""


def side_by_side(generations: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]) -> str:
    """A Markdown page: a table of the metrics, then each prompt with its reference and both answers."""
    rows = figures(metrics)
    head = ("metric", "base", "adapter")
    parts = ["# Base model and adapter side by side", table(head, rows, align="---:") if rows else ""]
    parts += [_row(number, row) for number, row in enumerate(generations, 1)]
    return "\n\n".join(filter(None, parts)) + "\n"


def figures(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Each metric with the values of base model and adapter, as text."""
    base, adapter = metrics["base"], metrics["adapter"]
    return [(name, figure(name, base[name]), figure(name, adapter[name])) for name in base]


def figure(name: str, value: float) -> str:
    """A metric's value as text: accuracy-like metrics in percent, others with four significant digits."""
    return f"{value:.4g}" if name in UNBOUNDED else f"{value:.1%}"


def _row(number: int, row: Mapping[str, Any]) -> str:
    texts = {"prompt": _text(row["prompt"]), "reference": row["reference"]}
    for side in ("base", "adapter"):
        scores = [f"{name} {figure(name, both[side])}" for name, both in row.get("scores", {}).items()]
        texts[", ".join([side, *scores])] = row[side]
    quotes = (_quoted(label, text) for label, text in texts.items() if text is not None)
    return "\n\n".join([f"## {number}", *quotes])


def _text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message.get('content', '')}" for message in prompt)


def _quoted(label: str, text: str) -> str:
    # Preformatted HTML: nothing in an answer can end the block or be read as Markdown.
    return f"**{label}**\n<pre>{html.escape(text.strip()) or '(empty)'}</pre>"
