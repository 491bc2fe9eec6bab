"""The plan in words, as a golden text."""

import re
from pathlib import Path

import pytest

from tests.plans import config_recipe, invoked

GOLDEN = Path(__file__).parent / "golden" / "plan.txt"
MACHINE = re.compile(r"[\d.,]+ [KMGT]iB free|/\S*/(?=model|runs|rows)|-[0-9a-f]{8}\b")
"""What differs from machine to machine: free disk, folders and digests."""


def test_the_plan_of_a_quantized_recipe_on_a_named_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sections = {"quantization": {"load_in_4bit": True}, "evaluate": {"prompts": ["Why?"]}, "merge": {}}
    lora = {"r": 64, "target_modules": "all-linear"}
    file = config_recipe(tmp_path, "meta-llama__Llama-2-7b-hf", lora, **sections)
    result = invoked(file, "--device", "T4")
    text = MACHINE.sub("…", result.stdout)
    assert text == GOLDEN.read_text("utf-8")
    assert result.exit_code == 0
