"""Rules for the train section: precision, batches, optimizer and trackers."""

from collections.abc import Iterator

from loracook.errors import Problem, quote
from loracook.recipe.derived import Data, batch, most_rows

PRECISIONS = (("bf16", "fp16"), ("bf16_full_eval", "fp16_full_eval"))
ADAM = ("adam_beta1", "adam_beta2", "adam_epsilon")
WITHOUT_ADAM = ("adafactor", "sgd", "adagrad", "rmsprop", "lion", "paged_lion", "schedule_free_sgd")
RATES = (1e-6, 1e-2)
TRACKED = ("wandb", "trackio", "mlflow")


def bf16_and_fp16(data: Data) -> Iterator[Problem]:
    """Only one kind of mixed precision can be used."""
    for first, second in PRECISIONS:
        if data["train"].get(first) and data["train"].get(second):
            yield Problem(("train", second), f"conflicts with '{first}'; remove one of the two")


def fp16_with_float16_weights(data: Data) -> Iterator[Problem]:
    """Gradients of float16 weights cannot be unscaled; LoRA's own weights are in float32."""
    whole = data["lora"].get("modules_to_save")
    if data["train"].get("fp16") and data["base_model"]["dtype"] == "float16" and whole:
        message = "'modules_to_save' cannot be trained in float16; set 'bf16: true' or 'dtype: float32'"
        yield Problem(("train", "fp16"), message)


def packing_strategy_without_packing(data: Data) -> Iterator[Problem]:
    """Packing settings are not used without packing."""
    train = data["train"]
    if "packing_strategy" in train and not train.get("packing") and not train.get("eval_packing"):
        message = "only used with packing; set 'packing: true' or remove this"
        yield Problem(("train", "packing_strategy"), message)


def wrapped_with_padding_free(data: Data) -> Iterator[Problem]:
    """The wrapped strategy cuts rows anywhere and does not mark where they begin."""
    train = data["train"]
    if train.get("packing_strategy") == "wrapped" and train.get("padding_free"):
        message = "packed sequences attend to each other with 'wrapped'; use 'bfd'"
        yield Problem(("train", "packing_strategy"), message, severity="warning")


def group_by_length_with_packing(data: Data) -> Iterator[Problem]:
    """Packed sequences all have about the same length."""
    train = data["train"]
    if train.get("packing") and train.get("train_sampling_strategy") == "group_by_length":
        message = "packed sequences all have about the same length; remove it"
        yield Problem(("train", "train_sampling_strategy"), message, severity="warning")


def sampling_strategy_of_a_stream(data: Data) -> Iterator[Problem]:
    """A stream is read in order."""
    strategy = data["train"].get("train_sampling_strategy", "random")
    if data["dataset"].get("streaming") and strategy not in ("random", "sequential"):
        message = f"{quote(strategy)} requires all rows at once; remove it or 'streaming: true'"
        yield Problem(("train", "train_sampling_strategy"), message)


def kwargs_without_activation_checkpointing(data: Data) -> Iterator[Problem]:
    """These settings are only used with activation checkpointing."""
    train = data["train"]
    if not train["activation_checkpointing"] and "activation_checkpointing_kwargs" in train:
        message = "requires 'activation_checkpointing: true'; set that too, or remove this"
        yield Problem(("train", "activation_checkpointing_kwargs"), message)


def selective_with_reentrant(data: Data) -> Iterator[Problem]:
    """Selective checkpointing requires the non-reentrant variant."""
    settings = data["train"].get("activation_checkpointing_kwargs", {})
    if settings.get("selective") and settings.get("use_reentrant"):
        path = ("train", "activation_checkpointing_kwargs", "use_reentrant")
        yield Problem(path, "conflicts with 'selective: true'; use 'false' or remove it")


def dataloader_settings_without_workers(data: Data) -> Iterator[Problem]:
    """These settings are only used with worker processes."""
    train = data["train"]
    if train.get("dataloader_num_workers"):
        return
    for name in (
        "dataloader_prefetch_factor",
        "dataloader_persistent_workers",
        "dataloader_multiprocessing_context",
    ):
        if train.get(name):
            message = "only used with worker processes; set 'dataloader_num_workers: 2' too, or remove it"
            yield Problem(("train", name), message)


def compile_settings_without_compile(data: Data) -> Iterator[Problem]:
    """Upstream enables compilation when one of these is set."""
    train = data["train"]
    for name in ("torch_compile_backend", "torch_compile_mode"):
        if name in train and not train.get("torch_compile"):
            message = "would enable compilation; set 'torch_compile: true' or remove this"
            yield Problem(("train", name), message)


def adam_settings_without_adam(data: Data) -> Iterator[Problem]:
    """Other optimizers do not use Adam's settings."""
    train = data["train"]
    optim = train.get("optim", "adamw_torch_fused")
    if optim.removesuffix("_8bit").removesuffix("_32bit").removesuffix("_bnb") not in WITHOUT_ADAM:
        return
    unused = ADAM[2:] if "lion" in optim else ADAM
    for name in unused:
        if name in train:
            yield Problem(("train", name), f"not used by the optimizer {quote(optim)}; remove it")


def schedule_free_with_schedule(data: Data) -> Iterator[Problem]:
    """Schedule-free optimizers do their own averaging and expect a constant learning rate."""
    train = data["train"]
    if train.get("optim", "").startswith("schedule_free") and not train["lr_scheduler_type"].startswith(
        "constant"
    ):
        message = f"{quote(train['optim'])} needs no schedule; set 'lr_scheduler_type: constant_with_warmup'"
        yield Problem(("train", "optim"), message, severity="warning")


def unusual_learning_rate(data: Data) -> Iterator[Problem]:
    """A learning rate far from the usual range wastes the run."""
    rate = data["train"]["learning_rate"]
    if not RATES[0] <= rate <= RATES[1]:
        size = "large" if rate > RATES[1] else "small"
        message = f"{quote(rate)} is far too {size} for most adapters; use a value such as '2e-4'"
        yield Problem(("train", "learning_rate"), message, severity="warning")


def batch_larger_than_data(data: Data) -> Iterator[Problem]:
    """The effective batch should not be larger than the data."""
    train, rows = data["train"], most_rows(data)
    needed = batch(data)
    if rows is not None and needed > rows and not train.get("packing"):
        message = f"the effective batch size {needed} is larger than the {rows} rows; use a smaller one"
        name = (
            "gradient_accumulation_steps"
            if "gradient_accumulation_steps" in train
            else "per_device_train_batch_size"
        )
        yield Problem(("train", name), message, severity="warning")


def report_to_none_and_tracker(data: Data) -> Iterator[Problem]:
    """'none' conflicts with any tracker."""
    trackers = data["train"]["report_to"]
    if isinstance(trackers, list) and "none" in trackers and len(trackers) > 1:
        path, other = ("train", "report_to", trackers.index("none")), trackers[trackers[0] == "none"]
        yield Problem(path, f"'none' conflicts with {quote(other)}; remove one of the two")


def project_without_tracker(data: Data) -> Iterator[Problem]:
    """Only a tracker uses the project."""
    report_to = data["train"]["report_to"]
    trackers = report_to if isinstance(report_to, list) else [report_to]
    if "project" in data["train"] and not set(TRACKED) & set(trackers):
        message = "only used with a tracker; set 'report_to: trackio', or remove it"
        yield Problem(("train", "project"), message, severity="warning")
