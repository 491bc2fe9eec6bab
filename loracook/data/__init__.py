"""Rows, from the data to the trainer: sources → formats → chat template → loss mask → statistics."""

from loracook.data.cache import files
from loracook.data.eval_prompts import EvaluationPrompt, evaluation_prompts, prompt_ids
from loracook.data.prepare import Prepared, prepare
from loracook.data.tokenize.template import with_template
from loracook.data.warnings import over_limits

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
