"""Preparing 100,000 chat rows: loracook, statistics included, against TRL's own preparation of the same rows.

Each side runs in a process of its own with empty caches; loracook a second time with its cache, and once for
a run of 20 steps, which trains a part of the rows.

    python benchmarks/data_preparation.py [--rows 100000] [--data FOLDER]

`--data` names a folder with gsm8k_train.jsonl, fastchat_dummy_conversation.jsonl and oasst_en_100_tree.jsonl
to make the rows from; without it they are made of words drawn by a fixed seed.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loracook.data.read.files import records
from loracook.data.read.formats import ReadOptions, rows
from loracook.data.read.rows import Chat, Pair
from loracook.progress import Silent

MAX_LENGTH = 1024
STEPS = 20
SHORT = f"loracook, max_steps: {STEPS}"
SYSTEM = "You answer questions in a kitchen."


def conversations(data: Path | None) -> list[list[dict[str, str]]]:
    """Different chats to make the rows from."""
    return list(_drawn() if data is None else _read(data))


def _drawn() -> Iterator[list[dict[str, str]]]:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(20_000)]
    for _ in range(5000):
        turns = draw.choice((2, 2, 2, 4, 6))
        roles = ("user", "assistant")
        yield [
            {"role": roles[n % 2], "content": " ".join(draw.choices(words, k=draw.randint(10, 120))) + "."}
            for n in range(turns)
        ]


def _read(folder: Path) -> Iterator[list[dict[str, str]]]:
    shapes = {
        "gsm8k_train.jsonl": ReadOptions(
            "prompt_completion", columns={"prompt": "question", "completion": "answer"}
        ),
        "fastchat_dummy_conversation.jsonl": ReadOptions("sharegpt"),
        "oasst_en_100_tree.jsonl": ReadOptions("oasst"),
    }
    for name, shape in shapes.items():
        for record in records(folder / name, name):
            for row in rows(record.columns, shape):
                if isinstance(row, Chat):
                    yield list(row.messages)
                elif isinstance(row, Pair):
                    yield [
                        {"role": "user", "content": row.prompt},
                        {"role": "assistant", "content": row.completion},
                    ]


def write_job(folder: Path, count: int, data: Path | None) -> None:
    """Write the rows, a tokenizer trained on them and the recipe."""
    chats = conversations(data)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            first, *others = chats[number % len(chats)]
            asked = {"role": "user", "content": f"{number}. {first['content']}"}
            messages = [{"role": "system", "content": SYSTEM}, asked, *others]
            file.write(json.dumps({"messages": messages}) + "\n")
    _write_tokenizer(folder / "tokenizer", [turn["content"] for chat in chats for turn in chat])
    recipe: dict[str, Any] = {
        "version": 1,
        "base_model": {"name_or_path": "./tokenizer"},
        "dataset": {"path": "./rows.jsonl", "format": "messages", "shuffle": False},
        "template": {"chat_template": "chatml", "loss": "assistant"},
        "lora": {"r": 8},
        "train": {"max_length": MAX_LENGTH},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))


def _write_tokenizer(folder: Path, texts: list[str]) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|im_end|>", "<|im_start|>"]
    trainer = trainers.BpeTrainer(vocab_size=16_000, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>").save_pretrained(folder)


def by_loracook(folder: Path) -> int:
    """Prepare the rows with loracook and give their number."""
    return _prepared(folder, "cache")


def by_loracook_for_a_short_run(folder: Path) -> int:
    """Prepare the rows that 20 steps train, and give their number."""
    return _prepared(folder, "part", "dataset.shuffle=true", f"train.max_steps={STEPS}")


def _prepared(folder: Path, cache: str, *changes: str) -> int:
    from transformers import AutoTokenizer

    from loracook.data import prepare, with_template
    from loracook.recipe.derived import first_rows
    from loracook.recipe.recipe import load

    recipe = load(folder / "recipe.yaml", changes)
    first = first_rows(dict(recipe.sections))
    tokenizer = with_template(recipe, AutoTokenizer.from_pretrained(folder / "tokenizer"))
    return len(prepare(recipe, tokenizer, folder / cache, progress=Silent(), first=first).train)


def by_trl(folder: Path) -> int:
    """Prepare the rows as SFTTrainer does and give their number."""
    from types import SimpleNamespace

    from datasets import load_dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    import loracook.data.tokenize.template

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.chat_template = (loracook.data.tokenize.template.OWN_TEMPLATES / "chatml.jinja").read_text()
    args = SFTConfig(
        output_dir=str(folder / "out"),
        max_length=MAX_LENGTH,
        assistant_only_loss=True,
        use_cpu=True,
        bf16=False,
        report_to="none",
    )
    rows = load_dataset(
        "json", data_files=str(folder / "rows.jsonl"), split="train", cache_dir=str(folder / "hf")
    )
    trainer = SimpleNamespace(
        _tokenizer=tokenizer, chat_template=None, completion_only_loss=False, _is_vlm=False
    )
    return len(SFTTrainer._prepare_dataset(trainer, rows, tokenizer, args, False, None, "train"))


SIDES: dict[str, Callable[[Path], int]] = {
    "loracook": by_loracook,
    SHORT: by_loracook_for_a_short_run,
    "TRL": by_trl,
}


def measured(side: str, folder: Path) -> dict[str, float]:
    """Seconds and peak memory of one side in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(result.stdout.strip().splitlines()[-1])
    return found


def run_side(side: str, folder: Path) -> None:
    """Run one side and print what it took."""
    import trl.trainer.sft_trainer  # noqa: F401  so that neither side pays for the import
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(folder / "tokenizer")  # imports half of transformers

    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    count = SIDES[side](folder)
    used, seconds = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - started
    processor = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    peak = used.ru_maxrss / 1024
    print(json.dumps({"rows": count, "seconds": seconds, "processor": processor, "peak_mb": peak}))


def main() -> None:
    """Make the job, run both sides and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.side:
        run_side(given.side, given.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        write_job(Path(name), given.rows, given.data)
        found = {
            "loracook, cold": measured("loracook", Path(name)),
            "loracook, cached": measured("loracook", Path(name)),
            SHORT: measured(SHORT, Path(name)),
            "TRL, cold": measured("TRL", Path(name)),
        }
    print("| side | rows | seconds | processor seconds | peak MB |\n|---|---:|---:|---:|---:|")
    for side, of in found.items():
        times = f"{of['seconds']:.1f} | {of['processor']:.1f}"
        print(f"| {side} | {of['rows']:.0f} | {times} | {of['peak_mb']:.0f} |")
    ratio = found["loracook, cold"]["seconds"] / found["TRL, cold"]["seconds"]
    print(f"\nloracook takes {ratio:.2f} of TRL's time")


if __name__ == "__main__":
    main()
