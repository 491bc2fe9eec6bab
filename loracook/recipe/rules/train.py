"""Rules of precision, batches and the optimizer."""

from __future__ import annotations

from collections.abc import Iterator

from loracook.errors import Problem, quote
from loracook.recipe.derived import Data, batch, most_rows

PRECISIONS = (("bf16", "fp16"), ("bf16_full_eval", "fp16_full_eval"))
ADAM = ("adam_beta1", "adam_beta2", "adam_epsilon")
WITHOUT_ADAM = ("adafactor", "sgd", "adagrad", "rmsprop", "lion", "paged_lion", "schedule_free_sgd")
RATES = (1e-6, 1e-2)
TRACKED = ("wandb", "trackio", "mlflow")


def two_precisions(data: Data) -> Iterator[Problem]:
    """Mixed precision uses one dtype."""
    for first, second in PRECISIONS:
        if data["train"].get(first) and data["train"].get(second):
            yield Problem(("train", second), f"conflicts with '{first}'; remove one of the two")


def float16_all_over(data: Data) -> Iterator[Problem]:
    """Gradients of float16 weights cannot be unscaled; those of LoRA itself are kept in float32."""
    whole = data["lora"].get("modules_to_save")
    if data["train"].get("fp16") and data["base_model"]["dtype"] == "float16" and whole:
        message = "would train modules_to_save in float16 weights; set 'bf16: true' or 'dtype: float32'"
        yield Problem(("train", "fp16"), message)


def padding_free_alone(data: Data) -> Iterator[Problem]:
    """Padding-free batches without packing ignore max_length."""
    train = data["train"]
    if train.get("padding_free") and not train.get("packing"):
        message = "max_length would not apply without packing; set 'packing: true' or remove this"
        yield Problem(("train", "padding_free"), message)


def packing_alone(data: Data) -> Iterator[Problem]:
    """Packing settings have no effect where rows are not packed."""
    train = data["train"]
    if "packing_strategy" in train and not train.get("packing") and not train.get("eval_packing"):
        message = "requires packing; set 'packing: true' or remove this"
        yield Problem(("train", "packing_strategy"), message)


def wrapped_without_padding(data: Data) -> Iterator[Problem]:
    """Wrapped rows are cut anywhere, so sequences are not isolated from each other."""
    train = data["train"]
    if train.get("packing_strategy") == "wrapped" and train.get("padding_free"):
        message = "'wrapped' sequences attend to each other in padding-free batches; set 'bfd'"
        yield Problem(("train", "packing_strategy"), message, severity="warning")


def grouped_and_packed(data: Data) -> Iterator[Problem]:
    """Packed rows have similar lengths."""
    train = data["train"]
    if train.get("packing") and train.get("train_sampling_strategy") == "group_by_length":
        message = "has little effect on packed rows, which have similar lengths; remove it"
        yield Problem(("train", "train_sampling_strategy"), message, severity="warning")


def sampling_of_a_stream(data: Data) -> Iterator[Problem]:
    """The rows of a stream cannot be reordered by length."""
    asked = data["train"].get("train_sampling_strategy", "random")
    if data["dataset"].get("streaming") and asked not in ("random", "sequential"):
        message = f"{quote(asked)} requires all rows at once; remove it or 'streaming: true'"
        yield Problem(("train", "train_sampling_strategy"), message)


def checkpointing_alone(data: Data) -> Iterator[Problem]:
    """Settings of activation checkpointing require it."""
    train = data["train"]
    if not train["activation_checkpointing"] and "activation_checkpointing_kwargs" in train:
        message = "requires activation_checkpointing; set 'activation_checkpointing: true' or remove this"
        yield Problem(("train", "activation_checkpointing_kwargs"), message)


def selective_and_reentrant(data: Data) -> Iterator[Problem]:
    """Only non-reentrant checkpointing can be selective."""
    settings = data["train"].get("activation_checkpointing_kwargs", {})
    if settings.get("selective") and settings.get("use_reentrant"):
        path = ("train", "activation_checkpointing_kwargs", "use_reentrant")
        yield Problem(path, "conflicts with 'selective: true'; set 'false' or remove it")


def workers_that_are_not(data: Data) -> Iterator[Problem]:
    """Settings of worker processes require some."""
    train = data["train"]
    if train.get("dataloader_num_workers"):
        return
    for name in (
        "dataloader_prefetch_factor",
        "dataloader_persistent_workers",
        "dataloader_multiprocessing_context",
    ):
        if train.get(name):
            message = "requires worker processes; set 'dataloader_num_workers: 2' too"
            yield Problem(("train", name), message)


def compile_alone(data: Data) -> Iterator[Problem]:
    """Upstream enables compilation when one of these is set."""
    train = data["train"]
    for name in ("torch_compile_backend", "torch_compile_mode"):
        if name in train and not train.get("torch_compile"):
            message = "would enable torch_compile; set 'torch_compile: true' or remove this"
            yield Problem(("train", name), message)


def adam_without_adam(data: Data) -> Iterator[Problem]:
    """Only Adam optimizers use Adam's settings."""
    train = data["train"]
    optim = train.get("optim", "adamw_torch_fused")
    if optim.removesuffix("_8bit").removesuffix("_32bit").removesuffix("_bnb") not in WITHOUT_ADAM:
        return
    unread = ADAM[2:] if "lion" in optim else ADAM
    for name in unread:
        if name in train:
            yield Problem(("train", name), f"has no effect with the optimizer {quote(optim)}; remove it")


def free_of_schedules(data: Data) -> Iterator[Problem]:
    """Schedule-free optimizers average weights themselves and expect a constant learning rate."""
    train = data["train"]
    if train.get("optim", "").startswith("schedule_free") and not train["lr_scheduler_type"].startswith(
        "constant"
    ):
        message = (
            f"{quote(train['optim'])} requires no schedule; set 'lr_scheduler_type: constant_with_warmup'"
        )
        yield Problem(("train", "optim"), message, severity="warning")


def far_learning_rate(data: Data) -> Iterator[Problem]:
    """A learning rate far from the usual ones wastes the run."""
    rate = data["train"]["learning_rate"]
    if not RATES[0] <= rate <= RATES[1]:
        size = "large" if rate > RATES[1] else "small"
        message = f"{quote(rate)} is too {size} for most adapters; set a value such as '2e-4'"
        yield Problem(("train", "learning_rate"), message, severity="warning")


def batch_beyond_rows(data: Data) -> Iterator[Problem]:
    """An optimizer step should not need more rows than there are."""
    train, rows = data["train"], most_rows(data)
    needed = batch(data)
    if rows is not None and needed > rows and not train.get("packing"):
        message = f"the effective batch size is {needed}, but there are {rows} rows; set a smaller batch size"
        name = (
            "gradient_accumulation_steps"
            if "gradient_accumulation_steps" in train
            else "per_device_train_batch_size"
        )
        yield Problem(("train", name), message, severity="warning")


def reported_nowhere(data: Data) -> Iterator[Problem]:
    """'none' conflicts with any tracker."""
    asked = data["train"]["report_to"]
    if isinstance(asked, list) and "none" in asked and len(asked) > 1:
        path = ("train", "report_to", asked.index("none"))
        yield Problem(
            path, f"'none' conflicts with {quote(asked[asked[0] == 'none'])}; remove one of the two"
        )


def project_of_nobody(data: Data) -> Iterator[Problem]:
    """Only trackers use the project."""
    asked = data["train"]["report_to"]
    if "project" in data["train"] and not set(TRACKED) & set(asked if isinstance(asked, list) else [asked]):
        message = "has no effect without a tracker; set 'report_to: wandb', or remove it"
        yield Problem(("train", "project"), message, severity="warning")
