"""The chat template that training, generation and the saved tokenizer use."""

from __future__ import annotations

import importlib.util
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from loracook.data.tokenize.sandbox import RenderingError, RunawayError, limited
from loracook.errors import RecipeError
from loracook.machine import upstream
from loracook.recipe.locations import LOCAL
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OWN_TEMPLATES = Path(__file__).parent / "templates"
MAX_TEMPLATE_BYTES = 256 * 1024
MARKER = re.compile(r"<[|\uff5c][^<>|\uff5c\s]+[|\uff5c]>|<(?:start|end)_of_turn>|<turn\|>|<\|turn>|</?s>")
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
FORMATS_WITHOUT_CHATS = {"text", "prompt_completion", "alpaca"}
MASKING_ADVICE = "write chat_template: chatml, a .jinja file with {% generation %}, or loss: last_turn"

END_TOKENS = ("<|endoftext|>", "</s>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<eos>", "[EOS]", "[SEP]")
"""How end tokens are spelled, for tokenizers that do not say which of theirs it is."""
PROBE = "loracook probe"
TURNS = [{"role": "user", "content": PROBE}, {"role": "assistant", "content": PROBE}]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "probe", "description": PROBE, "parameters": {"type": "object", "properties": {}}},
}
TOOL_TURNS: list[list[dict[str, Any]]] = [
    [
        TURNS[0],
        {
            "role": "assistant",
            "content": content,
            "tool_calls": [
                {"type": "function", "id": "call00000", "function": {"name": "probe", "arguments": arguments}}
            ],
        },
        {"role": "tool", "name": "probe", "tool_call_id": "call00000", "content": PROBE},
        TURNS[1],
    ]
    for content in ("", None)
    for arguments in ({"probe": PROBE}, "{}")
]
"""Conversations with a tool, in each form that a template may accept alone."""


def with_template(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with the recipe's chat template; a named template's special tokens are added.

    Without a padding token, the end token pads: the loss masks padding by position, not by token.

    Raises RecipeError for a missing template, or a tokenizer with no token to pad with.
    """
    own_end = tokenizer.eos_token
    tokenizer = _templated(recipe, tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = own_end or tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise RecipeError([recipe.problem(("tokenizer", "eos_token"), _no_end_token(tokenizer))])
    return tokenizer


def _no_end_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """The message for a tokenizer without an end token; it proposes one, of its vocabulary if possible."""
    vocabulary = tokenizer.get_vocab()
    end = next((token for token in END_TOKENS if token in vocabulary), END_TOKENS[0])
    advice = f"write tokenizer: {{eos_token: {end!r}}}"
    return f"the model's tokenizer has neither an end-of-sequence (EOS) nor a padding token; {advice}"


def _templated(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    name = recipe["template"].get("chat_template")
    if name == "none":
        tokenizer.chat_template = None
        return tokenizer
    if name is not None:
        tokenizer.chat_template = template_text(recipe, name)
        if not _is_file(name):
            _add_tokens(recipe, tokenizer)
        else:
            _try_file(recipe, tokenizer, name)
    elif chat_template(tokenizer):
        _try_own(recipe, tokenizer)
    _make_maskable(recipe, tokenizer)
    return tokenizer


def _try_file(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise RecipeError for a template of the recipe that does not render a short chat."""
    try:
        _rendering(tokenizer, TURNS)
    except (RenderingError, RunawayError) as error:
        raise _problem(recipe, f"cannot render '{name}': {error}") from error


def _try_own(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise RecipeError for a model's template that does not end for a short chat; it may refuse it."""
    try:
        _rendered(tokenizer, TURNS)
    except RunawayError as error:
        message = f"cannot render the model's own chat template: {error}; name another"
        raise _problem(recipe, message) from error


def template_file(recipe: Recipe) -> Path | None:
    """The recipe's own template file, None if it names none; raises RecipeError for a missing one."""
    name = recipe["template"].get("chat_template")
    if name is None or not _is_file(name):
        return None
    path = recipe.resolve(name)
    if not path.is_file():
        raise _problem(recipe, f"no such file '{name}'")
    return path


def template_text(recipe: Recipe, name: str) -> str:
    """The text of a template by its name or file; TRL's training variant if there is one."""
    path = template_file(recipe) or _named_template(name)
    if path is None:
        raise _problem(recipe, f"no template named '{name}'; use one of {', '.join(names())}")
    if path.stat().st_size > MAX_TEMPLATE_BYTES:
        raise _problem(recipe, f"'{name}' is larger than {MAX_TEMPLATE_BYTES // 1024} KiB")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _problem(recipe, f"'{name}' is not UTF-8: {error.reason} at byte {error.start + 1}") from error


def names() -> list[str]:
    """The names of all templates: loracook's own, then TRL's."""
    bundled = sorted(path.stem for path in _trl_templates().glob("*.jinja"))
    own = sorted(path.stem for path in OWN_TEMPLATES.glob("*.jinja"))
    return own + [name for name in bundled if not name.endswith("_training")]


def chat_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The text of the tokenizer's template, the default one of several named variants."""
    template: Any = tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template


def can_mask(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template marks assistant text with {% generation %}."""
    template = chat_template(tokenizer)
    return template is not None and GENERATION.search(template) is not None


def _is_file(name: str) -> bool:
    return name.startswith(LOCAL)


def _problem(recipe: Recipe, message: str) -> RecipeError:
    return RecipeError([recipe.problem(("template", "chat_template"), message)])


def _trl_templates() -> Path:
    """The folder of TRL's templates, located without importing TRL."""
    spec = importlib.util.find_spec("trl")
    return Path(str(spec.origin)).parent / "chat_templates" if spec else Path("/nonexistent")


def _named_template(name: str) -> Path | None:
    trl = _trl_templates()
    paths = (OWN_TEMPLATES / f"{name}.jinja", trl / f"{name}_training.jinja", trl / f"{name}.jinja")
    return next((path for path in paths if path.is_file()), None)


def _make_maskable(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> None:
    """Switch to TRL's training variant of the template if the loss requires marks it does not have."""
    loss = recipe["template"].get("loss", "assistant" if _may_have_chats(recipe) else "completion")
    if loss != "assistant" or can_mask(tokenizer) or chat_template(tokenizer) is None:
        return
    from trl.chat_template_utils import get_training_chat_template

    template = Unrendered(str(chat_template(tokenizer)))
    with suppress(ValueError):  # it has none: answers are found by what they add to their prompts
        tokenizer.chat_template = get_training_chat_template(template) or tokenizer.chat_template


@dataclass(frozen=True)
class Unrendered:
    """A template as TRL asks for one; its variant depends on the text alone, so nothing is rendered."""

    chat_template: str

    def apply_chat_template(self, *_: Any, **options: Any) -> NoReturn:
        """Refuse, as a template does that knows no tools."""
        from jinja2 import TemplateError

        raise TemplateError


def template_variables(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """The names that the template reads and does not set itself; none where it cannot be compiled."""
    with suppress(RenderingError):
        return frozenset(limited(upstream.template_variables, template=chat_template(tokenizer)))
    return frozenset()


def _may_have_chats(recipe: Recipe) -> bool:
    dataset, has_pairs = recipe["dataset"], "completion" in recipe["template"]
    formats = {entry.get("format", "auto") for entry in dataset.get("sources", [dataset])}
    return bool(formats - FORMATS_WITHOUT_CHATS - ({"columns"} if has_pairs else set()))


def _add_tokens(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add the special tokens of the template, and make its end-of-turn token the EOS token."""
    from transformers import AddedToken

    vocabulary, rendered = tokenizer.get_vocab(), _rendered_probe(tokenizer)
    texts = (rendered, *(_rendered(tokenizer, turns, tools=[TOOL]) for turns in TOOL_TURNS))
    missing = (token for token in dict.fromkeys(MARKER.findall("".join(texts))) if token not in vocabulary)
    tokens = [AddedToken(token, special=True, normalized=False) for token in missing]
    tokenizer.add_tokens(tokens, special_tokens=True)
    end_tokens = MARKER.findall(rendered.rpartition(PROBE)[2])
    if "eos_token" in (chat_template(tokenizer) or ""):  # it uses the tokenizer's own EOS token
        return
    if end_tokens and recipe.origin(("tokenizer", "eos_token")).kind == "loracook":
        tokenizer.eos_token = end_tokens[-1]


def _rendered_probe(tokenizer: PreTrainedTokenizerBase) -> str:
    """A short conversation rendered with the template."""
    return _rendered(tokenizer, [{"role": "system", "content": PROBE}, *TURNS]) or _rendered(tokenizer, TURNS)


def _rendered(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, Any]], **options: Any) -> str:
    """The turns rendered with the template, "" where it rejects them."""
    with suppress(RenderingError):
        return _rendering(tokenizer, turns, **options)
    return ""


def _rendering(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, Any]], **options: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    settings = {"chat_template": chat_template(tokenizer), **tokenizer.special_tokens_map, **options}
    [rendered], _ = limited(render_jinja_template, conversations=[turns], **settings)
    return str(rendered)
