"""A plan as plain JSON values: its stages, and what is foreseen of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loracook.estimate.memory import autocast
from loracook.estimate.rows import is_exact, tokens_of
from loracook.recipe.derived import fixed_steps
from loracook.recipe.locations import is_local

if TYPE_CHECKING:
    from loracook.estimate.forecast import Forecast
    from loracook.planner import Plan
    from loracook.recipe.recipe import Recipe


def stages_json(planned: Plan) -> dict[str, Any]:
    """The stages of a plan as plain JSON values."""
    stages = [
        {"name": s.name, "folder": str(s.folder), "done": s.done, "summary": s.summary, "fault": s.fault}
        for s in planned.stages
    ]
    return {"recipe": planned.recipe.name, "folder": str(planned.folder), "stages": stages}


def as_json(planned: Plan, found: Forecast) -> dict[str, Any]:
    """A plan and its forecast as plain JSON values; what is not known is null, and said in `unknown`."""
    return {
        **stages_json(planned),
        "model": _model(planned.recipe, found),
        "steps": _steps(planned.recipe, found),
        "tokens": _tokens(planned.recipe, found),
        "memory": _memory(planned.recipe, found),
        "disk": found.disk | {"download_bytes": found.origin.download},
        "push": found.push,
        "outside": outside(planned.recipe),
        "over_limits": list(found.survey.over_limits) if found.survey else [],
        "unknown": list(found.unknown),
    }


def outside(recipe: Recipe) -> list[str]:
    """What reaches beyond this machine, in sentences; nothing in a recipe runs code."""
    name, trackers = recipe["base_model"]["name_or_path"], recipe["train"].get("report_to", "none")
    sources = recipe["dataset"].get("sources", [recipe["dataset"]])
    said = [
        *([f"the base model {name} is fetched from the hub"] if not is_local(recipe["base_model"]) else []),
        *(f"the data set {s['path']} is fetched from the hub" for s in sources if not is_local(s)),
        *(f"losses are reported to {tracker}" for tracker in _reporting(trackers)),
    ]
    if "push" in recipe and "repo_id" in recipe["push"]:
        said.append(f"the result goes to the hub as {recipe['push']['repo_id']}, with --push alone")
    return said


def _reporting(trackers: str | list[str]) -> list[str]:
    named = [trackers] if isinstance(trackers, str) else trackers
    return [tracker for tracker in named if tracker not in ("none", "tensorboard")]


def _model(recipe: Recipe, found: Forecast) -> dict[str, Any]:
    counts = found.drawn.counts
    return {
        "name_or_path": recipe["base_model"]["name_or_path"],
        "commit": found.origin.commit,
        "license": found.origin.license,
        "dtype": str(found.drawn.dtype).removeprefix("torch."),
        "quantization": recipe.sections.get("quantization", {}),
        "base_parameters": found.drawn.base_parameters,
        "all_parameters": counts.everything,
        "trainable_parameters": counts.trainable,
        "trainable_percent": counts.percent,
        "added_tokens": found.drawn.added_tokens,
        "modules": counts.modules,
    }


def _steps(recipe: Recipe, found: Forecast) -> dict[str, Any] | None:
    if found.steps is None:
        return None
    return {
        "total": found.steps.total,
        "per_epoch": found.steps.per_epoch or None,
        "warmup": found.steps.warmup,
        "effective_batch_size": found.steps.effective_batch_size,
        "rows": found.survey.rows if found.survey else None,
        "at_most": "early_stopping" in recipe["train"],
        "exact": bool(fixed_steps(recipe["train"]) or (found.survey and found.survey.exact)),
    }


def _tokens(recipe: Recipe, found: Forecast) -> dict[str, Any] | None:
    if found.survey is None or found.steps is None:
        return None
    total = tokens_of(recipe, found.survey, found.steps)
    per_step = total / max(found.steps.total, 1)
    exact = is_exact(recipe, found.survey, found.steps)
    return {"per_step": per_step, "total": total, "source": found.survey.source, "exact": exact}


def _lacking(recipe: Recipe, found: Forecast) -> list[str]:
    """What the device has not got and the recipe asks for."""
    computing = recipe.sections.get("quantization", {}).get("bnb_4bit_compute_dtype")
    asked = {str(found.drawn.dtype), str(autocast(recipe["train"])), f"torch.{computing}"}
    return ["bfloat16"] if "torch.bfloat16" in asked and not found.device.bfloat16 else []


def _memory(recipe: Recipe, found: Forecast) -> dict[str, Any] | None:
    if found.room is None:
        return None
    needed, device = found.room.needs, found.device
    without = {"activations_without_checkpointing": found.room.saved_without_checkpointing}
    stage, peak = max(needed.peaks.items(), key=lambda item: item[1])
    return {
        "peak_bytes": peak,
        "peak_stage": stage,
        "parts": needed.parts | without,
        "batch": {
            "rows": len(found.batch.rows),
            "length": found.batch.length,
            "joined": found.batch.flat,
        },
        "device": device.name,
        "device_bytes": device.bytes,
        "fits": not needed.too_large(device.bytes),
        "too_large": needed.too_large(device.bytes),
        "lacks": _lacking(recipe, found),
        "changes": [change.as_json() for change in found.room.changes],
    }
