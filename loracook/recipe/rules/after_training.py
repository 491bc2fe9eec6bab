"""Rules for the stages after evaluation: merge, export and push."""

import re
from collections.abc import Iterator

from loracook.errors import Problem
from loracook.recipe.derived import Data

HUB_KEYS = ("revision", "commit_message", "create_pr")
QUANTIZED = re.compile(
    r"[-_.](gptq|awq|aqlm|hqq|eetq|vptq|spqr|exl[23]|quanto|torchao)(?![a-z])", re.IGNORECASE
)
RUN_FOLDER_NAMES = re.compile(
    r"(train|evaluate|lm_eval|merge|export|push)-.*|latest|trainer|log\.txt|.*\.(part|old)", re.IGNORECASE
)


def merge_base_without_quantization(data: Data) -> Iterator[Problem]:
    """Only training on quantized weights leaves two sets of weights to merge into."""
    if data.get("merge", {}).get("base") == "original" and "quantization" not in data:
        message = "only used after training with 'quantization:'; remove it, or add that section"
        yield Problem(("merge", "base"), message)


def merge_of_weights_kept_in_16_bit(data: Data) -> Iterator[Problem]:
    """There is nothing to dequantize in weights that bitsandbytes keeps in float16."""
    kept = data.get("quantization", {}).get("llm_int8_has_fp16_weight")
    if kept and data.get("merge", {}).get("base") == "trained":
        message = (
            "weights trained with 'llm_int8_has_fp16_weight' are the original ones; set 'base: original'"
        )
        yield Problem(("merge",), message)


def merge_of_a_quantized_base(data: Data) -> Iterator[Problem]:
    """Names end in the method that weights are quantized with, and most of these cannot be merged."""
    named = QUANTIZED.search(data["base_model"]["name_or_path"])
    if named and "merge" in data:
        message = (
            f"weights quantized as {named[1].upper()} cannot be merged; "
            "name the unquantized base model, or push the adapter"
        )
        yield Problem(("merge",), message, severity="warning")


def export_without_merge(data: Data) -> Iterator[Problem]:
    """Only a merged model can be exported."""
    if "export" in data and "merge" not in data:
        yield Problem(("export",), "requires a merged model; add a 'merge:' section")


def push_without_destination(data: Data) -> Iterator[Problem]:
    """A push requires a destination."""
    push = data.get("push")
    if push is not None and "repo_id" not in push and "folder" not in push:
        yield Problem(("push",), "no destination; add 'repo_id: organization/name' or 'folder: name'")


def push_to_two_destinations(data: Data) -> Iterator[Problem]:
    """A push has one destination."""
    if {"repo_id", "folder"} <= data.get("push", {}).keys():
        yield Problem(("push", "folder"), "conflicts with 'repo_id'; remove one of the two")


def push_to_a_folder_of_loracook_s_own(data: Data) -> Iterator[Problem]:
    """A run folder has names that are taken, whatever a file system makes of capital letters."""
    if RUN_FOLDER_NAMES.fullmatch(data.get("push", {}).get("folder", "")):
        message = "a name that loracook itself uses in a run folder; use another, such as 'published'"
        yield Problem(("push", "folder"), message)


def push_merged_without_merge(data: Data) -> Iterator[Problem]:
    """Only a merged model can be pushed as one."""
    if data.get("push", {}).get("what") == "merged" and "merge" not in data:
        yield Problem(("push", "what"), "requires a merged model; add a 'merge:' section, or use 'adapter'")


def hub_keys_of_a_folder(data: Data) -> Iterator[Problem]:
    """A folder has neither branches nor commits."""
    push = data.get("push", {})
    for name in HUB_KEYS:
        if name in push and "folder" in push and "repo_id" not in push:
            yield Problem(("push", name), "not used for a folder; remove it, or push to a 'repo_id'")
