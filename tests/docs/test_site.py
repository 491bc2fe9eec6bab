"""The documentation site builds strictly: no page outside of the navigation, no broken link, no missing anchor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from loracook.recipe.schema import schema
from loracook.views.editor_schema import editor_schema
from tests.docs.texts import ROOT


def test_the_site_builds_strictly_and_serves_the_schema_under_its_id(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--quiet",
        "--strict",
        "--site-dir",
        tmp_path / "site",
    ]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    served = tmp_path / "site" / schema()["$id"].removeprefix("https://loracook.github.io/")
    assert json.loads(served.read_text("utf-8")) == editor_schema()
