"""Several plans side by side, one column each."""

from collections.abc import Callable, Sequence

from loracook.estimate.forecast import Forecast
from loracook.units import size
from loracook.views.plan_details import PlanDetails


def table(titles: Sequence[str], plans: Sequence[PlanDetails]) -> list[str]:
    """Several plans side by side, one column each."""
    cells = ROWS | (PROBED if any(details.probe for details in plans) else {})
    rows = [["", *titles]]
    rows += [
        [name, *("?" if details.forecast is None else cell(details, details.forecast) for details in plans)]
        for name, cell in cells.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    unknown = [
        f"{title}: unknown {text}"
        for title, details in zip(titles, plans, strict=True)
        for text in details.all_unknown
    ]
    return [*(_row(row, widths) for row in rows), *([""] if unknown else []), *unknown]


def _row(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    return "  ".join([f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)])


def _part(forecast: Forecast, name: str) -> str:
    memory = forecast.estimate.memory
    return "?" if memory is None else size(memory.stages["train"].get(name, 0))


Cell = Callable[[PlanDetails, "Forecast"], str]
ROWS: dict[str, Cell] = {
    "all params": lambda _, f: f"{f.estimate.meta_model.counts.all:,}",
    "trainable params": lambda _, f: f"{f.estimate.meta_model.counts.trainable:,}",
    "trainable": lambda _, f: f"{f.estimate.meta_model.counts.percent:.3f}%",
    "steps": lambda _, f: f"{f.estimate.steps.total:,}" if f.estimate.steps else "?",
    "effective batch size": lambda _, f: (
        f"{f.estimate.steps.effective_batch_size:,}" if f.estimate.steps else "?"
    ),
    "tokens": lambda _, f: f"{f.estimate.tokens.total:,}" if f.estimate.tokens else "?",
    "weights": lambda _, f: _part(f, "weights"),
    "activations": lambda _, f: _part(f, "activations"),
    "peak memory": lambda _, f: size(max(f.estimate.memory.peaks.values())) if f.estimate.memory else "?",
    "fits": lambda _, f: "?" if f.estimate.memory is None else "no" if f.estimate.too_large else "yes",
    "disk": lambda _, f: size(f.disk.total_bytes),
}
"""What is compared of several plans, by what it is called."""
PROBED: dict[str, Cell] = {
    "measured": lambda d, _: size(d.probe.measured) if d.probe and d.probe.measured else "?",
    "seconds per step": lambda d, _: f"{d.seconds_per_step:.2g}" if d.seconds_per_step else "?",
    "seconds in total": lambda d, _: f"{d.seconds:,.0f}" if d.seconds else "?",
}
"""What is compared as well where the largest batches were tried."""
