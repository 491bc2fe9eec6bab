"""A base model's own generation settings, without those that transformers refuses to load or to save."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import GenerationConfig

FILE = "generation_config.json"
DECIDING = ("do_sample", "num_beams", "use_cache", "return_dict_in_generate")
"""Settings that decide whether others are valid."""
VERSION = "transformers_version"
TOKENS = ("eos_token_id", "bos_token_id", "pad_token_id")


@dataclass(frozen=True)
class GenerationSettings:
    """The settings that are valid together, and those that are left out."""

    config: GenerationConfig
    left_out: Mapping[str, Any]

    @property
    def note(self) -> str:
        """What is left out of the merged model, in a sentence; empty for nothing."""
        settings = ", ".join(f"{key}={json.dumps(value)}" for key, value in self.left_out.items())
        return (
            f"the merged model's {FILE} leaves out what transformers refuses: {settings}" if settings else ""
        )


def generation_settings(folder: Path) -> GenerationSettings:
    """The generation settings of the base model in `folder`, read from where transformers reads them.

    A published file may hold sampling settings without sampling and the like, which transformers loads with a
    warning, and refuses to save once anything else in it was changed.
    """
    from transformers import GenerationConfig

    kept: dict[str, Any] = {}
    left_out = {}
    for key, value in sorted(_settings(folder).items(), key=lambda item: item[0] not in DECIDING):
        if _is_valid({**kept, key: value}):
            kept[key] = value
        else:
            left_out[key] = value
    return GenerationSettings(GenerationConfig(**kept), left_out)


@contextmanager
def own_settings_aside(causal: Any) -> Iterator[None]:
    """A model that generates by the settings it is given alone.

    transformers fills what they leave open from the base model's own, some of which change answers, and some
    of which it cannot generate with.
    """
    from peft import PeftModel
    from transformers import GenerationConfig

    base = causal.get_base_model() if isinstance(causal, PeftModel) else causal
    own, base.generation_config = base.generation_config, GenerationConfig()
    try:
        yield
    finally:
        base.generation_config = own


def _settings(folder: Path) -> dict[str, Any]:
    """What generation_config.json holds, or without a readable one, what older models keep in config.json."""
    from transformers import GenerationConfig

    known = GenerationConfig().to_dict()
    found, own = _mapping(folder / FILE), _mapping(folder / "config.json") or {}
    settings = {key: own[key] for key in known if own.get(key) is not None} if found is None else found
    return {key: value for key, value in settings.items() if key != VERSION and not key.startswith("_")}


def _mapping(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else {}


def _is_valid(settings: Mapping[str, Any]) -> bool:
    from transformers import GenerationConfig

    if not all(_are_ids(settings.get(key)) for key in TOKENS):
        return False
    try:
        GenerationConfig(**settings).validate(strict=True)
    except (ValueError, TypeError, AttributeError):
        return False
    return True


def _are_ids(value: Any) -> bool:
    ids = value if isinstance(value, list) else [value]
    return all(id_ is None or (type(id_) is int and id_ >= 0) for id_ in ids)
