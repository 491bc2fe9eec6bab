"""Prompts to generate from: those of evaluation rows, with the answers they had, and given ones."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loracook.data.read.rows import Chat, Message, Pair, Row, RowError
from loracook.data.read.selection import evaluation_rows
from loracook.data.tokenize.encode import token_ids
from loracook.data.tokenize.render import Renderer, paired
from loracook.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from loracook.recipe.recipe import Recipe


@dataclass(frozen=True)
class EvaluationPrompt:
    """A prompt, as turns or text, its token ids up to where the model is to go on, and the known answer."""

    prompt: list[Message] | str
    prompt_ids: list[int]
    reference: str | None = None


def evaluation_prompts(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, rows: int
) -> list[EvaluationPrompt]:
    """The prompts of the first `rows` evaluation rows that have one; raises RecipeError for none."""
    renderer = Renderer(recipe, tokenizer)
    found = (_prompt(renderer, located.row) for located in evaluation_rows(recipe))
    taken = list(itertools.islice((prompt for prompt in found if prompt), rows))
    if not taken:
        message = (
            "no evaluation row has a prompt; write dataset.eval, and rows with a question and its answer"
        )
        raise RecipeError([recipe.problem(("evaluate", "rows"), message)])
    return taken


def all_prompts(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> list[EvaluationPrompt]:
    """What evaluation asks: the prompts of evaluation rows, then those that the recipe gives."""
    section = recipe["evaluate"]
    rows = evaluation_prompts(recipe, tokenizer, section["rows"]) if section.get("rows") else []
    given = section.get("prompts", [])
    return [*rows, *(EvaluationPrompt(text, prompt_ids(recipe, tokenizer, text)) for text in given)]


def prompt_ids(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of a user's prompt, up to where the model is to answer."""
    renderer = Renderer(recipe, tokenizer)
    if renderer.template is None:
        return token_ids([text], tokenizer, special=True)[0]
    asked = renderer.prompt([{"role": "user", "content": text}])
    return token_ids([asked], tokenizer, special=False)[0]


def _prompt(renderer: Renderer, row: Row) -> EvaluationPrompt | None:
    if isinstance(row, Pair) and renderer.template:
        row = paired(row)
    if isinstance(row, Chat):
        return _chat_prompt(renderer, renderer.with_system(row))
    if isinstance(row, Pair):
        return EvaluationPrompt(
            row.prompt, token_ids([row.prompt], renderer.tokenizer, special=True)[0], row.completion
        )
    return None


def _chat_prompt(renderer: Renderer, chat: Chat) -> EvaluationPrompt | None:
    last = max(index for index, message in enumerate(chat.messages) if message["role"] == "assistant")
    asked = chat.messages[:last]
    if not asked:
        return None
    try:
        text = renderer.prompt(asked, chat.tools)
    except RowError as error:
        raise RecipeError([renderer.recipe.problem(("template",), str(error))]) from error
    return EvaluationPrompt(
        list(asked),
        token_ids([text], renderer.tokenizer, special=False)[0],
        str(chat.messages[last]["content"]),
    )
