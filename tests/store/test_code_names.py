"""What is saved and published names no code that whoever loads it would run, unless the user allowed that code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loracook import runner
from loracook.errors import MachineError
from loracook.store.code_names import leave_out_code, names_code
from loracook.store.record import write_record
from loracook.store.release import release_files
from tests.records import record
from tests.tiny_recipes import twin

EVIL = {"AutoConfig": "evil/soup--soup.Config", "AutoModelForCausalLM": "soup.Model"}


def test_it_is_left_out_at_any_depth_and_all_else_stays(tmp_path: Path) -> None:
    settings = {"auto_map": EVIL, "vision": [{"auto_map": ["soup.Tokenizer", None], "r": 1}], "name": "süß"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "vocab.json").write_text('{"auto_map": 7}')
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "config.json").write_text(json.dumps(settings))
    leave_out_code(tmp_path, exclude=tmp_path / "checkpoints")
    assert json.loads((tmp_path / "config.json").read_text()) == {"vision": [{"r": 1}], "name": "süß"}
    assert (tmp_path / "vocab.json").read_text() == '{"auto_map": 7}'
    assert names_code(tmp_path / "checkpoints" / "config.json")


def test_what_a_base_model_names_is_in_no_file_of_a_result(tmp_path: Path) -> None:
    sections = {"dataset": {"eval": None}, "evaluate": None, "merge": {}, "train": {"max_steps": 1}}
    recipe = twin("quickstart", tmp_path, **sections)
    for name in ("config.json", "tokenizer_config.json"):
        file = tmp_path / "model" / name
        file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_map": EVIL}))
    runner.run(recipe, runs=tmp_path / "runs", cache=tmp_path / "cache")
    saved = [file for file in (tmp_path / "runs").rglob("*.json") if "checkpoints" not in file.parts]
    assert {"config.json", "tokenizer_config.json"} <= {file.name for file in saved}
    assert [file for file in saved if names_code(file)] == []


@pytest.mark.parametrize(("own_code", "published"), [(None, False), ("org/soup@" + "0" * 40, True)])
def test_a_result_that_names_code_is_published_where_the_user_allowed_it_alone(
    own_code: str | None, published: bool, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"auto_map": EVIL}))
    (tmp_path / "model" / "model.safetensors").touch()
    (tmp_path / "README.md").touch()
    files = {f"model/{name}": {"bytes": 0, "sha256": ""} for name in ("config.json", "model.safetensors")}
    write_record(tmp_path, record(files=files, own_code=own_code))
    if published:
        assert "config.json" in release_files(tmp_path, "model", tmp_path / "README.md").paths
    else:
        with pytest.raises(MachineError, match=r"config.json' names code \(auto_map\); remove the folder"):
            release_files(tmp_path, "model", tmp_path / "README.md")
