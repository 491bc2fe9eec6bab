"""Answers to 64 prompts of mixed length: evaluate's batches, one by one, and continuous batching.

Everything runs in one process on one model (SmolLM2-135M of the quickstart), greedily and without an end
token, so that each answer has the same number of tokens. One by one is measured on every eighth prompt.

    python benchmarks/generation.py [--dtype bfloat16] [--tokens 48] [--sizes 8 16 32 64]
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import loracook
from loracook import model
from loracook.store.folders import default_cache

RECIPE = Path(__file__).parent.parent / "recipes" / "quickstart.yaml"
PROMPTS, SHORTEST, LONGEST = 64, 10, 200
FIRST, LAST = 1_000, 20_000
"""The token ids that prompts are drawn from."""

Answers = list[list[int]]


def main() -> None:
    """Print a table, a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--sizes", type=int, nargs="*", default=[8, 16, 32, 64])
    options = parser.parse_args()
    recipe = loracook.load(RECIPE)
    folder = model.fetch(recipe, default_cache())
    causal = model.load_model(recipe, folder, options.dtype).eval()
    tokenizer = model.load_tokenizer(recipe, folder)
    draw = random.Random(0)
    lengths = [draw.randint(SHORTEST, LONGEST) for _ in range(PROMPTS)]
    prompts = [[draw.randrange(FIRST, LAST) for _ in range(length)] for length in lengths]

    def in_batches(size: int, asked: Sequence[list[int]]) -> Answers:
        answers = model.generate(
            causal,
            tokenizer,
            asked,
            ends=[],
            settings={"max_new_tokens": options.tokens, "min_new_tokens": options.tokens},
            batch_size=size,
            seed=0,
            on_progress=lambda done: None,
        )
        return [answer.ids for answer in answers]

    in_batches(1, prompts[:1])  # warm
    alone, few = timed(lambda: in_batches(1, prompts[::8]))
    one_by_one = sum(map(len, few)) / alone
    print(f"one by one          {one_by_one:7.1f} tokens/s   1.0 times")
    for size in options.sizes:
        seconds, answers = timed(partial(in_batches, size, prompts))
        show(f"batches of {size}", seconds, answers, one_by_one=one_by_one)
        same = sum(ours == theirs for ours, theirs in zip(answers[::8], few, strict=True))
        print(f"    {same} of {len(few)} answers are those of one by one")
    seconds, answers = timed(lambda: continuously(causal, prompts, options.tokens))
    show("continuous batching", seconds, answers, one_by_one=one_by_one)


def continuously(causal: Any, prompts: Sequence[list[int]], tokens: int) -> Answers:
    """The answers by transformers' own continuous batching."""
    from transformers import GenerationConfig

    config = GenerationConfig(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, eos_token_id=-1)
    outputs = causal.generate_batch(inputs=list(prompts), generation_config=config)
    return [output.generated_tokens for output in outputs.values()]


def timed(work: Callable[[], Answers]) -> tuple[float, Answers]:
    """How many seconds work took, and what it gave."""
    start = time.perf_counter()
    answers = work()
    return time.perf_counter() - start, answers


def show(name: str, seconds: float, answers: Answers, *, one_by_one: float) -> None:
    """Print a line of the table."""
    speed = sum(map(len, answers)) / seconds
    print(f"{name:<20}{speed:7.1f} tokens/s   {speed / one_by_one:.1f} times", flush=True)


if __name__ == "__main__":
    main()
