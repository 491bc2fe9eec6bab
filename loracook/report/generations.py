"""Answers of the base model and the adapter side by side, as a Markdown page that reads well as text, too."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from loracook.report.bootstrap import EQUAL, verdict
from loracook.report.bootstrap import LOWER_IS_BETTER as UNBOUNDED
from loracook.report.markdown import block, table
from loracook.store.read_back import NUMBER, check_shape

OTHER_BATCH = {
    "rows": int, "same": int, "batch_size": int, "dtype": str,
    "metrics": {str: {"first": NUMBER, "again": NUMBER}},
}  # fmt: skip
ALIKE = "With unquantized weights, evaluate.dtype: float32 gives the same answers in every batch."


def side_by_side(generations: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]) -> str:
    """A Markdown page: a table of the metrics, then each prompt with its reference and both answers."""
    rows = figures(metrics)
    parts = [
        "# Base model and adapter side by side",
        table(head(metrics), rows, align="---:") if rows else "",
        measured_on(metrics) if rows else "",
        in_other_batch(metrics),
        *(_row(number, row, metrics["adapters"]) for number, row in enumerate(generations, 1)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def head(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """What the columns of `figures` are called."""
    return ("metric", "base", "adapter", *metrics["adapters"], "difference", "rows")


def figures(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Each metric of base model and adapters, how they differ, and the rows behind the figures, as text.

    A metric of a further row set has the name of the set before it.
    """
    further = {f"{name}.": each for name, each in metrics["also"].items()}
    return [row for start, each in {"": metrics, **further}.items() for row in _figures(each, start)]


def _figures(metrics: Mapping[str, Any], start: str) -> Iterator[tuple[str, ...]]:
    models = (metrics["base"], metrics["adapter"], *metrics["adapters"].values())
    for name, rows in metrics["rows"].items():
        values = (figure(name, model[name]) for model in models)
        bounds = metrics["intervals"].get(name, {}).get("difference")
        wins = metrics["wins"].get(name, {})
        yield start + name, *values, difference(name, bounds, wins), f"{rows:,}"


def difference(name: str, bounds: Sequence[float] | None, wins: Mapping[str, int]) -> str:
    """What the 95 % interval of a difference from the base says, as text; empty where there is none."""
    said = verdict(name, bounds, wins)
    if bounds is None or said == EQUAL:
        return said if said == EQUAL else ""
    low, high = (signed(name, bound) for bound in bounds)
    return f"{said} ({low} to {high}{unit(name)})"


def signed(name: str, change: float) -> str:
    """A change of a metric: shares in points of a percent, others in the metric's own unit."""
    return f"{change:+.3f}" if name in UNBOUNDED else f"{100 * change:+.1f}"


def unit(name: str) -> str:
    """What comes after a change of a metric."""
    return "" if name in UNBOUNDED else " points"


def figure(name: str, value: float) -> str:
    """A metric's value as text: accuracy-like metrics in percent, others with four digits or more."""
    if name not in UNBOUNDED:
        return f"{value:.1%}"
    return f"{value:,.0f}" if 1_000 <= value < 1e9 else f"{value:.4g}"


def measured_on(metrics: Mapping[str, Any]) -> str:
    """A sentence on the rows behind the figures: whether they were trained on, too."""
    also_trained = metrics["also_trained"]
    if also_trained is None:
        return "Measured on evaluation rows; training rows were streamed and not compared with them."
    if also_trained:
        return f"Measured on evaluation rows, {also_trained:,} of which were trained on, too."
    return "Measured on evaluation rows that were not trained on."


def in_other_batch(metrics: Mapping[str, Any]) -> str:
    """A sentence on how far the adapter's answers depend on the batch; empty where that was not tried.

    Raises:
        ValueError: a stranger's record states something else.
    """
    found = metrics.get("other_batch")
    if found is None:
        return ""
    check_shape(found, OTHER_BATCH)
    moved = (
        f", {name} {' → '.join(figure(name, both[time]) for time in ('first', 'again'))}"
        for name, both in found["metrics"].items()
    )
    said = (
        f"Asked again in another batch, {found['same']:,} of {found['rows']:,} of the adapter's answers are "
        f"the same ({found['dtype']}, batch_size {found['batch_size']:,}{''.join(moved)})."
    )
    return said if found["same"] == found["rows"] else f"{said} {ALIKE}"


def _row(number: int, row: Mapping[str, Any], others: Iterable[str]) -> str:
    texts = {"prompt": text_of(row["prompt"]), "reference": row["reference"]}
    for side in ("base", "adapter", *others):
        texts[", ".join(_label(row, side))] = row[side]
    quotes = (_quoted(label, text) for label, text in texts.items() if text is not None)
    return "\n\n".join([f"## {number}", *quotes])


def _label(row: Mapping[str, Any], side: str) -> Iterator[str]:
    yield side
    yield from (f"{name} {figure(name, both[side])}" for name, both in row.get("scores", {}).items())
    if side in row.get("cut", ()):
        yield "cut by max_new_tokens"


def text_of(prompt: Any) -> str:
    """A prompt as text: a chat with the role before each message."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {_said(message)}" for message in prompt)


def _said(message: Mapping[str, Any]) -> str:
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls", ())]
    return "\n".join(filter(None, [message.get("content"), *calls]))


def _quoted(label: str, text: str) -> str:
    blank = "(white space only)" if text else "(empty)"
    # A fence longer than any in the text: nothing in an answer can end the block or be read as Markdown.
    return f"**{label}**\n\n{block(text.strip() or blank, 'text')}"
