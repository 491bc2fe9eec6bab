"""Rows, from where they lie to what the trainer gets: sources → formats → template → mask → statistics."""

from loracook.data.cache import files
from loracook.data.eval_prompts import EvaluationPrompt, evaluation_prompts, prompt_ids
from loracook.data.limits import over_limits
from loracook.data.prepare import Prepared, prepare
from loracook.data.tokenize.template import with_template

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
