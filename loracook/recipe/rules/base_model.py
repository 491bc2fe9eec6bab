"""Rules for the base_model, tokenizer and quantization sections."""

from collections.abc import Iterator

from loracook.errors import Problem
from loracook.recipe.derived import Data, other_tokenizer
from loracook.recipe.locations import NOT_FOR_LOCAL_FILES, is_local

FOUR_BIT = (
    "bnb_4bit_compute_dtype",
    "bnb_4bit_quant_type",
    "bnb_4bit_use_double_quant",
    "bnb_4bit_quant_storage",
)
EIGHT_BIT = ("llm_int8_threshold", "llm_int8_has_fp16_weight")


def load_in_4bit_and_8bit(data: Data) -> Iterator[Problem]:
    """Weights are loaded in 4 bits or in 8 bits."""
    quantization = data.get("quantization", {})
    if quantization.get("load_in_4bit") and quantization.get("load_in_8bit"):
        path = ("quantization", "load_in_8bit")
        yield Problem(path, "conflicts with 'load_in_4bit'; remove one of the two")


def quantization_without_bits(data: Data) -> Iterator[Problem]:
    """Upstream would ignore a section that quantizes nothing."""
    quantization = data.get("quantization")
    if quantization and not quantization.get("load_in_4bit") and not quantization.get("load_in_8bit"):
        message = "nothing is quantized; set 'load_in_4bit: true' or remove the section"
        yield Problem(("quantization",), message)


def bit_width_mismatch(data: Data) -> Iterator[Problem]:
    """Upstream ignores the settings of the other bit width."""
    quantization = data.get("quantization", {})
    if quantization.get("load_in_4bit") == quantization.get("load_in_8bit"):
        return
    unread, bits = (EIGHT_BIT, 8) if quantization.get("load_in_4bit") else (FOUR_BIT, 4)
    for name in unread:
        if name in quantization:
            yield Problem(("quantization", name), f"only used with 'load_in_{bits}bit'; remove it")


def float32_compute_dtype(data: Data) -> Iterator[Problem]:
    """Upstream computes 4-bit layers in float32 by default."""
    quantization = data.get("quantization", {})
    if quantization.get("load_in_4bit") and "bnb_4bit_compute_dtype" not in quantization:
        message = "4-bit layers would compute in slow float32; set 'bnb_4bit_compute_dtype: bfloat16'"
        yield Problem(("quantization",), message, severity="warning")


def float32_with_quantization(data: Data) -> Iterator[Problem]:
    """Weights that are not quantized would take four bytes each."""
    if "quantization" in data and data["base_model"]["dtype"] == "float32":
        message = "float32 undoes part of the memory that quantization saves; use 'bfloat16'"
        yield Problem(("base_model", "dtype"), message, severity="warning")


def flash_attention_in_float32(data: Data) -> Iterator[Problem]:
    """Flash attention only supports half precision."""
    base = data["base_model"]
    if base.get("attn_implementation", "").startswith("flash_attention") and base["dtype"] == "float32":
        path = ("base_model", "attn_implementation")
        yield Problem(path, "flash attention does not support float32; use 'sdpa', or set 'dtype: bfloat16'")


def revision_of_local_model(data: Data) -> Iterator[Problem]:
    """Local files have no revisions."""
    base = data["base_model"]
    if base.get("revision", "main") != "main" and is_local(base):
        yield Problem(("base_model", "revision"), NOT_FOR_LOCAL_FILES)


def revision_without_tokenizer(data: Data) -> Iterator[Problem]:
    """Only a tokenizer on the hub has revisions."""
    if "revision" not in data.get("tokenizer", {}):
        return
    path = ("tokenizer", "revision")
    if other_tokenizer(data) is None:
        yield Problem(path, "only used with 'name_or_path'; set that too, or remove it")
    elif is_local(data["tokenizer"]):
        yield Problem(path, NOT_FOR_LOCAL_FILES)
