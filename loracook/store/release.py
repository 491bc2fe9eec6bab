"""The files that a push publishes: a finished stage's weights, config and tokenizer, and the model card."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from loracook.errors import MachineError
from loracook.store.code_names import names_code
from loracook.store.files import sha256
from loracook.store.record import read_record

CARD = "README.md"
CHAT_TEMPLATE = "chat_template.jinja"
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
MODEL = (
    "config.json", "generation_config.json", "model.safetensors", "model-?????-of-?????.safetensors",
    "model.safetensors.index.json",
)  # fmt: skip
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model", CHAT_TEMPLATE,
)  # fmt: skip
ALLOWED = (*ADAPTER, *MODEL, *TOKENIZER, CARD)
"""The only file names that are ever published: no training arguments, optimizer state or logs."""


@dataclass(frozen=True)
class ReleaseFiles:
    """Files to publish by name: their local paths, and their sizes in bytes and SHA-256."""

    paths: Mapping[str, Path]
    facts: Mapping[str, Mapping[str, Any]]

    @property
    def bytes(self) -> int:
        """The total size of the files."""
        return sum(fact["bytes"] for fact in self.facts.values())


def allowed(name: str) -> bool:
    """Whether a file of this name may be published."""
    return any(fnmatchcase(name, pattern) for pattern in ALLOWED)


def release_files(stage: Path, folder: str, card: Path) -> ReleaseFiles:
    """The allowed files below `folder` of a finished stage, as its record states them, and the card.

    Raises:
        MachineError: there are no weights among them.
    """
    record = read_record(stage)
    home, recorded = stage / folder, record["files"]
    names = (path.removeprefix(f"{folder}/") for path in sorted(recorded) if path.startswith(f"{folder}/"))
    facts = {name: recorded[f"{folder}/{name}"] for name in names if allowed(name)}
    if not any(name.endswith(".safetensors") for name in facts):
        raise MachineError(f"no weights in '{home}' to push; remove the folder '{stage}' and run again")
    if not record.get("own_code") and (
        named := next((name for name in facts if names_code(home / name)), None)
    ):
        raise MachineError(
            f"'{home / named}' names code (auto_map); remove the folder '{stage}' and run again"
        )
    facts[CARD] = {"bytes": card.stat().st_size, "sha256": sha256(card)}
    return ReleaseFiles({name: home / name for name in facts} | {CARD: card}, facts)
