"""Export: the merged model as one GGUF file for llama.cpp, and a Modelfile for Ollama beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook import model
from loracook.data.ollama import TemplateError, ollama_template
from loracook.errors import LoracookError, shorten
from loracook.machine.versions import installed
from loracook.model.gguf_check import check_rope, check_weights, load_exported
from loracook.model.gguf_export import (
    PACKAGE,
    check_converter,
    check_description,
    write_gguf,
)
from loracook.model.logits import agreement, logits_of
from loracook.progress import Progress
from loracook.recipe.recipe import Recipe
from loracook.stages.base import Consent, Folders
from loracook.store.files import write_atomic

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

READS: tuple[str, ...] = ("name", "export")
RESUMES = False
OUT_OF_MEMORY = "export on a machine with more memory: --only export"
MODELFILE, QUOTES = "Modelfile", '"""'
TOLERANCE = {"f16": 0.05, "bf16": 0.05, "q8_0": 0.15}
"""The largest difference of the exported model's logits from the merged model's, relative to their L2 norm.
Every single weight is compared as well, more closely."""


def after(recipe: Recipe) -> tuple[str, ...]:
    """An export needs the merged model."""
    return ("merge",)


def files(recipe: Recipe) -> tuple[Path, ...]:
    """Nothing local beyond what training read."""
    return ()


def describe(recipe: Recipe) -> str:
    """Say what is written, and in which precision."""
    return f"merged model to {_name(recipe)} for llama.cpp and Ollama"


def uploads_to(recipe: Recipe) -> str | None:
    """The file stays on this machine."""
    return None


def preflight(recipe: Recipe, consent: Consent) -> None:
    """Raise MachineError where the converter is not installed; the model is tried before training."""
    check_converter()


def accept(recipe: Recipe, folder: Path) -> None:
    """Nothing is required of it."""


def run(recipe: Recipe, folders: Folders, *, consent: Consent, progress: Progress) -> dict[str, Any]:
    """Write the GGUF file, load it with transformers and compare it with the merged model.

    Raises:
        LoracookError: the converter failed, or the file holds another model.
    """
    source, outtype = folders.before["merge"] / "model", recipe["export"]["outtype"]
    file, unfinished = folders.own / _name(recipe), folders.own / f"part-{_name(recipe)}"
    progress.advance(0, 3, "converting")
    base = model.fetch_description(recipe, folders.cache)
    try:
        write_gguf(source, base, unfinished, outtype=outtype, options=("--model-name", recipe.name))
        progress.advance(1, 3, "loading the exported model")
        tokenizer = model.saved_tokenizer(recipe, source)
        result = _compared(recipe, source, unfinished, tokenizer=tokenizer)
        unfinished.rename(file)
    finally:
        unfinished.unlink(missing_ok=True)
    progress.advance(3, 3, f"logits differ by {result['logits_difference']:.2%}")
    return {
        "file": file.name,
        "outtype": outtype,
        "converter": f"{PACKAGE} {installed(PACKAGE)}",
        **result,
        **_modelfile(recipe, folders.own, source, tokenizer=tokenizer, progress=progress),
    }


def _name(recipe: Recipe) -> str:
    return f"{recipe.name}-{recipe['export']['outtype']}.gguf"


def _compared(
    recipe: Recipe, source: Path, file: Path, *, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """How far the model in a GGUF file is from the merged one; raises LoracookError where it is another."""
    outtype = recipe["export"]["outtype"]
    merged: PreTrainedModel = model.load_merged(recipe, source, device_map="cpu")  # a GPU may hold but one
    check_description(file, merged.config, tokenizer)
    check_rope(file, merged)
    exported = load_exported(file, merged.config)
    largest = check_weights(merged, exported, outtype)
    texts = [model.tokenized(tokenizer, text).input_ids for text in model.PROBES]
    agreed = agreement(logits_of(merged, texts), logits_of(exported, texts))
    if not agreed.difference <= TOLERANCE[outtype]:
        raise LoracookError(
            f"the exported logits differ from the merged model's by {agreed.difference:.1%} of their norm, "
            f"more than the {TOLERANCE[outtype]:.0%} of rounding; write export.outtype: bf16"
        )
    return {
        "weights_difference": largest,
        "logits_difference": agreed.difference,
        "kl_divergence": agreed.kl_divergence,
        "same_token": agreed.same_token,
        "prompts": len(model.PROBES),
    }


def _modelfile(
    recipe: Recipe, folder: Path, source: Path, *, tokenizer: PreTrainedTokenizerBase, progress: Progress
) -> dict[str, Any]:
    """Write the Modelfile; what its template renders as training did, and what it leaves out."""
    template, rows, note = None, 0, ""
    try:
        template, rows, note = ollama_template(recipe, tokenizer)
    except TemplateError as error:
        note = f"the Modelfile has no TEMPLATE: {error}; use llama-server --jinja"
    if note:
        progress.note(note)
    texts = {"TEMPLATE": template, "SYSTEM": recipe["template"].get("system")}
    lines = [f"FROM ./{_name(recipe)}", *(_line(name, text) for name, text in texts.items() if text)]
    lines += [_line("PARAMETER stop", stop) for stop in _stops(recipe, source, tokenizer)]
    lines.append(f"PARAMETER num_ctx {recipe['train']['max_length']}")
    write_atomic(folder / MODELFILE, "\n".join(lines) + "\n")
    return {"modelfile": MODELFILE, "template_rows": rows, "modelfile_note": note}


def _line(instruction: str, text: str) -> str:
    """An instruction of a Modelfile, whose quotes cannot be escaped."""
    if QUOTES in text or text.endswith('"'):
        raise LoracookError(f"{shorten(text, 40)!r} cannot be quoted in a Modelfile; use other quotes")
    return f"{instruction} {QUOTES}{text}{QUOTES}"


def _stops(recipe: Recipe, source: Path, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What ends an answer: the end tokens that the merge has saved, and what evaluation stops at."""
    own = model.generation_settings(source).config.eos_token_id
    strings = recipe.sections.get("evaluate", {}).get("generation", {}).get("stop_strings", [])
    tokens = tokenizer.convert_ids_to_tokens(own if isinstance(own, list) else [own])
    return list(dict.fromkeys([*tokens, *([strings] if isinstance(strings, str) else strings)]))
