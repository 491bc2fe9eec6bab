"""The same thirteen mistakes through `trl sft --config` and through `loracook validate`.

    python benchmarks/thirteen_mistakes.py

Prints a table in Markdown: for each mistake and tool whether it was refused, after how many seconds, and
whether the refusal names a line. A tiny random model and four rows stand in for a real job, so that what is
not refused trains.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

BIN = Path(sys.executable).parent
ROWS = [
    {"messages": [{"role": "user", "content": "two soups"}, {"role": "assistant", "content": "2 soup"}]}
] * 4
TRL = """\
model_name_or_path: {model}
datasets:
  - path: json
    data_files: {rows}
output_dir: {out}
use_peft: true
lora_r: 8
lora_alpha: 16
lora_dropout: 0.0
learning_rate: 2.0e-4
lr_scheduler_type: cosine
optim: adamw_torch
num_train_epochs: 1
chat_template_path: {template}
use_cpu: true
report_to: none
"""
OURS = """\
version: 1
name: mistakes
base_model:
  name_or_path: ./model
dataset:
  path: ./rows.jsonl
lora:
  r: 8
  lora_alpha: 16
  lora_dropout: 0.0
train:
  learning_rate: 2.0e-4
  lr_scheduler_type: cosine
  optim: adamw_torch
  num_train_epochs: 1
"""
BITS = "quantization:\n  {}: true\n  bnb_4bit_compute_dtype: bfloat16\n"


class Mistake(NamedTuple):
    """A mistake by what is replaced by what in the config of each tool; an empty text is put at the end."""

    name: str
    trl: tuple[str, str]
    ours: tuple[str, str]


def same(name: str, ours: str, trl: str, wrong: str) -> Mistake:
    """A wrong value of one key."""
    return Mistake(name, (f"{trl}: ", f"{trl}: {wrong} # "), (f"  {ours}: ", f"  {ours}: {wrong} # "))


FOUR, FIVE = BITS.format("load_in_4bit"), BITS.format("load_in_5bit")
LORA = "lora:\n  r: 8\n  lora_alpha: 16\n  lora_dropout: 0.0\n"
UNKNOWN, NESTED = "frobnicate: 3\n", "    frobnicate: 3\n"
MISTAKES = (
    Mistake("unknown key at the top", ("", UNKNOWN), ("", UNKNOWN)),
    Mistake(
        "unknown nested key",
        ("  - path: json\n", f"  - path: json\n{NESTED}"),
        ("lora:\n", f"lora:\n  {UNKNOWN}"),
    ),
    same("text for r", "r", "lora_r", "eight"),
    same("negative r", "r", "lora_r", "-8"),
    same("learning rate 50", "learning_rate", "learning_rate", "50"),
    same("dropout 3", "lora_dropout", "lora_dropout", "3"),
    same("misspelt scheduler", "lr_scheduler_type", "lr_scheduler_type", "cosin"),
    same("misspelt optimizer", "optim", "optim", "adamw_tourch"),
    same("negative epochs", "num_train_epochs", "num_train_epochs", "-1"),
    Mistake("a key given twice", ("", "learning_rate: 1.0e-4\n"), ("", "  learning_rate: 1.0e-4\n")),
    Mistake(
        "4 and 8 bit", ("", "load_in_4bit: true\nload_in_8bit: true\n"), ("", f"{FOUR}  load_in_8bit: true\n")
    ),
    Mistake("4 bit without adapter", ("use_peft: true\n", "load_in_4bit: true\n"), (LORA, FOUR)),
    Mistake("5 bit", ("", "load_in_5bit: true\n"), ("", FIVE)),
)


class Outcome(NamedTuple):
    """What a tool made of a config."""

    refused: bool
    seconds: float
    words: str

    def __str__(self) -> str:
        """The cells of a table: refused, seconds, position."""
        place = "line" if re.search(r"\.ya?ml:\d+:|line \d+, column", self.words) else "none"
        result = "refused" if self.refused else "accepted"
        return f"{result} | {self.seconds:.1f} | {place if self.refused else ''}"


def outcome(command: list[str], folder: Path) -> Outcome:
    """Run a tool in a folder, one thread, without a network."""
    began = time.perf_counter()
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return Outcome(ran.returncode != 0, time.perf_counter() - began, (ran.stdout + ran.stderr)[-3000:])


def changed(text: str, change: tuple[str, str]) -> str:
    """A config with a mistake in it."""
    old, new = change
    return text.replace(old, new, 1) if old else text + new


def prepared(folder: Path) -> None:
    """A tiny model, rows and a chat template that both tools can train on."""
    from tests.tiny_models import write_twin

    write_twin(folder / "model", "llama")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "chat.jinja").write_text(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    )


def main() -> None:
    """Run all mistakes through both tools, the config without any first."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared(folder)
        places = {"model": "./model", "rows": "./rows.jsonl", "out": "./out", "template": "./chat.jinja"}
        print("| mistake | trl sft | seconds | position | loracook | seconds | position |")
        print("|---|---|---:|---|---|---:|---|")
        for mistake in (Mistake("none", ("", ""), ("", "")), *MISTAKES):
            (folder / "trl.yaml").write_text(changed(TRL.format(**places), mistake.trl))
            (folder / "ours.yaml").write_text(changed(OURS, mistake.ours))
            theirs = outcome([str(BIN / "trl"), "sft", "--config", "trl.yaml"], folder)
            ours = outcome([str(BIN / "loracook"), "validate", "ours.yaml"], folder)
            print(f"| {mistake.name} | {theirs} | {ours} |", flush=True)


if __name__ == "__main__":
    main()
