"""lm-evaluation-harness, given a loaded model and tasks that are data or its own."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from loracook.data.tokenize.sandbox import RenderingError, limited
from loracook.data.tokenize.template import chat_template
from loracook.errors import LoracookError, MachineError, RecipeError, quote, reworded
from loracook.evaluation.own_tasks import tasks_of
from loracook.machine.faults import shortage
from loracook.recipe.did_you_mean import closest
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

PACKAGE = "lm_eval"
SEEDS = {"random": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234}
"""The defaults of simple_evaluate."""
CALL = ("limit", "bootstrap_iters", "system_instruction", "apply_chat_template", "fewshot_as_multiturn")
"""The keys of the section that evaluate takes as simple_evaluate does."""
Tasks = dict[str, dict[str, Any]]


def load_tasks(recipe: Recipe) -> Tasks:
    """The tasks of the recipe with their rows, as `lm_eval.evaluate` takes them.

    Raises:
        MachineError: the package is not installed, or a task's rows or packages are not to be had.
        RecipeError: there is no such task, it would run code that a model writes, or a row does not fit it.
    """
    if find_spec(PACKAGE) is None:
        raise MachineError('lm_eval needs one more package; run: pip install "loracook[lm-eval]"')
    own = tasks_of(recipe)
    named = {at: name for at, name in enumerate(recipe[PACKAGE]["tasks"]) if at not in own}
    manager = _manager(bool(named))
    unknown = [_unknown(recipe, at, manager.all_tasks) for at in named if named[at] not in manager.all_tasks]
    if unknown:
        raise RecipeError(unknown)
    specs = named | {at: task.config() for at, task in own.items()}
    loaded: Tasks = {"tasks": {}, "groups": {}, "group_map": {}}
    for at in sorted(specs):
        found = _load(recipe, at, manager=manager, spec=specs[at])
        if twice := loaded["tasks"].keys() & found["tasks"].keys():
            message = f"{quote(min(twice))} is part of another entry, too; remove one of the two"
            raise RecipeError([recipe.problem((PACKAGE, "tasks", at), message)])
        for kind, entries in loaded.items():
            entries |= found[kind]
    return loaded


@cache
def _manager(with_theirs: bool) -> TaskManager:
    """The index of tasks; theirs are fourteen thousand files, which take half a minute to read."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=with_theirs)


def _unknown(recipe: Recipe, at: int, names: Sequence[str]) -> Any:
    name = recipe[PACKAGE]["tasks"][at]
    match = closest(name, names)
    advice = f"did you mean {quote(match)}?" if match else "see: lm-eval ls tasks"
    return recipe.problem((PACKAGE, "tasks", at), f"lm-eval has no task {quote(name)}; {advice}")


def _load(recipe: Recipe, at: int, *, manager: TaskManager, spec: str | dict[str, Any]) -> Mapping[str, Any]:
    """One entry of the tasks with all that belongs to it, tried on a first question.

    The working folder is an empty one, so that no folder of the user's passes for a data set of the hub.
    """
    name = spec if isinstance(spec, str) else spec["task"]
    try:
        with tempfile.TemporaryDirectory() as empty, chdir(empty):
            found: Mapping[str, Any] = manager.load([spec])
            for task in found["tasks"].values():  # one question of each, with its solved examples
                _set_fewshot(task, recipe[PACKAGE].get("num_fewshot"))
                task.build_all_requests(limit=1)
    except ModuleNotFoundError as error:
        raise MachineError(f"the task {quote(name)} needs the package {error.name}; install it") from error
    except Exception as error:
        if shortage(error):
            raise
        advice = "check the connection to the hub, or remove it"
        raise reworded(MachineError(f"cannot load the task {quote(name)}; {advice}"), error) from error
    for task in found["tasks"].values():
        if getattr(task, "UNSAFE_CODE", False):
            message = f"{quote(name)} runs code that the model writes; remove it"
            raise RecipeError([recipe.problem((PACKAGE, "tasks", at), message)])
        if getattr(task, "MULTIMODAL", False):
            message = f"{quote(name)} asks about images or sound; remove it"
            raise RecipeError([recipe.problem((PACKAGE, "tasks", at), message)])
    return found


def _set_fewshot(task: Any, number: int | None) -> None:
    """What simple_evaluate does before it calls evaluate; the examples are the same each time."""
    own = task.get_config("num_fewshot")
    if number is not None and own != 0:
        task.set_config(key="num_fewshot", value=number)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=SEEDS["fewshot"])


def evaluate(recipe: Recipe, lm: LM, tasks: Tasks) -> dict[str, Any]:
    """The results of the model as it is now, as `lm_eval.evaluate` gives them, with those of each row.

    simple_evaluate is not called itself: it runs pip and git to describe this machine.

    Raises:
        LoracookError: the chat template refuses a question.
        MachineError: a task fails.
    """
    import lm_eval

    section = recipe[PACKAGE]
    asked = {"fewshot_as_multiturn": True} | {key: section[key] for key in CALL if key in section}
    for task in tasks["tasks"].values():
        _set_fewshot(task, section.get("num_fewshot"))
    try:
        with _seeded(), tempfile.TemporaryDirectory() as empty, chdir(empty):
            results: dict[str, Any] = lm_eval.evaluate(lm=lm, task_dict=tasks, **asked)
    except Exception as error:
        if isinstance(error, LoracookError) or shortage(error):
            raise
        message = "lm-eval failed; log.txt has its traceback; remove the task that it names"
        raise reworded(MachineError(message), error) from error
    return results


@contextmanager
def _seeded() -> Iterator[None]:
    """Random numbers as simple_evaluate seeds them; those of everyone else go on as if nothing had been."""
    import numpy as np
    import torch

    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(SEEDS["random"])
        np.random.seed(SEEDS["numpy"])
        torch.manual_seed(SEEDS["torch"])
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def language_model(tuned: PeftModel, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> LM:
    """A loaded model as lm-evaluation-harness asks one; its chat template is rendered within limits."""
    from lm_eval.models.huggingface import HFLM
    from transformers.utils.chat_template_utils import render_jinja_template

    class Templated(HFLM):
        def apply_chat_template(
            self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
        ) -> str:
            template = chat_template(tokenizer)
            if template is None:
                raise LoracookError("there is no chat template; set lm_eval.apply_chat_template: false")
            try:
                [text], _ = limited(
                    render_jinja_template,
                    conversations=[chat_history],
                    chat_template=template,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=not add_generation_prompt,
                    **tokenizer.special_tokens_map,
                )
            except RenderingError as error:
                advice = "set lm_eval.apply_chat_template: false"
                raise LoracookError(f"the chat template refuses a question: {error}; {advice}") from error
            return str(text)

    return Templated(pretrained=tuned, tokenizer=tokenizer, batch_size=batch_size)
