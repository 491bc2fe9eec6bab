"""Prompts to generate answers for: those of evaluation rows, with their answers, and the recipe's own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loracook.data.read.rows import Chat, Message, Pair, Row, RowError
from loracook.data.read.selection import evaluation_rows
from loracook.data.tokenize.encode import token_ids
from loracook.data.tokenize.render import Renderer, as_chat
from loracook.errors import RecipeError
from loracook.progress import Silent
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class EvaluationPrompt:
    """A prompt (messages or text), its token ids with the generation prompt, and its reference answer."""

    prompt: list[Message] | str
    prompt_ids: list[int]
    reference: str | None = None


def evaluation_prompts(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, rows: int
) -> list[EvaluationPrompt]:
    """The prompts of the first `rows` evaluation rows that have one; raises RecipeError if none does."""
    renderer = Renderer(recipe, tokenizer)
    candidates = (_prompt(renderer, located.row) for located in evaluation_rows(recipe, Silent()))
    prompts = list(itertools.islice((prompt for prompt in candidates if prompt), rows))
    if not prompts:
        message = "no evaluation row has a prompt; set dataset.eval to rows with questions and answers"
        raise RecipeError([recipe.problem(("evaluate", "rows"), message)])
    return prompts


def all_prompts(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> list[EvaluationPrompt]:
    """The prompts to evaluate: those of evaluation rows, then the recipe's own."""
    section = recipe["evaluate"]
    rows = evaluation_prompts(recipe, tokenizer, section["rows"]) if section.get("rows") else []
    own = section.get("prompts", [])
    return [*rows, *(EvaluationPrompt(text, prompt_ids(recipe, tokenizer, text)) for text in own)]


def prompt_ids(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of a user's prompt, ending with the generation prompt."""
    renderer = Renderer(recipe, tokenizer)
    if renderer.template is None:
        return token_ids([text], tokenizer, special=True)[0]
    prompt = renderer.prompt([{"role": "user", "content": text}])
    return token_ids([prompt], tokenizer, special=False)[0]


def _prompt(renderer: Renderer, row: Row) -> EvaluationPrompt | None:
    if isinstance(row, Pair) and renderer.template:
        row = as_chat(row)
    if isinstance(row, Chat):
        return _chat_prompt(renderer, renderer.with_system(row))
    if isinstance(row, Pair):
        ids = token_ids([row.prompt], renderer.tokenizer, special=True)[0]
        return EvaluationPrompt(row.prompt, ids, row.completion)
    return None


def _chat_prompt(renderer: Renderer, chat: Chat) -> EvaluationPrompt | None:
    last = max(index for index, message in enumerate(chat.messages) if message["role"] == "assistant")
    before = chat.messages[:last]
    if not before:
        return None
    try:
        text = renderer.prompt(before, chat.tools)
    except RowError as error:
        raise RecipeError([renderer.recipe.problem(("template",), str(error))]) from error
    ids = token_ids([text], renderer.tokenizer, special=False)[0]
    return EvaluationPrompt(list(before), ids, str(chat.messages[last]["content"]))
