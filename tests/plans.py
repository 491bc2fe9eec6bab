"""Recipes on folders that hold nothing but a config.json, and their plans as JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from loracook.cli.plan import command

CONFIGS = Path(__file__).parent / "configs"


def config_recipe(folder: Path, config: str, lora: dict[str, Any], **sections: Any) -> Path:
    """A recipe of ten steps on the public model whose config.json lies in tests/configs."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(CONFIGS / config, folder / "model", dirs_exist_ok=True)
    usual = {"base_model": {"name_or_path": "./model"}, "train": {"max_steps": 10}}
    return written(folder, lora=lora, **{**usual, **sections})


def written(folder: Path, **sections: Any) -> Path:
    """A recipe file on three rows of text in a folder."""
    (folder / "rows.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n', "utf-8")
    recipe = {
        "version": 1,
        "name": "kitchen",
        "dataset": {"path": "./rows.jsonl", "format": "text"},
        **sections,
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe), "utf-8")
    return folder / "recipe.yaml"


def plan(*arguments: str | Path) -> dict[str, Any]:
    """What `loracook plan --format json` prints."""
    result = invoked(*arguments, "--format", "json")
    assert result.exception is None, result.exception
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def invoked(*arguments: str | Path) -> Result:
    """The outcome of `loracook plan`."""
    return CliRunner().invoke(command, [str(argument) for argument in arguments])
