"""Rules of evaluation during training, and of the best model."""

from __future__ import annotations

import math
from collections.abc import Iterator

from loracook.errors import Problem, quote, spell
from loracook.recipe.derived import NO_EVAL_ROWS, Data, evaluates, most_steps


def evaluation_without_rows(data: Data) -> Iterator[Problem]:
    """Evaluation requires rows."""
    if evaluates(data) and "eval" not in data["dataset"]:
        message = NO_EVAL_ROWS
        yield Problem(("train", "eval_strategy"), message)


def rows_without_evaluation(data: Data) -> Iterator[Problem]:
    """Rows that are held out and never evaluated are lost."""
    if "eval" in data["dataset"] and not evaluates(data) and "evaluate" not in data:
        message = (
            "nothing evaluates on these rows; "
            "set 'eval_strategy: epoch' under 'train:', or add an 'evaluate:' section"
        )
        yield Problem(("dataset", "eval"), message, severity="warning")


def steps_without_evaluation(data: Data) -> Iterator[Problem]:
    """Settings of evaluation require it to be enabled."""
    train = data["train"]
    for name in ("eval_steps", "eval_delay", "eval_on_start", "eval_packing"):
        if train.get(name) and not evaluates(data):
            message = "requires evaluation during training; set 'eval_strategy: steps' too"
            yield Problem(("train", name), message)
    if "eval_steps" in train and train.get("eval_strategy") == "epoch":
        message = "conflicts with 'eval_strategy: epoch'; set 'eval_strategy: steps' or remove it"
        yield Problem(("train", "eval_steps"), message)


def evaluation_after_the_end(data: Data) -> Iterator[Problem]:
    """An evaluation later than the last step never happens."""
    train, steps = data["train"], most_steps(data)
    every = train.get("eval_steps", train["logging_steps"])
    if train.get("eval_strategy") == "steps" and steps and every > steps:
        name = "eval_steps" if "eval_steps" in train else "eval_strategy"
        message = f"the run has at most {steps} steps, so this never happens; set a smaller number, or '0.25'"
        yield Problem(("train", name), message, severity="warning")


def best_without_evaluation(data: Data) -> Iterator[Problem]:
    """The best model can only be told by evaluation."""
    if evaluates(data):
        return
    for name in ("load_best_model_at_end", "early_stopping"):
        if data["train"].get(name) not in (None, False):
            message = "requires evaluation during training; set 'eval_strategy: steps' too"
            yield Problem(("train", name), message)
    if data["train"]["save_strategy"] == "best":
        message = "requires evaluation during training; set 'eval_strategy: steps' too"
        yield Problem(("train", "save_strategy"), message)


def best_that_is_not_saved(data: Data) -> Iterator[Problem]:
    """The best model must have been saved when it was evaluated."""
    train = data["train"]
    if not train.get("load_best_model_at_end") or not evaluates(data) or train["save_strategy"] == "best":
        return
    evaluated, saved = train["eval_strategy"], train["save_strategy"]
    if evaluated != saved:
        message = (
            f"requires eval_strategy ({evaluated}) and save_strategy ({saved}) to be the same; change one"
        )
        yield Problem(("train", "load_best_model_at_end"), message)
    elif evaluated == "steps":
        yield from _not_multiples(train)


def _not_multiples(train: Data) -> Iterator[Problem]:
    every: float = train.get("eval_steps") or train["logging_steps"]
    saves: float = train["save_steps"]
    times = saves / every
    if (every < 1) != (saves < 1) or times < 1 or not math.isclose(times, round(times), abs_tol=1e-9):
        found = f"saves every {spell(saves)} steps but evaluates every {spell(every)}"
        yield Problem(("train", "save_steps"), f"{found}; set a multiple, such as {quote(every)}")


def best_without_metric(data: Data) -> Iterator[Problem]:
    """Upstream's default metric applies only when the best model is loaded at the end."""
    train = data["train"]
    chosen = train.get("load_best_model_at_end") or "metric_for_best_model" in train
    if train["save_strategy"] == "best" and evaluates(data) and not chosen:
        message = "requires a metric; set 'metric_for_best_model: loss' too"
        yield Problem(("train", "save_strategy"), message)


def stopping_without_best(data: Data) -> Iterator[Problem]:
    """Early stopping keeps the last model, which is no longer the best."""
    train = data["train"]
    if "early_stopping" in train and evaluates(data) and not train.get("load_best_model_at_end"):
        message = "would keep the last model, not the best; set 'load_best_model_at_end: true' too"
        yield Problem(("train", "early_stopping"), message)


def greater_loss(data: Data) -> Iterator[Problem]:
    """A loss is better when it is smaller, an accuracy when it is greater."""
    train = data["train"]
    metric = train.get("metric_for_best_model", "loss")
    if "greater_is_better" in train and train["greater_is_better"] == metric.endswith("loss"):
        better = "false" if metric.endswith("loss") else "true"
        message = f"is the wrong way round for {quote(metric)}; set '{better}'"
        yield Problem(("train", "greater_is_better"), message)
