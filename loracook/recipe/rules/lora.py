"""Rules for the lora section."""

from collections.abc import Iterator

from loracook.errors import Problem, quote
from loracook.recipe.derived import Data

EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")
HEADS = ("lm_head", "embed_out")
SCALES = (1 / 16, 16)


def all_linear_in_a_list(data: Data) -> Iterator[Problem]:
    """In a list, PEFT takes it for the name of a module."""
    targets = data.get("lora", {}).get("target_modules")
    if isinstance(targets, list) and "all-linear" in targets:
        path = ("lora", "target_modules", targets.index("all-linear"))
        yield Problem(path, "not a module name; set 'target_modules: all-linear' without a list")


def token_embeddings_trained_twice(data: Data) -> Iterator[Problem]:
    """Embeddings are trained in full, adapted, or trained for some tokens."""
    lora = data.get("lora", {})
    if "trainable_token_indices" not in lora:
        return
    for key in ("target_modules", "modules_to_save"):
        names = lora.get(key)
        for index, name in enumerate(names if isinstance(names, list) else ()):
            if name.rpartition(".")[2] in EMBEDDINGS:
                message = "conflicts with 'trainable_token_indices'; remove one of the two"
                yield Problem(("lora", key, index), message)


def unquantized_weights_only(data: Data) -> Iterator[Problem]:
    """These adapters require weights that are not quantized."""
    for name in ("target_parameters", "use_bdlora"):
        if name in data.get("lora", {}) and "quantization" in data:
            message = "does not support quantized weights; remove it, or remove 'quantization:'"
            yield Problem(("lora", name), message)


def bdlora_without_targets(data: Data) -> Iterator[Problem]:
    """BD-LoRA refuses every target that is in neither of its lists."""
    blocks = data.get("lora", {}).get("use_bdlora")
    if blocks is not None and not {"target_modules_bd_a", "target_modules_bd_b"} & set(blocks):
        message = "has no targets; add 'target_modules_bd_a' and 'target_modules_bd_b', or remove it"
        yield Problem(("lora", "use_bdlora"), message)


def lm_head_as_target(data: Data) -> Iterator[Problem]:
    """SFTTrainer computes the loss from the weight of the LM head, bypassing an adapter on it."""
    targets = data.get("lora", {}).get("target_modules")
    for index, name in enumerate(targets if isinstance(targets, list) else ()):
        if name.rpartition(".")[2] in HEADS:
            message = f"an adapter on {quote(name)} is not trained; remove it, or use 'modules_to_save'"
            yield Problem(("lora", "target_modules", index), message)


def conflicting_targets(data: Data) -> Iterator[Problem]:
    """A module is adapted, trained in full, or neither."""
    lora = data.get("lora", {})
    targets = lora.get("target_modules")
    for other, meaning in (("exclude_modules", "excluded"), ("modules_to_save", "trained in full")):
        for index, name in enumerate(lora.get(other, ())):
            if isinstance(targets, list) and name in targets:
                message = f"{quote(name)} is in 'target_modules' but {meaning} here; remove one of the two"
                yield Problem(("lora", other, index), message)


def layers_with_all_linear(data: Data) -> Iterator[Problem]:
    """PEFT selects layers only where the targets are a list of names."""
    lora = data.get("lora", {})
    for name in ("layers_to_transform", "layers_pattern"):
        if name in lora and lora.get("target_modules") == "all-linear":
            yield Problem(("lora", name), "requires module names; set 'target_modules' to a list")


def layers_pattern_without_layers(data: Data) -> Iterator[Problem]:
    """PEFT uses the pattern only to find the selected layers."""
    lora = data.get("lora", {})
    if "layers_pattern" in lora and "layers_to_transform" not in lora:
        message = "only used with 'layers_to_transform'; set that too, or remove it"
        yield Problem(("lora", "layers_pattern"), message)


def target_parameters_conflicts(data: Data) -> Iterator[Problem]:
    """An adapter on a bare parameter supports neither dropout, nor a bias, nor DoRA."""
    lora = data.get("lora", {})
    if "target_parameters" not in lora:
        return
    for name in ("lora_dropout", "use_dora", "lora_bias", "fan_in_fan_out", "velora_config"):
        if lora.get(name):
            yield Problem(("lora", name), "conflicts with 'target_parameters'; remove one of the two")


def several_lora_variants(data: Data) -> Iterator[Problem]:
    """PEFT supports one LoRA variant per layer."""
    lora = data.get("lora", {})
    variants = [
        name for name in ("use_dora", "velora_config", "use_bdlora") if lora.get(name) not in (None, False)
    ]
    for name in variants[1:]:
        yield Problem(("lora", name), f"conflicts with '{variants[0]}'; remove one of the two")


def lora_bias_conflicts(data: Data) -> Iterator[Problem]:
    """A bias in the adapter requires the default initialization and excludes DoRA."""
    lora = data.get("lora", {})
    if not lora.get("lora_bias"):
        return
    if lora.get("use_dora"):
        yield Problem(("lora", "lora_bias"), "conflicts with 'use_dora'; remove one of the two")
    if isinstance(lora.get("init_lora_weights"), str):
        message = "conflicts with 'lora_bias'; use 'true', or remove one of the two"
        yield Problem(("lora", "init_lora_weights"), message)


def base_bias_with_evaluate(data: Data) -> Iterator[Problem]:
    """PEFT keeps trained biases in the base model when the adapter is disabled."""
    for name in ("evaluate", "lm_eval"):
        if data.get("lora", {}).get("bias", "none") != "none" and name in data:
            message = (
                f"the base model would answer with trained biases; set 'bias: none', or remove '{name}:'"
            )
            yield Problem(("lora", "bias"), message)


def initialization_of_quantized(data: Data) -> Iterator[Problem]:
    """These initializations change or decompose the base weights, which must not be quantized."""
    init = data.get("lora", {}).get("init_lora_weights")
    if "quantization" in data and init in ("mica", "orthogonal"):
        message = f"{quote(init)} does not support quantized weights; use 'true' or 'gaussian'"
        yield Problem(("lora", "init_lora_weights"), message)


def odd_rank_orthogonal(data: Data) -> Iterator[Problem]:
    """The orthogonal initialization splits the rank into two halves."""
    lora = data.get("lora", {})
    ranks = {("lora", "r"): lora.get("r", 2)} | {
        ("lora", "rank_pattern", name): rank for name, rank in lora.get("rank_pattern", {}).items()
    }
    for path, rank in ranks.items():
        if lora.get("init_lora_weights") == "orthogonal" and rank % 2:
            yield Problem(path, f"the 'orthogonal' initialization requires an even rank; use '{rank + 1}'")


def unusual_scaling(data: Data) -> Iterator[Problem]:
    """A scaling far from 1 makes training unstable, or too slow to matter."""
    lora = data.get("lora")
    if lora is None:
        return
    scale = lora["lora_alpha"] / (lora["r"] ** 0.5 if lora.get("use_rslora") else lora["r"])
    if not SCALES[0] <= scale <= SCALES[1]:
        usual = round(2 * lora["r"] ** 0.5) if lora.get("use_rslora") else 2 * lora["r"]
        message = f"a scaling of {scale:.3g} is unusual; use a value such as '{usual}'"
        yield Problem(("lora", "lora_alpha"), message, severity="warning")
