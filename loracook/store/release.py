"""What a push sends out: the files of a finished stage that belong to a model, and the card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from loracook.errors import MachineError
from loracook.store.files import sha256, write_whole
from loracook.store.record import read_record

CARD = "README.md"
CHAT_TEMPLATE = "chat_template.jinja"
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
MODEL = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-?????-of-?????.safetensors",
    "model.safetensors.index.json",
)
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    CHAT_TEMPLATE,
)
ALLOWED = (*ADAPTER, *MODEL, *TOKENIZER, CARD)
"""Every name that is ever sent out: no arguments, no optimizer state, no logs, nothing that lies about."""


@dataclass(frozen=True)
class Parcel:
    """The files that go out: under which name, where they lie, their sizes in bytes and SHA-256."""

    paths: Mapping[str, Path]
    facts: Mapping[str, Mapping[str, Any]]

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(fact["bytes"] for fact in self.facts.values())


def allowed(name: str) -> bool:
    """Whether a file of this name may be sent out."""
    return any(fnmatchcase(name, pattern) for pattern in ALLOWED)


def pack(stage: Path, folder: str, card: Path) -> Parcel:
    """The allowed files that a finished stage left in its `folder`, each as recorded, and the card.

    Raises:
        MachineError: there are no weights among them.
    """
    home = stage / folder
    facts = dict(sorted(_stated(read_record(stage), folder)))
    if not any(name.endswith(".safetensors") for name in facts):
        raise MachineError(f"'{home}' holds no weights to push; remove the folder '{stage}' and run again")
    facts[CARD] = {"bytes": card.stat().st_size, "sha256": sha256(card)}
    return Parcel({name: home / name for name in facts} | {CARD: card}, facts)


def write_card(text: str, folder: Path) -> Path:
    """The card as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CARD, text)
    return folder / CARD


def _stated(record: Mapping[str, Any], folder: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path, fact in record["files"].items():
        name = path.removeprefix(f"{folder}/")
        if name != path and allowed(name):
            yield name, fact
