"""Lm_eval: tasks of lm-evaluation-harness, on the base model and the adapter, with one load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loracook import data, model
from loracook.data.tokenize.template import chat_template
from loracook.errors import RecipeError
from loracook.evaluation.harness import evaluate, language_model, load_tasks
from loracook.evaluation.own_tasks import task_files
from loracook.machine.versions import installed
from loracook.model.generation_config import own_settings_aside
from loracook.model.inference import end_tokens
from loracook.progress import Progress
from loracook.recipe.recipe import Recipe
from loracook.report.task_scores import SIDES, scores
from loracook.stages.base import Consent, Folders
from loracook.store.folders import default_cache

READS: tuple[str, ...] = ("lm_eval",)
RESUMES = False
OUT_OF_MEMORY = "set lm_eval.batch_size: 1"
KEPT = ("results", "groups", "group_subtasks", "versions", "n-shot", "higher_is_better", "n-samples")
"""What results.json has of what lm-evaluation-harness gives: not the rows, nor this machine's paths."""


def after(recipe: Recipe) -> tuple[str, ...]:
    """The tasks need the adapter."""
    return ("train",)


def files(recipe: Recipe) -> tuple[Path, ...]:
    """The files of the recipe's own tasks."""
    return task_files(recipe)


def describe(recipe: Recipe) -> str:
    """Name the tasks."""
    names = [task if isinstance(task, str) else task["task"] for task in recipe["lm_eval"]["tasks"]]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"base model vs adapter: {', '.join(names[:3])}{more}"


def uploads_to(recipe: Recipe) -> str | None:
    """Scores stay on this machine."""
    return None


def preflight(recipe: Recipe, consent: Consent) -> None:
    """Load the tasks, which downloads their rows; raises MachineError and RecipeError."""
    load_tasks(recipe)
    if recipe["lm_eval"].get("apply_chat_template"):
        folder = model.fetch_tokenizer(recipe, default_cache())
        if chat_template(data.with_template(recipe, model.load_tokenizer(recipe, folder))) is None:
            message = "the base model has no chat template; set template.chat_template, or remove this"
            raise RecipeError([recipe.problem(("lm_eval", "apply_chat_template"), message)])


def accept(recipe: Recipe, folder: Path) -> None:
    """Nothing is required of it."""


def run(recipe: Recipe, folders: Folders, *, consent: Consent, progress: Progress) -> dict[str, Any]:
    """Leave `results.json`; return the scores."""
    adapter, results = folders.before["train"] / "adapter", dict[str, Mapping[str, Any]]()
    progress.advance(0, 0, "loading tasks")
    tasks = load_tasks(recipe)
    progress.advance(0, 0, "loading base model and adapter")
    tokenizer = model.saved_tokenizer(recipe, adapter)
    base = model.load_model(recipe, model.fetch(recipe, folders.cache))
    ends = end_tokens(base, data.end_ids(tokenizer))
    tuned = model.load_tuned(recipe, base, adapter)
    lm = language_model(tuned, tokenizer, recipe["lm_eval"]["batch_size"])
    with own_settings_aside(tuned):
        tuned.get_base_model().generation_config.eos_token_id = ends
        for done, side in enumerate(SIDES):
            progress.advance(done, len(SIDES), side)
            if side == "base":
                with tuned.disable_adapter():
                    results[side] = evaluate(recipe, lm, tasks)
            else:
                results[side] = evaluate(recipe, lm, tasks)
    _write(folders.own / "results.json", results)
    return {"lm_eval": installed("lm_eval"), "scores": scores(results)}


def _write(file: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    kept = {side: {key: each[key] for key in KEPT if key in each} for side, each in results.items()}
    file.write_text(json.dumps(kept, indent=2, default=float) + "\n", "utf-8")
