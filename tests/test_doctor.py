"""`loracook doctor` says what is there, and what each lack means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from loracook.cli.doctor import command
from loracook.machine.doctor import findings, within


def test_every_part_of_the_stack_is_named_and_nothing_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canarycanarycanary")
    result = CliRunner().invoke(command, ["--format", "json", "--offline"])
    found = {finding["what"]: finding for finding in json.loads(result.stdout)}
    assert list(found) == [
        "python", "torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate", "gguf",
        "jinja2", "device", "precision", "attention", "quantization", "memory", "disk", "hub",
    ]  # fmt: skip
    assert found["hub"] == {
        "what": "hub",
        "found": "HF_HUB_OFFLINE is set",
        "means": "only models and data that are kept here can be used",
    }
    assert "canary" not in result.output


@pytest.mark.parametrize(
    ("found", "asked", "inside"),
    [
        ("1.16.0", ">=1.16,<2", True),
        ("2.0.1", ">=1.16,<2", False),
        ("1.9", ">=1.16", False),
        ("2.13.0+cpu", ">=2.6", True),
        ("5.0", "", True),
    ],
)
def test_versions_are_compared_by_number(found: str, asked: str, inside: bool) -> None:
    assert within(found, asked) is inside


def test_a_cache_that_cannot_be_written_is_found(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    (disk,) = (found for found in findings(tmp_path / "cache" / "below") if found.what == "disk")
    assert disk.means.startswith("nothing can be kept there; name a folder that can be written to: ")
