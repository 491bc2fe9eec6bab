"""What a tokenizer.json may ask for: by its description it could take hours or all memory for any text."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NUMBER = re.compile(rb'(?<!\\)"\s*:\s*(\d{8,})')
"""A number that no token's id has; tokenizers takes memory for every id below the largest, and may abort."""
LARGEST = 256 << 20
"""Bytes of the file; that of Gemma 3, whose vocabulary is among the largest, has 33 MB."""
MOST_BRACKETS = 1 << 22
MOST_ADDED = 100_000
"""Tokens beside the vocabulary, for which tokenizers takes a quarter of a second a thousand."""
SECTIONS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
MOST_TEXT, MOST_TABLE = 64 << 10, 4 << 20
"""Characters of a section, which are some hundreds, but for the table that sentencepiece normalizes by."""
MOST_STEPS, MOST_ENTRIES = 64, 128
"""Steps of a section, and special tokens that all its templates write; Whisper has some ten."""
MOST_GROWTH = 16
"""How many times its length a text may become before it is split, in the worst case."""
LONGEST_WRITTEN = 64
"""Bytes that a table writes for a character; Unicode has 33 for one."""
LONGEST_WORD, LONGEST_PIECE = 1000, 256
"""Characters of a word for WordPiece, and of a token for Unigram, which tries each at every place."""


def faults(file: Path) -> Iterator[str]:
    """What is wrong with the size of a tokenizer.json, or with what it does to a text; none without one."""
    if not file.is_file():
        return
    if file.stat().st_size > LARGEST:
        yield f"is larger than {LARGEST >> 20} MiB; name another model"
        return
    yield from faults_of(file.read_bytes())


def faults_of(content: bytes) -> Iterator[str]:
    """What is wrong with the content of a tokenizer.json, as `faults`."""
    if number := NUMBER.search(content):
        yield f"has the number {number[1].decode()}, too large for a token's id"[:150]
    if content.count(b"{") + content.count(b"[") > MOST_BRACKETS:
        yield f"has more than {MOST_BRACKETS:,} brackets; name another model"
        return
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):  # whoever loads it says so
        return
    for fault in _of_data(data) if isinstance(data, dict) else ():
        yield f"{fault}; name another model"


def _of_data(data: dict[str, Any]) -> Iterator[str]:
    added = data.get("added_tokens")
    if isinstance(added, list) and len(added) > MOST_ADDED:
        yield f"adds {len(added):,} tokens, and at most {MOST_ADDED:,} can be"
    growth = 1.0
    for name in SECTIONS:
        steps = list(_steps(data.get(name)))
        tables = [str(step.get("precompiled_charsmap", "")) for step in steps]
        longest = max(map(len, tables), default=0)
        if len(json.dumps(data.get(name))) - longest > MOST_TEXT or longest > MOST_TABLE:
            yield f"has a {name} of more than {MOST_TEXT >> 10} KiB"
        elif len(steps) > MOST_STEPS:
            yield f"has a {name} of {len(steps)} steps, and at most {MOST_STEPS} can be followed"
        elif name == "post_processor":
            yield from _templates(steps)
        else:
            own = math.prod(map(_growth, steps))
            growth = own if name == "decoder" else growth * own
            if growth > MOST_GROWTH:
                yield f"has a {name} that can make a text more than {MOST_GROWTH} times as long"
    yield from _of_model(data.get("model"))


def _of_model(model: Any) -> Iterator[str]:
    """What is wrong with the way in which words are split into tokens."""
    described = model if isinstance(model, dict) else {}
    word, pieces = described.get("max_input_chars_per_word"), described.get("vocab")
    for key, text in described.items():
        if isinstance(text, str) and len(text) > LONGEST_PIECE:
            yield f"has a {key} of {len(text):,} characters"
    if isinstance(word, int) and word > LONGEST_WORD:
        yield f"splits words of {word:,} characters, and at most {LONGEST_WORD:,} can be"
    if isinstance(pieces, list):
        texts = (str(piece[0]) for piece in pieces if isinstance(piece, list) and piece)
        if (longest := max(map(len, texts), default=0)) > LONGEST_PIECE:
            yield f"has a token of {longest:,} characters, and at most {LONGEST_PIECE} can be found in a text"


def _steps(section: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a section that says what kind of step it is, of any depth."""
    rest = [section]
    while rest:
        value = rest.pop()
        if isinstance(value, dict) and "type" in value:
            yield value
        rest += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _growth(step: dict[str, Any]) -> float:
    """How many times its length a step can make a text, about."""
    kind = step["type"]
    if kind == "Replace":
        pattern = step.get("pattern")
        text = pattern.get("String") if isinstance(pattern, dict) else None
        written = len(str(step.get("content", "")))  # an expression can match between any two characters
        return max(1.0, written / len(str(text))) if text else 1.0 + written
    if kind == "Prepend":
        return 1.0 + len(str(step.get("prepend", "")))
    if kind == "Precompiled":
        return 4.0 if _longest(str(step.get("precompiled_charsmap", ""))) <= LONGEST_WRITTEN else math.inf
    return 2.0 if kind == "ByteLevel" else 1.0


def _longest(table: str) -> int:
    """The most bytes that a sentencepiece table writes for a character: its texts end in null bytes."""
    try:
        content = base64.b64decode(table)
    except ValueError:  # whoever loads it says so
        return 0
    texts = content[4 + int.from_bytes(content[:4], "little") :]
    return max(map(len, texts.split(b"\0")))


def _templates(steps: list[dict[str, Any]]) -> Iterator[str]:
    """What is wrong with the special tokens that are written around a text."""
    lists = [written for step in steps for written in (step.get("single"), step.get("pair"))]
    entries = [
        [each for each in written if isinstance(each, dict)] for written in lists if isinstance(written, list)
    ]
    named = [step.get("special_tokens") for step in steps]
    tokens = [token for each in named if isinstance(each, dict) for token in each.values()]
    ids = [token.get("ids") for token in tokens if isinstance(token, dict)]
    count = sum(map(len, entries)) + sum(len(each) for each in ids if isinstance(each, list))
    if count > MOST_ENTRIES:
        yield f"writes {count:,} special tokens around a text, and at most {MOST_ENTRIES} can be"
    for written in entries:
        parts = [each["Sequence"] for each in written if isinstance(each.get("Sequence"), dict)]
        if len(parts) > len({str(part.get("id")) for part in parts}):
            yield "writes a text several times"
