"""The verb preview shows what the rows train, in three forms, without weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from loracook.cli import commands
from loracook.cli.endings import ending
from tests.data.samples import planted_flaws
from tests.tiny_models import write_twin
from tests.tiny_recipes import twin_file


def written(file: Path, *options: str) -> str:
    """What `loracook preview` prints."""
    result = CliRunner().invoke(commands, ["preview", str(file), *options], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_preview_shows_rows_and_statistics_without_weights(tmp_path: Path) -> None:
    file = twin_file("llama2-7b-8bit", tmp_path)
    (tmp_path / "model/model.safetensors").unlink()
    text = written(file, "--rows", "2")
    assert text.count("── row ") == 2
    assert "row 1 of shipped/data/kitchen-train.json" in text
    assert "  source 1: ./shipped/data/kitchen-train.json (alpaca), 60 rows\n" in text


def test_preview_writes_json_and_a_page(tmp_path: Path) -> None:
    file = twin_file("llama2-7b-8bit", tmp_path)
    shown = json.loads(written(file, "--format", "json", "--rows", "1", "--source", "1"))
    assert (len(shown["rows"]), shown["statistics"]["rows"]["train"]) == (1, 60)
    assert written(file, "--format", "html").startswith("<!doctype html>")


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        commands, ["preview", str(twin_file("llama2-7b-8bit", tmp_path)), "--source", "2"]
    )
    assert "there is no source 2; sources are numbered 1 to 1" in str(result.exception)


def test_rows_over_a_limit_end_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted_flaws(tmp_path)
    write_twin(tmp_path / "model", "llama")
    given = ["preview", str(tmp_path / "recipe.yaml"), "--set", "base_model.name_or_path=./model"]
    for kind in ("text", "json", "html"):
        assert ending(lambda: commands([*given, "--format", kind], standalone_mode=False)) == 2  # noqa: B023
    assert "dataset.limits.eval_leak" in capsys.readouterr().out
    flaws = ("truncated", "missing_eos", "fully_masked", "eval_leak")
    allowed = [option for flaw in flaws for option in ("--set", f"dataset.limits.{flaw}=1")]
    assert ending(lambda: commands([*given, *allowed], standalone_mode=False)) == 0
