"""A plan in words: its stages, then its forecast as aligned lines."""

from collections.abc import Iterator, Sequence

from loracook.estimate.disk import DiskUse, Upload
from loracook.estimate.estimate import Estimate
from loracook.estimate.forecast import Forecast
from loracook.estimate.make_it_fit import Change
from loracook.estimate.memory import StageMemory
from loracook.planner import Plan, PlannedStage
from loracook.training.processes import FSDP2, divided, shared
from loracook.units import size
from loracook.views.plan_details import PlanDetails
from loracook.views.serving import serving_lines
from loracook.views.unadapted import unadapted_lines

LABEL = 10
TIMES = "\N{MULTIPLICATION SIGN}"


def stage_lines(plan: Plan) -> list[str]:
    """The stages as aligned lines: each with its state, its folder below the run folder, and what it does."""
    recipe = plan.recipe
    about = f": {recipe['description']}" if "description" in recipe else ""
    width = max(len(stage.folder.name) for stage in plan.stages)
    rows = [(stage, "done" if stage.done else "to do") for stage in plan.stages]
    stages = [f"  {s.name:<10}{state:<7}{s.folder.name:<{width}}  {s.summary}" for s, state in rows]
    faults = [f"  {stage.name} will run again: {stage.fault}" for stage in plan.stages if stage.fault]
    code = [f"  runs the model's own code: {recipe.own_code}"] if recipe.own_code else []
    return [f"{recipe.name}{about}", f"in {plan.folder}/:", *stages, *faults, *code]


def detail_lines(details: PlanDetails) -> list[str]:
    """The forecast of a plan, each kind of fact under its label."""
    forecast = details.forecast
    parts = {"resumes": [text for stage in details.plan.to_do if (text := _resumes(stage))]}
    parts |= {} if forecast is None else _facts(details, forecast)
    parts["unknown"] = details.all_unknown
    return [line for label, texts in parts.items() for line in _labelled(label, texts)]


def _labelled(label: str, texts: Sequence[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        yield f"{'' if number else label:<{LABEL}}{text}"


def _resumes(stage: PlannedStage) -> str:
    place = f"from {stage.resumes_from}" if stage.resumes_from else str(stage.lengthens or "")
    whether = "" if stage.lengthens and stage.lengthens.why_not else ", if its files are intact"
    return f"{stage.name} {place}{whether}" if place else ""


def _facts(details: PlanDetails, forecast: Forecast) -> dict[str, list[str]]:
    estimate = forecast.estimate
    return {
        "model": _model(forecast),
        "adapter": _adapter(estimate),
        "steps": _steps(estimate),
        "tokens": _tokens(estimate),
        "evaluate": _evaluation(estimate),
        "processes": _processes(details, estimate),
        "memory": _memory(forecast),
        "probe": _probe(details),
        "disk": _disk(forecast.disk),
        "push": _upload(forecast.upload),
        "serving": list(serving_lines(forecast.serving)),
        "external": list(forecast.external),
        "notes": details.notes,
        "stops": list(estimate.rows.over_limits) if estimate.rows else [],
    }


def _model(forecast: Forecast) -> list[str]:
    recipe, base, info = forecast.estimate.recipe, forecast.estimate.meta_model, forecast.hub_info
    facts = [
        recipe["base_model"]["name_or_path"],
        f"commit {info.commit[:12]}" if info.commit else "",
        f"license {info.license}" if info.license else "",
        f"{size(info.download_bytes)} to download" if info.download_bytes else "",
    ]
    quantization = ", ".join(f"{k}: {v}" for k, v in base.quantization.items())
    plural = "" if base.added_tokens == 1 else "s"
    added = f"; {base.added_tokens:,} token{plural} added" if base.added_tokens else ""
    dtype = str(base.dtype).removeprefix("torch.")
    kind = f"{base.base_parameters:,} parameters in {dtype}{added}"
    return [", ".join(filter(None, facts)), kind, *([quantization] if quantization else [])]


def _adapter(estimate: Estimate) -> list[str]:
    base, counts = estimate.meta_model, estimate.meta_model.counts
    share = f"trainable params: {counts.trainable:,} / {counts.all:,} ({counts.percent:.4g}%)"
    adapted = (f"{pattern} {TIMES} {number}" for pattern, number in counts.modules.items())
    parts = ", ".join(f"{part} {TIMES} {number}" for part, number in base.left_out.items())
    left_out = [f"left out, since text does not reach it or LoRA cannot adapt it: {parts}"] if parts else []
    return [
        share,
        *adapted,
        *left_out,
        *unadapted_lines(base.unadapted, base.base_parameters),
    ]


def _at_most(estimate: Estimate) -> str:
    return "at most " if "early_stopping" in estimate.recipe["train"] else ""


def _steps(estimate: Estimate) -> list[str]:
    steps = estimate.steps
    if steps is None:
        return ["unknown"]
    epochs = f", {steps.per_epoch:,} per epoch" if steps.per_epoch else ""
    about = _at_most(estimate) + ("" if estimate.exact_steps else "about ")
    batch = f"effective batch size {steps.effective_batch_size:,}"
    return [f"{about}{steps.total:,}{epochs}, {steps.warmup:,} of them warmup; {batch}"]


def _tokens(estimate: Estimate) -> list[str]:
    tokens, steps, rows = estimate.tokens, estimate.steps, estimate.rows
    if tokens is None or steps is None or rows is None:
        return ["unknown"]
    about = _at_most(estimate) + ("" if tokens.exact else "about ")
    per_step = tokens.total / max(steps.total, 1)
    return [f"{about}{tokens.total:,}, {per_step:,.0f} per step (counted in {rows.source})"]


def _evaluation(estimate: Estimate) -> list[str]:
    """How many evaluation rows there are, and how many of them are answered."""
    there = estimate.rows.evaluation if estimate.rows else 0
    answered = min(there, estimate.recipe.sections.get("evaluate", {}).get("rows") or 0)
    answers = f", {answered:,} of them answered" if answered else ""
    return [f"{there:,} evaluation row{'s' * (there != 1)}{answers}"] if there else []


def _processes(details: PlanDetails, estimate: Estimate) -> list[str]:
    """What each of several processes holds, and what they send each other."""
    processes = details.processes
    if processes.count == 1:
        return []
    own, trainable = divided(estimate.recipe, processes.count), estimate.meta_model.counts.trainable
    layers = ", and twice for each batch the layers" if processes.strategy == FSDP2 else ""
    return [
        f"{shared(own, processes)}; memory is that of each",
        f"each step they send each other {size(4 * trainable)} of gradients{layers}",
    ]


def _memory(forecast: Forecast) -> list[str]:
    estimate = forecast.estimate
    memory, device, batch = estimate.memory, estimate.device, estimate.batch
    if memory is None:
        return ["unknown"]
    fits = "does not fit in" if estimate.too_large else "fits in"
    stage = memory.peak_stage
    rows = f"{len(batch.rows)} row{'s' * (len(batch.rows) != 1)}"
    shape = (
        f"{rows} packed into {batch.length:,} tokens"
        if batch.flat
        else f"{rows} {TIMES} {batch.length:,} tokens"
    )
    return [
        f"{size(memory.peaks[stage])} at the peak of {stage}, {fits} {size(device.bytes)} of {device.name}",
        *estimate.precision_advice.values(),
        f"for the largest batch: {shape}",
        *(
            f"  {name.replace('_', ' '):<24}{size(count):>10}"
            for name, count in memory.stages[stage].items()
            if count
        ),
        *_other_memory(forecast, memory),
        *map(_change, forecast.changes),
        *_more_advice(forecast),
    ]


def _other_memory(forecast: Forecast, memory: StageMemory) -> list[str]:
    """The peaks of the other stages, and what checkpointing saves: not part of the peak."""
    peaks = {stage: peak for stage, peak in memory.peaks.items() if stage != memory.peak_stage}
    too_large = forecast.estimate.too_large
    texts = [
        f"peak of {stage}: {size(peak)}{', does not fit either' if stage in too_large else ''}"
        for stage, peak in peaks.items()
    ]
    if forecast.without_checkpointing is not None:
        texts.append(
            f"without activation_checkpointing, activations take {size(forecast.without_checkpointing)}"
        )
    return texts


def _change(change: Change) -> str:
    return f"write {change.write}: saves {size(change.saves)}{', then it fits' if change.fits else ''}"


def _more_advice(forecast: Forecast) -> list[str]:
    """What to do where no change makes everything fit."""
    too_large = forecast.estimate.too_large
    if not too_large or any(change.fits for change in forecast.changes):
        return []
    if "train" in too_large:
        return ["that is not enough: use a smaller base model or a larger device"]
    return [f"run {' and '.join(too_large)} on a machine with more memory: --only {too_large[0]}"]


def _probe(details: PlanDetails) -> list[str]:
    probe, seconds = details.probe, details.seconds
    if probe is None:
        return []
    return [
        f"{_size(probe.measured)} measured for the largest batch, {_size(probe.planned)} estimated",
        f"at most {details.seconds_per_step:.2g} s per step"
        + (f", {seconds:,.0f} s in total" if seconds else ""),
    ]


def _disk(disk: DiskUse) -> list[str]:
    plural = "" if disk.checkpoints_kept == 1 else "s"
    parts = [
        f"adapter {size(disk.adapter_bytes)}",
        f"{disk.checkpoints_kept} checkpoint{plural} of {size(disk.checkpoint_bytes)}",
        f"merged model {size(disk.merged_bytes)}" if disk.merged_bytes else "",
        f"GGUF file {size(disk.exported_bytes)}" if disk.exported_bytes else "",
        f"published copy {size(disk.published_bytes)}" if disk.published_bytes else "",
    ]
    total = f"at most {size(disk.total_bytes)}, {size(disk.free_bytes)} free"
    return [total, ", ".join(filter(None, parts))]


def _upload(upload: Upload | None) -> list[str]:
    if upload is None:
        return []
    requires = f"; requires {upload.requires}" if upload.requires else ""
    return [
        f"{upload.what} to {upload.to} ({upload.visibility}), {size(upload.bytes)}{requires}",
        upload.files,
    ]


def _size(count: int | None) -> str:
    return "?" if count is None else size(count)
