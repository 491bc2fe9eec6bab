"""What is asked of datasets for a hub id, and what is made of its answers; no hub is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

import loracook.data as data
from loracook.errors import RecipeError, dotted
from loracook.progress import Silent
from tests.data.samples import recipe, tokenizer

ROWS = {
    "train": [{"prompt": f"Soup {i}?", "completion": "Leek."} for i in range(4)],
    "validation": [{"prompt": f"Soup {i}?", "completion": "Potato."} for i in range(3)],
}


class Hub:
    """Stands in for datasets.load_dataset: keeps what it was asked and answers with the rows of a split."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.errors: dict[str, Exception] = {}

    def __call__(self, path: str, **given: Any) -> datasets.Dataset:
        self.asked.append((path, given))
        if given["split"] in self.errors:
            raise self.errors[given["split"]]
        return datasets.Dataset.from_list(ROWS[given["split"]])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    stand_in = Hub()
    monkeypatch.setattr("datasets.load_dataset", stand_in)
    return stand_in


def prepared(folder: Path, **dataset: Any) -> data.Prepared:
    book = recipe(folder, dataset={"path": "org/soups", **dataset}, template={"chat_template": "plain"})
    return data.prepare(book, data.with_template(book, tokenizer()), folder / "cache", progress=Silent())


def test_rows_and_evaluation_come_from_their_splits(hub: Hub, tmp_path: Path) -> None:
    found = prepared(tmp_path, name="main", revision="v1", eval={"split": "validation", "rows": 2})
    assert (len(found.train), found.evaluation and len(found.evaluation)) == (4, 2)
    given = {"streaming": False, "name": "main", "revision": "v1"}
    assert {(path, str(asked)) for path, asked in hub.asked} == {
        ("org/soups", str({"split": "train", **given})),
        ("org/soups", str({"split": "validation", **given})),
    }
    assert data.files(recipe(tmp_path, dataset={"path": "org/soups"})) == ()


def test_evaluation_rows_of_another_data_set_are_its_train_split(hub: Hub, tmp_path: Path) -> None:
    prepared(tmp_path, split="validation", eval={"path": "org/stews"})
    assert {(path, given["split"]) for path, given in hub.asked} == {
        ("org/soups", "validation"),
        ("org/stews", "train"),
    }


def test_every_one_of_several_sources_is_streamed(hub: Hub, tmp_path: Path) -> None:
    dataset = {"streaming": True, "sources": [{"path": "org/soups"}, {"path": "org/stews"}]}
    book = recipe(tmp_path, dataset=dataset, template={"chat_template": "plain"}, train={"max_steps": 1})
    data.prepare(book, data.with_template(book, tokenizer()), tmp_path / "cache", progress=Silent())
    assert {(path, given["streaming"]) for path, given in hub.asked} == {
        ("org/soups", True),
        ("org/stews", True),
    }


def test_changed_rows_on_the_hub_are_prepared_again(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepared(tmp_path)
    assert prepared(tmp_path).digest == first.digest
    monkeypatch.setitem(ROWS, "train", ROWS["train"][:2])
    assert prepared(tmp_path).digest != first.digest


ERRORS: dict[str, tuple[Exception, dict[str, Any]]] = {
    "dataset.path: the hub cannot be reached; "
    "download it once where there is a network, or use local files (./rows.jsonl)": (
        ConnectionError("Couldn't reach"),
        {},
    ),
    "dataset.path: not found on the Hub: Dataset 'org/soups' doesn't exist; a local path starts with './'": (
        datasets.exceptions.DatasetNotFoundError("Dataset 'org/soups' doesn't exist\nmore"),
        {},
    ),
    "dataset.eval.split: Unknown split \"test\". Should be one of ['train'].": (
        ValueError("Unknown split \"test\". Should be one of ['train']."),
        {"eval": {"split": "test"}},
    ),
    "dataset.name: BuilderConfig 'x' not found. Available: ['main']": (
        ValueError("BuilderConfig 'x' not found. Available: ['main']"),
        {"name": "x"},
    ),
}


@pytest.mark.parametrize("said", ERRORS)
def test_errors_of_the_hub_point_at_the_recipe(said: str, hub: Hub, tmp_path: Path) -> None:
    error, dataset = ERRORS[said]
    hub.errors[dataset.get("eval", {}).get("split", "train")] = error
    with pytest.raises(RecipeError) as caught:
        prepared(tmp_path, **dataset)
    problem = caught.value.problems[0]
    assert f"{dotted(problem.path)}: {problem.message}" == said
