"""Rules of the evaluate section."""

from __future__ import annotations

from collections.abc import Iterator

from loracook.errors import Problem
from loracook.recipe.derived import NO_EVAL_ROWS, Data

OF_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
OF_BEAMS = ("early_stopping", "length_penalty")


def nothing_to_evaluate(data: Data) -> Iterator[Problem]:
    """Evaluation requires prompts or rows."""
    evaluate = data.get("evaluate")
    if evaluate is not None and not evaluate.get("prompts") and "eval" not in data["dataset"]:
        message = "nothing to evaluate; set 'prompts', or 'eval: {fraction: 0.05}' under 'dataset:'"
        yield Problem(("evaluate",), message)


def rows_from_nowhere(data: Data) -> Iterator[Problem]:
    """Evaluation rows come from the dataset section."""
    evaluate, held = data.get("evaluate", {}), data["dataset"].get("eval")
    if "rows" in evaluate and held is None:
        message = NO_EVAL_ROWS
        yield Problem(("evaluate", "rows"), message)
    elif held and evaluate.get("rows", 0) > held.get("rows", float("inf")):
        message = f"there are at most {held['rows']} evaluation rows; set a smaller number"
        yield Problem(("evaluate", "rows"), message)


def metrics_of_nothing(data: Data) -> Iterator[Problem]:
    """Metrics compare answers with those of evaluation rows."""
    evaluate = data.get("evaluate", {})
    if evaluate.get("metrics") and "rows" not in evaluate:
        message = "requires evaluation rows; set 'rows: 50' too"
        yield Problem(("evaluate", "metrics"), message)


def pattern_and_metric(data: Data) -> Iterator[Problem]:
    """The pattern and the metric that uses it require each other."""
    evaluate = data.get("evaluate", {})
    measured = "regex" in evaluate.get("metrics", ())
    if measured and "regex" not in evaluate:
        path = ("evaluate", "metrics", evaluate["metrics"].index("regex"))
        yield Problem(path, "requires a pattern; set 'regex' in this section too")
    if "regex" in evaluate and not measured:
        yield Problem(
            ("evaluate", "regex"), "requires the metric regex; set 'metrics: [regex]' too, or remove it"
        )


def sampling_without_sampling(data: Data) -> Iterator[Problem]:
    """Greedy decoding ignores the settings of sampling."""
    generation = data.get("evaluate", {}).get("generation", {})
    for name in OF_SAMPLING:
        if name in generation and not generation["do_sample"]:
            path = ("evaluate", "generation", name)
            yield Problem(path, "requires sampling; set 'do_sample: true' too, or remove it")


def beams_without_beams(data: Data) -> Iterator[Problem]:
    """Settings of beam search require several beams."""
    generation = data.get("evaluate", {}).get("generation", {})
    for name in OF_BEAMS:
        if name in generation and generation.get("num_beams", 1) == 1:
            yield Problem(
                ("evaluate", "generation", name), "requires beam search; set 'num_beams: 4' too, or remove it"
            )


def least_beyond_most(data: Data) -> Iterator[Problem]:
    """The minimum length cannot exceed the maximum."""
    generation = data.get("evaluate", {}).get("generation", {})
    if generation and generation.get("min_new_tokens", 0) > generation["max_new_tokens"]:
        message = f"must be at most max_new_tokens ({generation['max_new_tokens']}); set a smaller number"
        yield Problem(("evaluate", "generation", "min_new_tokens"), message)
