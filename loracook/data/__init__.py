"""Rows, from where they lie to what the trainer gets: sources → formats → template → mask → statistics."""

from loracook.data.cache import files, is_prepared
from loracook.data.eval_prompts import EvaluationPrompt, all_prompts
from loracook.data.limits import over_limits
from loracook.data.prepare import Prepared, prepare
from loracook.data.read.selection import select
from loracook.data.tokenize.template import with_template

__all__ = [
    "EvaluationPrompt",
    "Prepared",
    "all_prompts",
    "files",
    "is_prepared",
    "over_limits",
    "prepare",
    "select",
    "with_template",
]
