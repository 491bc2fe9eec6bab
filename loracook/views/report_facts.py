"""What the record of training says of data, parameters, memory and time, checked and ready to be shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loracook.data.warnings import FLAWS
from loracook.store.read_back import NUMBER, check_shape

STATISTICS = {
    "rows": {"train": int, "evaluation": int}, "tokens": int, "trained_tokens": int, "trained_share": NUMBER,
    "evaluation_dropped": int, "flaws": {name: {"rows": int, "share": NUMBER} for name in FLAWS},
    "lengths": {
        "median": NUMBER, "p95": NUMBER, "longest": NUMBER, "limit": NUMBER,
        "histogram": {"edges": [NUMBER], "rows": [int]},
    },
    "sources": [{"path": str, "format": str, "use": str, "used_rows": int, "skipped": {str: {"rows": int}}}],
}  # fmt: skip
TRAINED = {
    "steps": int, "parameters": {"trainable": int, "all": int}, "base_commit": str | None,
    "tokenizer_commit": str | None,
    "memory": {
        "planned_bytes": int | None, "probed_bytes": int | None, "measured_bytes": int | None,
        "seconds_for_batch": NUMBER | None, "device": {"name": str, "bytes": int},
    },
    "metrics": dict, "settings": {"train": dict, "lora": dict}, "data": {"digest": str},
}  # fmt: skip


def data_facts(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The statistics of the rows, what was left out of them, and the first row as text by state."""
    if record is None:
        return None
    data = record["result"]["data"]
    check_shape(data, {"statistics": STATISTICS})
    statistics = data["statistics"]
    edges, counts = statistics["lengths"]["histogram"].values()
    if len(edges) != len(counts) + 1:
        raise ValueError("a histogram with other edges than bars")
    if part := statistics.get("part"):
        check_shape(part, {"rows": int, "of": int})
    first_row = data.get("first_row", [])
    check_shape(first_row, [[str]])
    return {
        "statistics": statistics,
        "part": part,
        "flaws": [(flaw.rows, flaw.predicate, statistics["flaws"][name]) for name, flaw in FLAWS.items()],
        "skipped": [
            (source["path"], reason, skipped["rows"])
            for source in statistics["sources"]
            for reason, skipped in source["skipped"].items()
        ],
        "first_row": [(state == "trained", text) for state, text in first_row],
    }


def training_facts(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What was trained, and what it took beside what was planned."""
    if record is None:
        return None
    result: dict[str, Any] = record["result"]
    check_shape(result, TRAINED)
    check_shape(result["metrics"], {str: NUMBER | None})
    return {
        **result,
        "share": result["parameters"]["trainable"] / max(result["parameters"]["all"], 1),
        "planned_seconds": _planned_seconds(result),
        "train_seconds": result["metrics"].get("train_runtime"),
    }


def _planned_seconds(result: Mapping[str, Any]) -> float | None:
    """The most that training could take, from the largest batch that was tried before it."""
    batch, passes = (
        result["memory"]["seconds_for_batch"],
        result["settings"]["train"].get("gradient_accumulation_steps", 1),
    )
    check_shape(passes, NUMBER)
    return None if batch is None else float(batch * passes * result["steps"])
