"""A forecast in words: aligned lines for one recipe, a table for several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from loracook.machine.devices import SET_FLOAT16
from loracook.units import size

LABEL = 10
TIMES = "\N{MULTIPLICATION SIGN}"
ROWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "parameters": lambda p: f"{p['model']['all_parameters']:,}",
    "trainable": lambda p: f"{p['model']['trainable_parameters']:,}",
    "share": lambda p: f"{p['model']['trainable_percent']:.3f} %",
    "steps": lambda p: _number(p["steps"], "total"),
    "rows a step": lambda p: _number(p["steps"], "effective_batch_size"),
    "tokens": lambda p: _number(p["tokens"], "total"),
    "weights": lambda p: _size(p["memory"] and p["memory"]["parts"]["weights"]),
    "activations": lambda p: _size(p["memory"] and p["memory"]["parts"]["activations"]),
    "peak memory": lambda p: _size(p["memory"] and p["memory"]["peak_bytes"]),
    "fits": lambda p: {True: "yes", False: "no", None: "?"}[p["memory"] and p["memory"]["fits"]],
    "disk": lambda p: size(p["disk"]["total_bytes"]),
}
"""What is compared of several plans, by what it is called."""
PROBED: dict[str, Callable[[dict[str, Any]], str]] = {
    "measured": lambda p: size(p["probe"]["probed_bytes"]),
    "seconds a step": lambda p: f"{p['time']['seconds_per_step']:.2g}",
    "seconds in all": lambda p: "?" if p["time"]["seconds"] is None else f"{p['time']['seconds']:,.0f}",
}
"""What is compared beside where the largest batches were tried."""


def lines(plan: dict[str, Any]) -> list[str]:
    """The forecast of a plan's JSON, each kind of fact under its label."""
    if "model" not in plan:
        return list(_labelled("unknown", plan["unknown"]))
    parts = {
        "model": _model(plan["model"], plan["disk"]),
        "adapter": _adapter(plan["model"]),
        "steps": _steps(plan["steps"]),
        "tokens": _tokens(plan["tokens"], plan["steps"]),
        "memory": _memory(plan["memory"]),
        "probe": _probe(plan),
        "disk": _disk(plan["disk"]),
        "push": _push(plan["push"]),
        "outside": plan["outside"],
        "stops": plan["over_limits"],
        "unknown": plan["unknown"],
    }
    return [line for label, said in parts.items() for line in _labelled(label, said)]


def table(plans: Sequence[dict[str, Any]]) -> list[str]:
    """Several plans' JSON side by side, one column each."""
    shown = ROWS | (PROBED if any("probe" in plan for plan in plans) else {})
    rows = [["", *(plan["recipe"] for plan in plans)]]
    rows += [
        [name, *(write(plan) if "model" in plan else "?" for plan in plans)] for name, write in shown.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    unknown = [f"{plan['recipe']}: unknown {text}" for plan in plans for text in plan["unknown"]]
    return [*(_row(row, widths) for row in rows), *([""] if unknown else []), *unknown]


def _row(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    return "  ".join([f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)])


def _labelled(label: str, said: Sequence[str]) -> Iterator[str]:
    for number, text in enumerate(said):
        yield f"{'' if number else label:<{LABEL}}{text}"


def _model(model: dict[str, Any], disk: dict[str, Any]) -> list[str]:
    download = disk["download_bytes"]
    facts = [
        model["name_or_path"],
        f"commit {model['commit'][:12]}" if model["commit"] else "",
        f"license {model['license']}" if model["license"] else "",
        f"{size(download)} to fetch" if download else "",
    ]
    quantized = ", ".join(f"{key}: {value}" for key, value in model["quantization"].items())
    grown = f"; {model['added_tokens']} tokens added" if model["added_tokens"] else ""
    kind = f"{model['base_parameters']:,} parameters in {model['dtype']}{grown}"
    return [", ".join(filter(None, facts)), kind, *([quantized] if quantized else [])]


def _adapter(model: dict[str, Any]) -> list[str]:
    trained, everything = model["trainable_parameters"], model["all_parameters"]
    share = f"{trained:,} of {everything:,} parameters train ({model['trainable_percent']:.4g} %)"
    return [share, *(f"{pattern} {TIMES} {number}" for pattern, number in model["modules"].items())]


def _steps(steps: dict[str, Any] | None) -> list[str]:
    if steps is None:
        return ["not known"]
    epochs = f", {steps['per_epoch']:,} an epoch" if steps["per_epoch"] else ""
    rows = f"{steps['effective_batch_size']:,} rows a step"
    about = ("at most " if steps["at_most"] else "") + ("" if steps["exact"] else "about ")
    return [f"{about}{steps['total']:,}{epochs}, {steps['warmup']:,} to warm up; {rows}"]


def _tokens(tokens: dict[str, Any] | None, steps: dict[str, Any] | None) -> list[str]:
    if tokens is None or steps is None:
        return ["not known"]
    about = ("at most " if steps["at_most"] else "") + ("" if tokens["exact"] else "about ")
    return [f"{about}{tokens['total']:,}, {tokens['per_step']:,.0f} a step (from {tokens['source']})"]


def _memory(memory: dict[str, Any] | None) -> list[str]:
    if memory is None:
        return ["not known"]
    batch, room = memory["batch"], f"{size(memory['device_bytes'])} on {memory['device']}"
    fits = "fits" if memory["fits"] else "does not fit"
    too_large = [stage for stage in memory["too_large"] if stage != memory["peak_stage"]]
    parts = [
        f"  {name.replace('_', ' '):<34}{size(count):>10}" for name, count in memory["parts"].items() if count
    ]
    return [
        f"{size(memory['peak_bytes'])} at the peak of {memory['peak_stage']}, {fits} {room}",
        *(f"{stage} alone does not fit, either" for stage in too_large),
        *(f"{memory['device']} has no {feature}; {SET_FLOAT16}" for feature in memory["lacks"]),
        f"for {batch['rows']} rows joined to one of {batch['length']:,} tokens"
        if batch["joined"]
        else f"for a batch of {batch['rows']} {TIMES} {batch['length']:,} tokens",
        *parts,
        *(_change(change) for change in memory["changes"]),
        *_left(memory),
    ]


def _change(change: dict[str, Any]) -> str:
    return (
        f"write {change['write']}: saves {size(change['saves'])}{', then it fits' if change['fits'] else ''}"
    )


def _left(memory: dict[str, Any]) -> list[str]:
    """What is left to do where no change makes everything fit."""
    if memory["fits"] or any(change["fits"] for change in memory["changes"]):
        return []
    later = [stage for stage in memory["too_large"] if stage != "train"]
    if "train" not in memory["too_large"]:
        return [f"run {' and '.join(later)} where there is more memory: --only {later[0]}"]
    return ["that is not enough; write a smaller base model, or choose a larger device"]


def _probe(plan: dict[str, Any]) -> list[str]:
    if "probe" not in plan:
        return []
    taken, planned = size(plan["probe"]["probed_bytes"]), _size(plan["probe"]["planned_bytes"])
    step, whole = plan["time"]["seconds_per_step"], plan["time"]["seconds"]
    return [
        f"{taken} measured for the largest batch, {planned} planned",
        f"at most {step:.2g} s a step" + ("" if whole is None else f", {whole:,.0f} s in all"),
    ]


def _disk(disk: dict[str, Any]) -> list[str]:
    kept = disk["checkpoints_kept"]
    return [
        f"{size(disk['total_bytes'])} at most, {size(disk['free_bytes'])} free",
        f"adapter {size(disk['adapter_bytes'])}, {kept} checkpoints of {size(disk['checkpoint_bytes'])}"
        + (f", merged model {size(disk['merged_bytes'])}" if disk["merged_bytes"] else "")
        + (f", published copy {size(disk['published_bytes'])}" if disk["published_bytes"] else ""),
    ]


def _push(push: dict[str, Any]) -> list[str]:
    if not push:
        return []
    needs = f"; only with {push['needs']}" if push["needs"] else ""
    return [
        f"{push['what']} to {push['to']} ({push['visibility']}), {size(push['bytes'])}{needs}",
        push["files"],
    ]


def _size(count: int | None) -> str:
    return "?" if count is None else size(count)


def _number(section: dict[str, Any] | None, key: str) -> str:
    return "?" if section is None else f"{section[key]:,}"
