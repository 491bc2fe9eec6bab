"""Rules of the base model, its quantization and the adapter."""

from __future__ import annotations

from collections.abc import Iterator

from loracook.errors import Problem, quote
from loracook.recipe.derived import Data
from loracook.recipe.locations import is_local

EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")
HEADS = ("lm_head", "embed_out")
SCALES = (1 / 16, 16)
FOUR_BIT = (
    "bnb_4bit_compute_dtype",
    "bnb_4bit_quant_type",
    "bnb_4bit_use_double_quant",
    "bnb_4bit_quant_storage",
)
EIGHT_BIT = ("llm_int8_threshold", "llm_int8_has_fp16_weight")


def four_and_eight_bit(data: Data) -> Iterator[Problem]:
    """Weights are loaded in 4 bit or in 8 bit, not in both."""
    quantization = data.get("quantization", {})
    if quantization.get("load_in_4bit") and quantization.get("load_in_8bit"):
        path = ("quantization", "load_in_8bit")
        yield Problem(path, "conflicts with load_in_4bit; remove one of the two")


def nothing_quantized(data: Data) -> Iterator[Problem]:
    """Upstream silently ignores a section that quantizes nothing."""
    quantization = data.get("quantization")
    if quantization and not quantization.get("load_in_4bit") and not quantization.get("load_in_8bit"):
        message = "nothing is quantized; set 'load_in_4bit: true' or remove this section"
        yield Problem(("quantization",), message)


def other_width(data: Data) -> Iterator[Problem]:
    """Settings for 4 bit have no effect in 8 bit, and the other way round."""
    quantization = data.get("quantization", {})
    if quantization.get("load_in_4bit") == quantization.get("load_in_8bit"):
        return
    unread, bits = (EIGHT_BIT, 8) if quantization.get("load_in_4bit") else (FOUR_BIT, 4)
    for name in unread:
        if name in quantization:
            yield Problem(("quantization", name), f"has no effect without load_in_{bits}bit; remove it")


def slow_four_bit(data: Data) -> Iterator[Problem]:
    """Upstream computes 4-bit layers in float32 by default."""
    quantization = data.get("quantization", {})
    if quantization.get("load_in_4bit") and "bnb_4bit_compute_dtype" not in quantization:
        message = "4-bit layers would compute in float32; set 'bnb_4bit_compute_dtype: bfloat16'"
        yield Problem(("quantization",), message, severity="warning")


def wide_quantized(data: Data) -> Iterator[Problem]:
    """What is not quantized would take four bytes a weight."""
    if "quantization" in data and data["base_model"]["dtype"] == "float32":
        message = "float32 undoes part of what quantization saves; set 'bfloat16'"
        yield Problem(("base_model", "dtype"), message, severity="warning")


def flash_in_float32(data: Data) -> Iterator[Problem]:
    """Flash attention computes in half precision."""
    base = data["base_model"]
    if base.get("attn_implementation", "").startswith("flash_attention") and base["dtype"] == "float32":
        path = ("base_model", "attn_implementation")
        yield Problem(path, "flash attention does not support float32; set 'sdpa', or 'dtype: bfloat16'")


def revision_of_local_model(data: Data) -> Iterator[Problem]:
    """Files on this machine have no revisions."""
    base = data["base_model"]
    if base.get("revision", "main") != "main" and is_local(base):
        yield Problem(("base_model", "revision"), "has no effect on local files; remove it")


def all_linear_among_names(data: Data) -> Iterator[Problem]:
    """In a list, PEFT takes it for the name of a module."""
    targets = data.get("lora", {}).get("target_modules")
    if isinstance(targets, list) and "all-linear" in targets:
        path = ("lora", "target_modules", targets.index("all-linear"))
        yield Problem(path, "only works outside a list; write 'target_modules: all-linear'")


def tokens_trained_twice(data: Data) -> Iterator[Problem]:
    """Embeddings are fully trained, adapted, or trained for some tokens only."""
    lora = data.get("lora", {})
    if "trainable_token_indices" not in lora:
        return
    for key in ("target_modules", "modules_to_save"):
        names = lora.get(key)
        for index, name in enumerate(names if isinstance(names, list) else ()):
            if name.rpartition(".")[2] in EMBEDDINGS:
                message = "conflicts with trainable_token_indices; remove one of the two"
                yield Problem(("lora", key, index), message)


def plain_weights_alone(data: Data) -> Iterator[Problem]:
    """These adapters require weights that are not quantized."""
    for name in ("target_parameters", "use_bdlora"):
        if name in data.get("lora", {}) and "quantization" in data:
            message = "does not support quantized weights; remove it, or remove 'quantization:'"
            yield Problem(("lora", name), message)


def blocks_without_targets(data: Data) -> Iterator[Problem]:
    """BD-LoRA rejects every target that neither of its lists names."""
    blocks = data.get("lora", {}).get("use_bdlora")
    if blocks is not None and not {"target_modules_bd_a", "target_modules_bd_b"} & set(blocks):
        message = "has no targets; set target_modules_bd_a and target_modules_bd_b, or remove it"
        yield Problem(("lora", "use_bdlora"), message)


def head_among_targets(data: Data) -> Iterator[Problem]:
    """SFTTrainer computes the loss from the head's own weight and bypasses an adapter on it."""
    targets = data.get("lora", {}).get("target_modules")
    for index, name in enumerate(targets if isinstance(targets, list) else ()):
        if name.rpartition(".")[2] in HEADS:
            message = (
                f"an adapter on {quote(name)} would never be trained; remove it, or add it to modules_to_save"
            )
            yield Problem(("lora", "target_modules", index), message)


def target_left_out(data: Data) -> Iterator[Problem]:
    """A module is adapted, fully trained, or excluded."""
    lora = data.get("lora", {})
    targets = lora.get("target_modules")
    for other, meaning in (("exclude_modules", "excluded"), ("modules_to_save", "fully trained")):
        for index, name in enumerate(lora.get(other, ())):
            if isinstance(targets, list) and name in targets:
                message = f"{quote(name)} is in target_modules and {meaning} here; remove one of the two"
                yield Problem(("lora", other, index), message)


def layers_of_all_linear(data: Data) -> Iterator[Problem]:
    """PEFT selects layers only where the targets are a list of names."""
    lora = data.get("lora", {})
    for name in ("layers_to_transform", "layers_pattern"):
        if name in lora and lora.get("target_modules") == "all-linear":
            yield Problem(("lora", name), "requires target_modules as a list of names; write one")


def pattern_without_layers(data: Data) -> Iterator[Problem]:
    """PEFT uses the pattern only to find the layers of layers_to_transform."""
    lora = data.get("lora", {})
    if "layers_pattern" in lora and "layers_to_transform" not in lora:
        message = "requires layers_to_transform; set it too, or remove this"
        yield Problem(("lora", "layers_pattern"), message)


def parameters_alone(data: Data) -> Iterator[Problem]:
    """An adapter on a bare parameter has no dropout, bias or magnitude."""
    lora = data.get("lora", {})
    if "target_parameters" not in lora:
        return
    for name in ("lora_dropout", "use_dora", "lora_bias", "fan_in_fan_out", "velora_config"):
        if lora.get(name):
            yield Problem(("lora", name), "conflicts with target_parameters; remove one of the two")


def variants_together(data: Data) -> Iterator[Problem]:
    """A layer has one variant of LoRA."""
    lora = data.get("lora", {})
    asked = [
        name for name in ("use_dora", "velora_config", "use_bdlora") if lora.get(name) not in (None, False)
    ]
    for name in asked[1:]:
        yield Problem(("lora", name), f"conflicts with '{asked[0]}'; remove one of the two")


def bias_in_the_adapter(data: Data) -> Iterator[Problem]:
    """A bias in the adapter requires the default initialization, and no DoRA."""
    lora = data.get("lora", {})
    if not lora.get("lora_bias"):
        return
    if lora.get("use_dora"):
        yield Problem(("lora", "lora_bias"), "conflicts with use_dora; remove one of the two")
    if isinstance(lora.get("init_lora_weights"), str):
        message = "conflicts with lora_bias; remove one of the two, or set 'init_lora_weights: true'"
        yield Problem(("lora", "init_lora_weights"), message)


def biases_of_the_base(data: Data) -> Iterator[Problem]:
    """PEFT leaves trained biases in the base model when the adapter is disabled."""
    if data.get("lora", {}).get("bias", "none") != "none" and "evaluate" in data:
        message = "would change the base model's answers in the evaluation; set 'none', or remove 'evaluate:'"
        yield Problem(("lora", "bias"), message)


def start_of_quantized(data: Data) -> Iterator[Problem]:
    """These initializations change or decompose the base weights, which must not be quantized for that."""
    start = data.get("lora", {}).get("init_lora_weights")
    if "quantization" in data and start in ("mica", "orthogonal"):
        message = f"{quote(start)} does not support quantized weights; set 'true' or 'gaussian'"
        yield Problem(("lora", "init_lora_weights"), message)


def odd_orthogonal(data: Data) -> Iterator[Problem]:
    """The orthogonal initialization splits the rank in two halves."""
    lora = data.get("lora", {})
    ranks = {("lora", "r"): lora.get("r", 2)} | {
        ("lora", "rank_pattern", name): rank for name, rank in lora.get("rank_pattern", {}).items()
    }
    for path, rank in ranks.items():
        if lora.get("init_lora_weights") == "orthogonal" and rank % 2:
            yield Problem(path, f"init_lora_weights: orthogonal requires an even rank; set '{rank + 1}'")


def far_scale(data: Data) -> Iterator[Problem]:
    """A scale far from 1 makes training unstable, or leaves the adapter untrained."""
    lora = data.get("lora")
    if lora is None:
        return
    scale = lora["lora_alpha"] / (lora["r"] ** 0.5 if lora.get("use_rslora") else lora["r"])
    if not SCALES[0] <= scale <= SCALES[1]:
        usual = round(2 * lora["r"] ** 0.5) if lora.get("use_rslora") else 2 * lora["r"]
        message = f"scales the adapter by {scale:.3g}, which is unusual; set a value such as '{usual}'"
        yield Problem(("lora", "lora_alpha"), message, severity="warning")
