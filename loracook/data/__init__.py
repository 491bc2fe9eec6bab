"""Rows, from the data to the trainer: sources → formats → chat template → loss mask → statistics."""

from loracook.data.cache import files, hub_datasets, is_prepared
from loracook.data.conversation import Conversation
from loracook.data.eval_prompts import (
    EvaluationPrompt,
    all_prompts,
    end_ids,
    evaluation_prompts,
    exact_text,
    prompt_ids,
)
from loracook.data.further_rows import RowSet, further_files, further_row_sets
from loracook.data.prepare import Prepared, prepare, prepared_statistics
from loracook.data.preview import first_row
from loracook.data.read.selection import row_count, select
from loracook.data.tokenize.template import with_template
from loracook.data.warnings import over_limits
