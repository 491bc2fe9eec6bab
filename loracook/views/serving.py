"""What loads a result, in words and as commands to copy, from a plan or from records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from loracook.errors import clean
from loracook.model.serving import LLAMA_CPP, SGLANG, VLLM, Reason, Serving
from loracook.store.read_back import check_shape

SHAPE = [{"result": str, "server": str, "flags": [str], "reasons": [{"text": str, "source": str}]}]
"""What records say of serving."""
ORDINARY = "merged model: whatever loads its base model's kind; llama.cpp after convert_hf_to_gguf.py"


SGLANG_SERVE = "python -m sglang.launch_server --model-path"


@dataclass(frozen=True)
class Places:
    """Where base model and results are, each as words of a command, and the name of the run."""

    name: str
    base: str
    revision: str
    converter_base: str
    adapter: str
    merged: str


def serving_lines(servings: Sequence[Serving]) -> Iterator[str]:
    """What loads the adapter and how, then who does not and why, with what loads it once it is merged."""
    adapter = [each for each in servings if each.result == "adapter"]
    loading = [
        each.server + f" ({' '.join(each.flags)})" * bool(each.flags) for each in adapter if not each.reasons
    ]
    if adapter:
        yield f"adapter: {', '.join(loading)}"
    for each in adapter:
        if each.reasons:
            reasons = "; ".join(f"{reason.text} ({reason.source})" for reason in each.reasons)
            yield f"not {each.server}: it {reasons}"
    if len(loading) < len(adapter) or len(servings) > len(adapter):
        yield ORDINARY


def read_servings(results: Iterable[Mapping[str, Any]]) -> list[Serving]:
    """What the results of finished stages say, of before nothing; raises ValueError for another shape."""
    found = [each for result in results for each in result.get("serving", ())]
    check_shape(found, SHAPE)
    return [
        Serving(
            result=each["result"],
            server=each["server"],
            flags=tuple(each["flags"]),
            reasons=tuple(Reason(reason["text"], reason["source"]) for reason in each["reasons"]),
        )
        for each in found
    ]


def serve_commands(servings: Iterable[Serving], places: Places) -> Iterator[tuple[str, str]]:
    """What each server's command does, and the command, for what it loads."""
    for each in servings:
        command = COMMANDS.get((each.result, each.server))
        if command is not None and not each.reasons:
            what = "adapter" if each.result == "adapter" else "merged model"
            verb = "convert" if each.server == LLAMA_CPP else "serve"
            yield (
                f"{verb} the {what} with {each.server}",
                " ".join([command(places), *(quote(clean(flag)) for flag in each.flags)]),
            )


COMMANDS: dict[tuple[str, str], Callable[[Places], str]] = {
    ("adapter", VLLM): lambda at: f"vllm serve {at.base}{at.revision} --lora-modules {at.name}={at.adapter}",
    ("adapter", SGLANG): lambda at: (
        f"{SGLANG_SERVE} {at.base}{at.revision} --lora-paths {at.name}={at.adapter}"
    ),
    ("adapter", LLAMA_CPP): lambda at: f"python convert_lora_to_gguf.py {at.adapter} {at.converter_base}",
    ("merged", VLLM): lambda at: f"vllm serve {at.merged}",
    ("merged", SGLANG): lambda at: f"{SGLANG_SERVE} {at.merged}",
    ("merged", LLAMA_CPP): lambda at: f"python convert_hf_to_gguf.py {at.merged}",
}
"""The commands of each server's own documentation; transformers is a library."""
