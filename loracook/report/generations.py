"""Answers of the base model beside those of the adapter, as a page to read."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

UNBOUNDED = {"loss", "perplexity"}
"""What is measured and is not a share; every metric that a recipe can name is one."""


def side_by_side(generations: Sequence[Mapping[str, Any]], measured: Mapping[str, Any]) -> str:
    """A Markdown page: the metrics as a table, then each prompt with its reference and both answers."""
    parts = ["# Base model beside adapter", table(measured)]
    parts += [_row(number, row) for number, row in enumerate(generations, 1)]
    return "\n\n".join(filter(None, parts)) + "\n"


def table(measured: Mapping[str, Any]) -> str:
    """The metrics of both sides as a Markdown table."""
    lines = ["| metric | base | adapter |", "|---|---:|---:|"]
    lines += [f"| {name} | {base} | {adapter} |" for name, base, adapter in figures(measured)]
    return "\n".join(lines) if len(lines) > 2 else ""


def figures(measured: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Each metric with both sides' figures, as text."""
    return [
        (name, figure(name, measured["base"][name]), figure(name, measured["adapter"][name]))
        for name in measured["base"]
    ]


def figure(name: str, value: float) -> str:
    """A metric's value as a person reads it: shares in per cent, the others with three digits."""
    return f"{value:.4g}" if name in UNBOUNDED else f"{value:.1%}"


def _row(number: int, row: Mapping[str, Any]) -> str:
    parts = [f"## {number}", _quoted("prompt", _text(row["prompt"]))]
    if row["reference"] is not None:
        parts.append(_quoted("reference", row["reference"]))
    parts += [_quoted(side + _marks(row, side), row[side]) for side in ("base", "adapter")]
    return "\n\n".join(parts)


def _marks(row: Mapping[str, Any], side: str) -> str:
    scores = row.get("scores", {})
    return "".join(f", {name} {figure(name, both[side])}" for name, both in scores.items())


def _text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message.get('content', '')}" for message in prompt)


def _quoted(label: str, text: str) -> str:
    # Preformatted HTML: no answer, whatever is in it, can end the block or become Markdown.
    return f"**{label}**\n<pre>{html.escape(text.strip()) or '(empty)'}</pre>"
