"""A plan as plain JSON values; what is unknown is null, and `unknown` says why."""

from dataclasses import asdict
from typing import Any

from loracook.estimate.estimate import Estimate
from loracook.estimate.forecast import Forecast
from loracook.views.plan_details import PlanDetails

STAGE = ("name", "folder", "done", "summary", "fault", "resumes_from")
"""What is shown of a stage."""


def as_json(details: PlanDetails) -> dict[str, Any]:
    """A plan and its forecast as plain JSON values."""
    plan, forecast, probe = details.plan, details.forecast, details.probe
    stages = [
        {name: getattr(stage, name) for name in STAGE}
        | {"folder": str(stage.folder), "lengthens": str(stage.lengthens or "")}
        for stage in plan.stages
    ]
    time = {"seconds_per_step": details.seconds_per_step, "seconds": details.seconds}
    return {
        "recipe": plan.recipe.name,
        "folder": str(plan.folder),
        "own_code": plan.recipe.own_code,
        "stages": stages,
        **(
            _forecast(forecast)
            | {"notes": details.notes}
            | {"processes": details.processes.count, "strategy": details.processes.strategy}
            if forecast
            else {}
        ),
        **({"probe": probe.facts(), "time": time} if probe else {}),
        "unknown": details.all_unknown,
    }


def _forecast(forecast: Forecast) -> dict[str, Any]:
    estimate, disk = forecast.estimate, forecast.disk
    total = {"total_bytes": disk.total_bytes, "download_bytes": forecast.hub_info.download_bytes}
    return {
        "model": _model(forecast),
        "steps": _steps(estimate),
        "tokens": _tokens(estimate),
        "memory": _memory(forecast),
        "disk": asdict(disk) | total,
        "push": asdict(forecast.upload) if forecast.upload else {},
        "serving": [each.facts() for each in forecast.serving],
        "external": list(forecast.external),
        "over_limits": list(estimate.rows.over_limits) if estimate.rows else [],
    }


def _model(forecast: Forecast) -> dict[str, Any]:
    recipe, base = forecast.estimate.recipe, forecast.estimate.meta_model
    return {
        "name_or_path": recipe["base_model"]["name_or_path"],
        "commit": forecast.hub_info.commit,
        "license": forecast.hub_info.license,
        "dtype": str(base.dtype).removeprefix("torch."),
        "quantization": dict(base.quantization),
        "base_parameters": base.base_parameters,
        "all_parameters": base.counts.all,
        "trainable_parameters": base.counts.trainable,
        "trainable_percent": base.counts.percent,
        "added_tokens": base.added_tokens,
        "modules": base.counts.modules,
        "left_out": dict(base.left_out),
        "unadapted": {group.pattern: group.number for group in base.unadapted},
    }


def _steps(estimate: Estimate) -> dict[str, Any] | None:
    steps = estimate.steps
    if steps is None:
        return None
    return {
        "total": steps.total,
        "per_epoch": steps.per_epoch or None,
        "warmup": steps.warmup,
        "effective_batch_size": steps.effective_batch_size,
        "rows": estimate.rows and estimate.rows.count,
        "at_most": "early_stopping" in estimate.recipe["train"],
        "exact": estimate.exact_steps,
    }


def _tokens(estimate: Estimate) -> dict[str, Any] | None:
    tokens, steps, rows = estimate.tokens, estimate.steps, estimate.rows
    if tokens is None or steps is None or rows is None:
        return None
    per_step = tokens.total / max(steps.total, 1)
    return {"per_step": per_step, "total": tokens.total, "source": rows.source, "exact": tokens.exact}


def _memory(forecast: Forecast) -> dict[str, Any] | None:
    estimate = forecast.estimate
    memory, device, batch = estimate.memory, estimate.device, estimate.batch
    if memory is None:
        return None
    return {
        "peak_bytes": memory.peaks[memory.peak_stage],
        "peak_stage": memory.peak_stage,
        "parts": memory.stages[memory.peak_stage],
        "stages": memory.stages,
        "activations_without_checkpointing": forecast.without_checkpointing,
        "batch": {"rows": len(batch.rows), "length": batch.length, "packed": batch.flat},
        "device": device.name,
        "device_bytes": device.bytes,
        "fits": not estimate.too_large,
        "too_large": estimate.too_large,
        "lacks": list(estimate.precision_advice),
        "changes": [asdict(change) for change in forecast.changes],
    }
