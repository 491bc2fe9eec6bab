"""Rules for the section evaluate."""

import math
from collections.abc import Iterator

from loracook.errors import Problem
from loracook.recipe.derived import Data
from loracook.recipe.locations import LOCAL
from loracook.recipe.rules.eval_during_training import ADD_EVAL, NO_EVAL_ROWS

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
BEAM_SEARCH = ("early_stopping", "length_penalty")
LOSSES = ("loss", "perplexity")
TAKEN = {"base", "adapter", "default", "difference", "equal"}
"""What models and figures are called in the results of an evaluation."""


def nothing_to_evaluate(data: Data) -> Iterator[Problem]:
    """Evaluation requires prompts or rows."""
    evaluate = data.get("evaluate")
    asked = evaluate is not None and (evaluate.get("prompts") or evaluate.get("also"))
    if evaluate is not None and not asked and "eval" not in data["dataset"]:
        message = f"nothing to evaluate; add 'prompts:', or {ADD_EVAL}"
        yield Problem(("evaluate",), message)


def evaluate_rows_without_eval(data: Data) -> Iterator[Problem]:
    """Evaluation rows come from the dataset section."""
    evaluate, held = data.get("evaluate", {}), data["dataset"].get("eval")
    if "rows" in evaluate and held is None:
        message = NO_EVAL_ROWS
        yield Problem(("evaluate", "rows"), message)
    elif held and evaluate.get("rows", 0) > held.get("rows", float("inf")):
        message = f"must be at most the {held['rows']} evaluation rows; use a smaller number"
        yield Problem(("evaluate", "rows"), message)


def metrics_without_rows(data: Data) -> Iterator[Problem]:
    """Metrics compare answers with those of evaluation rows."""
    evaluate = data.get("evaluate", {})
    if evaluate.get("metrics") and "rows" not in evaluate:
        message = "requires evaluation rows to answer; set 'rows: 50' too"
        yield Problem(("evaluate", "metrics"), message)


def regex_and_metric(data: Data) -> Iterator[Problem]:
    """The metric regex requires the pattern, and only this metric uses it."""
    evaluate = data.get("evaluate", {})
    measured = "regex" in evaluate.get("metrics", ())
    further = any("regex" in rows.get("metrics", ()) for rows in evaluate.get("also", {}).values())
    if measured and "regex" not in evaluate:
        path = ("evaluate", "metrics", evaluate["metrics"].index("regex"))
        yield Problem(path, "requires a pattern; add 'regex:' to this section")
    if "regex" in evaluate and not measured and not further:
        message = "only used by the metric 'regex'; set 'metrics: [regex]' too, or remove it"
        yield Problem(("evaluate", "regex"), message)


def sampling_settings_without_sampling(data: Data) -> Iterator[Problem]:
    """Without sampling the likeliest token is always taken."""
    generation = data.get("evaluate", {}).get("generation", {})
    for name in SAMPLING:
        if name in generation and not generation["do_sample"]:
            path = ("evaluate", "generation", name)
            yield Problem(path, "only used when sampling; set 'do_sample: true' too, or remove it")


def beam_settings_without_beams(data: Data) -> Iterator[Problem]:
    """These settings are only used in beam search."""
    generation = data.get("evaluate", {}).get("generation", {})
    for name in BEAM_SEARCH:
        if name in generation and generation.get("num_beams", 1) == 1:
            yield Problem(
                ("evaluate", "generation", name),
                "only used in beam search; set 'num_beams: 4' too, or remove it",
            )


def min_above_max_new_tokens(data: Data) -> Iterator[Problem]:
    """The minimum length must not exceed the maximum."""
    generation = data.get("evaluate", {}).get("generation", {})
    if generation and generation.get("min_new_tokens", 0) > generation["max_new_tokens"]:
        message = f"must be at most max_new_tokens, {generation['max_new_tokens']}; use a smaller number"
        yield Problem(("evaluate", "generation", "min_new_tokens"), message)


def evaluation_in_another_dtype(data: Data) -> Iterator[Problem]:
    """Quantized weights have no dtype of their own."""
    if "dtype" in data.get("evaluate", {}) and "quantization" in data:
        yield Problem(("evaluate", "dtype"), "not used with quantized weights; remove it")


def adapters_elsewhere(data: Data) -> Iterator[Problem]:
    """Other adapters are folders with names of their own."""
    for name, folder in data.get("evaluate", {}).get("adapters", {}).items():
        path = ("evaluate", "adapters", name)
        if not folder.startswith(LOCAL):
            message = "is not a local folder; download it and write './DIR'"
            yield Problem(path, message)
        if name in TAKEN:
            yield Problem(path, f"'{name}' has another meaning here; use another name")


def metrics_of_further_rows(data: Data) -> Iterator[Problem]:
    """Further rows are scored with the same pattern as the recipe's own."""
    evaluate = data.get("evaluate", {})
    for name, rows in evaluate.get("also", {}).items():
        if "regex" in rows.get("metrics", ()) and "regex" not in evaluate:
            path = ("evaluate", "also", name, "metrics", rows["metrics"].index("regex"))
            yield Problem(path, "requires a pattern; add 'regex:' to the section 'evaluate'")


def gates_of_what_is_not_measured(data: Data) -> Iterator[Problem]:
    """A gate requires its metric."""
    evaluate = data.get("evaluate", {})
    for gate in evaluate.get("require", {}):
        rows, _, metric = gate.rpartition(".")
        path = ("evaluate", "require", gate)
        if rows and rows not in evaluate.get("also", {}):
            yield Problem(path, f"no further row set is called '{rows}'; add it under 'also:'")
            continue
        measured = evaluate.get("also", {})[rows] if rows else evaluate
        if metric not in (*LOSSES, *measured.get("metrics", ())):
            yield Problem(path, f"is not measured; add '{metric}' to 'metrics'")
        elif metric in LOSSES and not rows and "eval" not in data["dataset"]:
            yield Problem(path, f"is not measured; {ADD_EVAL}")


def gates_that_exclude_each_other(data: Data) -> Iterator[Problem]:
    """No value is above a number and below a smaller one."""
    for gate, conditions in data.get("evaluate", {}).get("require", {}).items():
        if conditions.get("at_least", -math.inf) > conditions.get("at_most", math.inf):
            message = f"must be at most at_most, {conditions['at_most']}; use a smaller number"
            yield Problem(("evaluate", "require", gate, "at_least"), message)
