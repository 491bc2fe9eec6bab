"""`loracook doctor` says what is there, and what each lack means."""

from __future__ import annotations

import json
from importlib.metadata import requires
from pathlib import Path

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement

from loracook.cli.doctor import command
from loracook.machine.doctor import findings, package_finding
from tests.hub.server import as_endpoint


def test_every_part_of_the_stack_is_named_and_nothing_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canarycanarycanary")
    result = CliRunner().invoke(command, ["--format", "json", "--offline"])
    found = {finding["what"]: finding for finding in json.loads(result.stdout)}
    required = map(Requirement, requires("loracook") or [])
    packages = [one.name for one in required if str(one.marker) == 'extra == "train"']
    assert "torch" in packages
    assert list(found) == [
        "python", *packages, "device", "precision", "attention", "quantization", "processes", "cluster",
        "sweeps", "memory", "disk", "hub",
    ]  # fmt: skip
    assert found["hub"]["found"] == "HF_HUB_OFFLINE is set"
    assert "canary" not in result.output


@pytest.mark.parametrize(
    ("version", "requirement", "supported"),
    [
        ("1.16.0", "trl>=1.16,<2", True),
        ("1.16", "trl>=1.16.0", True),
        ("2.0.1", "trl>=1.16,<2", False),
        ("1.9", "trl>=1.16", False),
        ("1.17.0rc1", "trl>=1.16,<2", False),
        ("1.17", "trl~=1.16.2", False),
        ("1.16.4", "trl~=1.16.2", True),
        ("1.16.3", "trl>=1.16,!=1.16.3", False),
        ("2.13.0+cpu", "torch>=2.6", True),
        ("5.0", "torch", True),
    ],
)
def test_versions_are_compared_as_pip_compares_them(version: str, requirement: str, supported: bool) -> None:
    finding = package_finding(Requirement(requirement), version)
    assert (finding.means == "") is supported


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it() -> None:
    finding = package_finding(Requirement("trl>=1.16,<2"), None)
    assert (finding.what, finding.found) == ("trl", "not installed")
    assert "pip install" in finding.means


@pytest.mark.parametrize(("who", "said"), [(200, "logged in as me"), (401, "rejects the token")])
def test_the_account_of_the_token_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, who: int, said: str
) -> None:
    with as_endpoint(monkeypatch, tmp_path / "home") as server:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        if who == 401:
            monkeypatch.setenv("HF_TOKEN", "hf_another")
        (hub,) = (finding for finding in findings(tmp_path) if finding.what == "hub")
    assert said in hub.found


def test_a_hub_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    (hub,) = (finding for finding in findings(tmp_path) if finding.what == "hub")
    assert hub.found.startswith("http://127.0.0.1:9 cannot be reached")


def test_a_cache_that_is_not_writable_is_found(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    (disk,) = (finding for finding in findings(tmp_path / "cache" / "below") if finding.what == "disk")
    assert "LORACOOK_CACHE=DIR" in disk.means
