"""Rules for the section lm_eval."""

import re
from collections.abc import Iterator

from loracook.errors import Path, Problem, quote
from loracook.recipe.derived import Data, own_tasks
from loracook.recipe.locations import LOCAL

COLUMN = re.compile(r"\{\{\s*(\w+)\s*\}\}")
"""A column in the text of a task, as lm-evaluation-harness spells it; nothing else is filled in."""
TASK_FILE = re.compile(r".*\.(?:ya?ml|py|json)|.*/.*")
OTHER_JINJA = re.compile(r"\{\{|\{%|\{#")


def tasks_in_files(data: Data) -> Iterator[Problem]:
    """A task of one's own stands in the recipe: files of lm-evaluation-harness may name code."""
    for index, task in enumerate(data.get("lm_eval", {}).get("tasks", ())):
        if isinstance(task, str) and TASK_FILE.fullmatch(task):
            message = (
                f"{quote(task)} is not the name of a task; write your own as '- task: NAME' and its keys"
            )
            yield Problem(("lm_eval", "tasks", index), message)


def tasks_of_one_name(data: Data) -> Iterator[Problem]:
    """Results list tasks by their names."""
    seen = set()
    for index, task in enumerate(data.get("lm_eval", {}).get("tasks", ())):
        name = task if isinstance(task, str) else task["task"]
        if name in seen:
            yield Problem(_at(index, task), f"{quote(name)} is there twice; use another name")
        seen.add(name)


def task_rows_elsewhere(data: Data) -> Iterator[Problem]:
    """The rows of one's own tasks are local files."""
    for at, task in own_tasks(data):
        if not task["dataset_path"].startswith(LOCAL):
            message = f"is not a local file; download it and write {quote('./FILE')}"
            yield Problem((*at, "dataset_path"), message)


def code_in_tasks(data: Data) -> Iterator[Problem]:
    """The text of a task names columns; expressions would be code."""
    for at, task in own_tasks(data):
        for key in ("doc_to_text", "doc_to_target", "doc_to_choice"):
            text = task.get(key)
            if isinstance(text, str) and OTHER_JINJA.search(COLUMN.sub("", text)):
                yield Problem((*at, key), "only columns are filled in; write them as '{{column}}'")


def choices_and_output_type(data: Data) -> Iterator[Problem]:
    """Choices are for multiple_choice, which needs them; how an answer ends is for written ones."""
    for at, task in own_tasks(data):
        chooses = task["output_type"] == "multiple_choice"
        if chooses and "doc_to_choice" not in task:
            yield Problem((*at, "output_type"), "requires answers to choose from; add 'doc_to_choice:'")
        unused = "generation_kwargs" if chooses else "doc_to_choice"
        if unused in task:
            other = "generate_until" if chooses else "multiple_choice"
            yield Problem((*at, unused), f"only used with 'output_type: {other}'; remove one of the two")


def chat_keys_without_chat_template(data: Data) -> Iterator[Problem]:
    """Plain text has no turns, and a recipe without a chat template nothing to write them with."""
    section = data.get("lm_eval", {})
    if section.get("apply_chat_template") and data["template"].get("chat_template") == "none":
        message = "the recipe has 'chat_template: none'; set another one, or remove this"
        yield Problem(("lm_eval", "apply_chat_template"), message)
    if "fewshot_as_multiturn" in section and not section.get("apply_chat_template"):
        message = "only used with a chat template; set 'apply_chat_template: true' too, or remove it"
        yield Problem(("lm_eval", "fewshot_as_multiturn"), message)


def _at(index: int, task: object) -> Path:
    at: Path = ("lm_eval", "tasks", index)
    return at if isinstance(task, str) else (*at, "task")
