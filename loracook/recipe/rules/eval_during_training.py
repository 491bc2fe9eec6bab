"""Rules for evaluation during training and for the best model."""

import math
from collections.abc import Iterator

from loracook.errors import Problem, quote, spell
from loracook.recipe.derived import Data, evaluates, most_steps

ADD_EVAL = "add 'eval: {fraction: 0.05}' under 'dataset:'"
NO_EVAL_ROWS = f"requires evaluation rows; {ADD_EVAL}"
SET_EVAL_STRATEGY = "set 'eval_strategy: steps' too"


def evaluation_without_rows(data: Data) -> Iterator[Problem]:
    """Evaluation requires rows."""
    if evaluates(data) and "eval" not in data["dataset"]:
        message = NO_EVAL_ROWS
        yield Problem(("train", "eval_strategy"), message)


def unused_eval_rows(data: Data) -> Iterator[Problem]:
    """Rows that are held out but not evaluated on are lost."""
    if "eval" in data["dataset"] and not evaluates(data) and "evaluate" not in data:
        message = "these rows are not used; set 'eval_strategy: epoch' under 'train:', or add 'evaluate:'"
        yield Problem(("dataset", "eval"), message, severity="warning")


def eval_settings_without_evaluation(data: Data) -> Iterator[Problem]:
    """These settings do not enable evaluation themselves."""
    train = data["train"]
    for name in ("eval_steps", "eval_delay", "eval_on_start", "eval_packing"):
        if train.get(name) and not evaluates(data):
            message = f"only used with evaluation during training; {SET_EVAL_STRATEGY}"
            yield Problem(("train", name), message)
    if "eval_steps" in train and train.get("eval_strategy") == "epoch":
        message = "not used with 'eval_strategy: epoch'; set 'eval_strategy: steps' or remove it"
        yield Problem(("train", "eval_steps"), message)


def evaluation_after_the_end(data: Data) -> Iterator[Problem]:
    """An evaluation after the last step never happens."""
    train, steps = data["train"], most_steps(data)
    every = train.get("eval_steps", train["logging_steps"])
    if train.get("eval_strategy") == "steps" and steps and every > steps:
        name = "eval_steps" if "eval_steps" in train else "eval_strategy"
        message = (
            f"the run has at most {steps} steps, so it is never evaluated; use a smaller number, or '0.25'"
        )
        yield Problem(("train", name), message, severity="warning")


def best_without_evaluation(data: Data) -> Iterator[Problem]:
    """The best model is chosen by evaluation."""
    if evaluates(data):
        return
    for name in ("load_best_model_at_end", "early_stopping"):
        if data["train"].get(name) not in (None, False):
            message = f"requires evaluation during training; {SET_EVAL_STRATEGY}"
            yield Problem(("train", name), message)
    if data["train"]["save_strategy"] == "best":
        message = f"requires evaluation during training; {SET_EVAL_STRATEGY}"
        yield Problem(("train", "save_strategy"), message)


def best_model_not_saved(data: Data) -> Iterator[Problem]:
    """The best model must be saved when it is evaluated."""
    train = data["train"]
    if not train.get("load_best_model_at_end") or not evaluates(data) or train["save_strategy"] == "best":
        return
    evaluated, saved = train["eval_strategy"], train["save_strategy"]
    if evaluated != saved:
        message = f"eval_strategy is {quote(evaluated)} but save_strategy {quote(saved)}; use one for both"
        yield Problem(("train", "load_best_model_at_end"), message)
    elif evaluated == "steps":
        yield from _not_multiples(train)


def _not_multiples(train: Data) -> Iterator[Problem]:
    every: float = train.get("eval_steps") or train["logging_steps"]
    saves: float = train["save_steps"]
    times = saves / every
    if (every < 1) != (saves < 1) or times < 1 or not math.isclose(times, round(times), abs_tol=1e-9):
        message = f"must be a multiple of eval_steps, {spell(every)}, not {spell(saves)}; use {quote(every)}"
        yield Problem(("train", "save_steps"), message)


def best_without_metric(data: Data) -> Iterator[Problem]:
    """Upstream defaults to the loss only when the best model is loaded at the end."""
    train = data["train"]
    chosen = train.get("load_best_model_at_end") or "metric_for_best_model" in train
    if train["save_strategy"] == "best" and evaluates(data) and not chosen:
        message = "'best' requires a metric; set 'metric_for_best_model: loss' too"
        yield Problem(("train", "save_strategy"), message)


def early_stopping_without_best_model(data: Data) -> Iterator[Problem]:
    """Early stopping alone ends with the last model, which is not the best one."""
    train = data["train"]
    if "early_stopping" in train and evaluates(data) and not train.get("load_best_model_at_end"):
        message = "would keep the last model, not the best; set 'load_best_model_at_end: true' too"
        yield Problem(("train", "early_stopping"), message)


def wrong_metric_direction(data: Data) -> Iterator[Problem]:
    """A lower loss is better, and a higher accuracy."""
    train = data["train"]
    metric = train.get("metric_for_best_model", "loss")
    if "greater_is_better" in train and train["greater_is_better"] == metric.endswith("loss"):
        better = "false" if metric.endswith("loss") else "true"
        message = f"wrong for {quote(metric)}; use '{better}', or remove it"
        yield Problem(("train", "greater_is_better"), message)
