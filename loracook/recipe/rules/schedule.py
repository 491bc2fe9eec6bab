"""Rules for the length of a run and its learning rate schedule."""

from collections.abc import Iterator

from loracook.errors import Problem, quote
from loracook.recipe.derived import Data, evaluates, most_steps

COSINE = {"num_cycles"}
MIN_LR = {"num_cycles", "min_lr", "min_lr_rate"}
PLATEAU = {"factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps"}
GREEDY = PLATEAU | {"max_lr", "warmup", "smooth", "window_size", "reset_start"}
STABLE = {"num_decay_steps", "num_stable_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles"}
SETTINGS_OF = {
    "linear": set(),
    "cosine": COSINE,
    "cosine_with_restarts": COSINE,
    "polynomial": {"lr_end", "power"},
    "constant": set(),
    "constant_with_warmup": set(),
    "inverse_sqrt": {"timescale"},
    "reduce_lr_on_plateau": PLATEAU,
    "cosine_with_min_lr": MIN_LR,
    "cosine_warmup_with_min_lr": MIN_LR | {"warmup_lr_rate"},
    "warmup_stable_decay": STABLE,
    "greedy": GREEDY,
}
"""The settings that each schedule in transformers.optimization takes."""
NEED_EVAL_LOSS = ("reduce_lr_on_plateau", "greedy")


def stream_without_max_steps(data: Data) -> Iterator[Problem]:
    """The length of a stream, and so of an epoch, is unknown."""
    if data["dataset"].get("streaming") and "max_steps" not in data["train"]:
        message = "the length of a stream is unknown; set 'max_steps' under 'train:' too"
        yield Problem(("dataset", "streaming"), message)


def max_steps_with_epochs(data: Data) -> Iterator[Problem]:
    """Upstream lets max_steps silently override epochs."""
    train = data["train"]
    if "max_steps" in train and train["num_train_epochs"] != 1:
        message = "overridden by 'max_steps'; remove one of the two"
        yield Problem(("train", "num_train_epochs"), message, severity="warning")


def fractional_steps(data: Data) -> Iterator[Problem]:
    """Below 1 it is a share of the run, from 1 on a number of steps."""
    for name in ("warmup_steps", "logging_steps", "eval_steps", "save_steps"):
        value = data["train"].get(name, 1)
        if value > 1 and value != int(value):
            message = f"{quote(value)} is neither a share nor a number of steps; use '{round(value)}'"
            yield Problem(("train", name), message)


def warmup_longer_than_run(data: Data) -> Iterator[Problem]:
    """The learning rate would never reach its peak."""
    steps, warmup = most_steps(data), data["train"]["warmup_steps"]
    if steps is not None and warmup >= 1 and warmup >= steps:
        message = f"the run has at most {steps} steps, so warmup would not end; use a share such as '0.03'"
        yield Problem(("train", "warmup_steps"), message)


def settings_of_another_schedule(data: Data) -> Iterator[Problem]:
    """Upstream fails at a setting that the schedule does not take, or ignores it."""
    train = data["train"]
    schedule, settings = train["lr_scheduler_type"], train.get("lr_scheduler_kwargs", {})
    for name in settings:
        if name not in SETTINGS_OF[schedule]:
            others = [other for other, settings_of in SETTINGS_OF.items() if name in settings_of]
            fix = f"set {quote('lr_scheduler_type: ' + others[0])}, or remove it"
            yield Problem(("train", "lr_scheduler_kwargs", name), f"not used by {quote(schedule)}; {fix}")


def missing_schedule_settings(data: Data) -> Iterator[Problem]:
    """Some schedules require a setting."""
    train = data["train"]
    schedule, settings = train["lr_scheduler_type"], train.get("lr_scheduler_kwargs", {})
    path = ("train", "lr_scheduler_type")
    if schedule.endswith("with_min_lr") and not {"min_lr", "min_lr_rate"} & set(settings):
        message = f"{quote(schedule)} requires a minimum; set 'lr_scheduler_kwargs: {{min_lr_rate: 0.1}}'"
        yield Problem(path, message)
    if {"min_lr", "min_lr_rate"} <= set(settings):
        both = ("train", "lr_scheduler_kwargs", "min_lr_rate")
        yield Problem(both, "conflicts with 'min_lr'; remove one of the two")
    if schedule == "warmup_stable_decay" and "num_decay_steps" not in settings:
        message = f"{quote(schedule)} requires a decay; set 'lr_scheduler_kwargs: {{num_decay_steps: 100}}'"
        yield Problem(path, message)


def schedule_without_evaluation(data: Data) -> Iterator[Problem]:
    """These schedules depend on the evaluation loss."""
    train = data["train"]
    if train["lr_scheduler_type"] in NEED_EVAL_LOSS and not evaluates(data):
        message = (
            f"{quote(train['lr_scheduler_type'])} depends on the evaluation loss; "
            "set 'eval_strategy: steps' too"
        )
        yield Problem(("train", "lr_scheduler_type"), message)
