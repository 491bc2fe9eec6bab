"""The plan's sizes are those of the files that a run leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import loracook
from loracook.estimate.disk import SMALL
from tests.estimate.test_batches import recipe_file
from tests.plans import plan
from tests.tiny_models import write_twin

HEADERS = 8192
"""The most that names, shapes and a scheduler's state take beside tensors in these files."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")  # it is what is measured
@pytest.mark.parametrize(
    ("kind", "lora"),
    [("llama", {}), ("llama", {"modules_to_save": ["embed_tokens", "lm_head"]}), ("opt", {})],
)
def test_sizes_with_a_grown_vocabulary_are_foreseen(tmp_path: Path, kind: str, lora: dict[str, Any]) -> None:
    file, runs = recipe_file(tmp_path, {"max_steps": 2, "save_strategy": "steps"}), tmp_path / "runs"
    write_twin(tmp_path / "model", kind)
    recipe = json.loads(file.read_text("utf-8"))
    recipe |= {"tokenizer": {"extra_special_tokens": ["<|new|>"]}, "merge": {}, "lora": recipe["lora"] | lora}
    file.write_text(json.dumps(recipe), "utf-8")
    foreseen = plan(file)["disk"]
    loracook.run(loracook.load(file), runs)
    latest = runs / "shapes/latest"
    checkpoint = latest / "train/checkpoints/checkpoint-2"
    adapter, optimizer = _weights(latest / "train/adapter"), (checkpoint / "optimizer.pt").stat().st_size
    assert foreseen["adapter_bytes"] - SMALL == pytest.approx(adapter, abs=HEADERS)
    assert foreseen["checkpoint_bytes"] - SMALL == pytest.approx(
        _weights(checkpoint) + optimizer, abs=HEADERS
    )
    assert foreseen["merged_bytes"] == pytest.approx(_weights(latest / "merge/model"), abs=HEADERS)


def _weights(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
