"""All that `loracook plan` shows of a run beyond its stages."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loracook import data, model
from loracook.estimate.disk import DiskUse, Upload, disk_use, upload
from loracook.estimate.estimate import Estimate
from loracook.estimate.fake_step import saved_without_checkpointing
from loracook.estimate.make_it_fit import Change, fitting_changes
from loracook.estimate.memory import autocast
from loracook.recipe.derived import other_tokenizer
from loracook.recipe.locations import LOCAL, is_local
from loracook.recipe.recipe import Recipe


@dataclass(frozen=True)
class Forecast:
    """An estimate with its base model's origin, disk use, upload, and the changes that would make it fit.

    `without_checkpointing` has the bytes that activations take where checkpointing does not recompute them;
    `external` says what reaches beyond this machine, `serving` what loads the adapter as it will be.
    """

    estimate: Estimate
    hub_info: model.HubInfo
    disk: DiskUse
    upload: Upload | None
    changes: tuple[Change, ...]
    without_checkpointing: int | None
    external: tuple[str, ...]
    serving: tuple[model.Serving, ...]


def forecast(estimate: Estimate, runs: Path) -> Forecast:
    """The forecast of a run below the folder `runs`; asks the hub about the base model."""
    return Forecast(
        estimate=estimate,
        hub_info=model.hub_info(estimate.recipe, estimate.meta_model.folder),
        disk=disk_use(estimate, runs),
        upload=upload(estimate),
        changes=tuple(fitting_changes(estimate)) if estimate.too_large else (),
        without_checkpointing=_without_checkpointing(estimate),
        external=tuple(_external(estimate.recipe)),
        serving=estimate.meta_model.serving(estimate.recipe),
    )


def _without_checkpointing(estimate: Estimate) -> int | None:
    train = estimate.recipe["train"]
    if estimate.memory is None or not train.get("activation_checkpointing"):
        return None
    return saved_without_checkpointing(estimate.meta_model.tuned, estimate.batch, autocast=autocast(train))


def _external(recipe: Recipe) -> Iterator[str]:
    """What reaches beyond this machine, in sentences; nothing in a recipe runs code."""
    if not is_local(recipe["base_model"]):
        yield f"downloads the base model {recipe['base_model']['name_or_path']} from the hub"
    if not (tokenizer := other_tokenizer(recipe.sections) or LOCAL[0]).startswith(LOCAL):
        yield f"downloads the tokenizer {tokenizer} from the hub"
    if not recipe["lora"].get("start_from", LOCAL[0]).startswith(LOCAL):
        yield f"downloads the adapter {recipe['lora']['start_from']} from the hub"
    for path in data.hub_datasets(recipe):
        yield f"downloads the data set {path} from the hub"
    trackers = recipe["train"].get("report_to", "none")
    for tracker in [trackers] if isinstance(trackers, str) else trackers:
        if tracker not in ("none", "tensorboard"):
            yield f"reports losses to {tracker}"
    if "repo_id" in recipe.sections.get("push", {}):
        yield f"uploads the result to the hub as {recipe['push']['repo_id']}, only with --push"
