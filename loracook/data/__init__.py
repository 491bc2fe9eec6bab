"""Rows, from where they lie to what the trainer gets: sources → formats → template → mask → statistics."""

from loracook.data.kept import files
from loracook.data.limits import over_limits
from loracook.data.prepare import Prepared, prepare
from loracook.data.prompts import EvaluationPrompt, evaluation_prompts, prompt_ids
from loracook.data.template import with_template

__all__ = [
    "EvaluationPrompt",
    "Prepared",
    "evaluation_prompts",
    "files",
    "over_limits",
    "prepare",
    "prompt_ids",
    "with_template",
]
