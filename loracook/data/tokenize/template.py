"""The chat template that training, generation and the saved tokenizer use."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.data.tokenize.sandbox import complaint
from loracook.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from loracook.recipe.recipe import Recipe

OURS = Path(__file__).parent / "templates"
SIZE_LIMIT = 256 * 1024
MARKER = re.compile(r"<[|\uff5c][^<>|\uff5c\s]+[|\uff5c]>|<(?:start|end)_of_turn>|<turn\|>|<\|turn>|</?s>")
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
PROBE = "loracook probe"
CHATLESS = {"text", "prompt_completion", "alpaca"}
INSTEAD = "write chat_template: chatml, a .jinja file with {% generation %}, or loss: last_turn"


def with_template(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with the template that the recipe asks for; named templates bring their tokens.

    Raises RecipeError for a template that is not there, or that cannot mask when the loss needs it.
    """
    asked = recipe["template"].get("chat_template")
    if asked == "none":
        tokenizer.chat_template = None
        return tokenizer
    if asked is not None:
        tokenizer.chat_template = template_text(recipe, asked)
        if _is_file(asked):
            _try_out(recipe, asked, tokenizer.chat_template)
        else:
            _add_tokens(recipe, tokenizer)
    _make_maskable(recipe, tokenizer)
    return tokenizer


def template_file(recipe: Recipe) -> Path | None:
    """The recipe's own template file, None when it names none; raises RecipeError for a missing one."""
    asked = recipe["template"].get("chat_template")
    if asked is None or not _is_file(asked):
        return None
    path = recipe.resolve(asked)
    if not path.is_file():
        raise _problem(recipe, f"there is no file '{asked}'")
    return path


def template_text(recipe: Recipe, asked: str) -> str:
    """The text of a template by its name or file; TRL's training variant where there is one."""
    path = template_file(recipe) or _named(asked)
    if path is None:
        raise _problem(recipe, f"there is no template '{asked}'; named ones are {', '.join(names())}")
    if path.stat().st_size > SIZE_LIMIT:
        raise _problem(recipe, f"'{asked}' is larger than {SIZE_LIMIT // 1024} KiB")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _problem(recipe, f"'{asked}' is not UTF-8: {error.reason} at byte {error.start + 1}") from error


def names() -> list[str]:
    """The names of all templates: loracook's own, then TRL's."""
    bundled = sorted(path.stem for path in _bundled().glob("*.jinja") if not path.stem.endswith("_training"))
    return [path.stem for path in sorted(OURS.glob("*.jinja"))] + bundled


def chat_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The tokenizer's template as text, the default one of several named variants."""
    found: Any = tokenizer.chat_template
    return found.get("default") if isinstance(found, dict) else found


def can_mask(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template marks what the assistant says."""
    found = chat_template(tokenizer)
    return found is not None and GENERATION.search(found) is not None


def _try_out(recipe: Recipe, asked: str, text: str) -> None:
    """Refuse a template that fails or runs away; it comes from a stranger's repository."""
    if fault := complaint(text):
        raise _problem(recipe, f"'{asked}' cannot be rendered: {fault}")


def _is_file(asked: str) -> bool:
    return asked.startswith(("./", "../"))


def _problem(recipe: Recipe, message: str, key: str = "chat_template") -> RecipeError:
    return RecipeError([recipe.problem(("template", key), message)])


def _bundled() -> Path:
    """The folder of TRL's templates, found without importing TRL."""
    found = importlib.util.find_spec("trl")
    return Path(str(found.origin)).parent / "chat_templates" if found else Path("/nonexistent")


def _named(asked: str) -> Path | None:
    wanted = (OURS / f"{asked}.jinja", _bundled() / f"{asked}_training.jinja", _bundled() / f"{asked}.jinja")
    return next((path for path in wanted if path.is_file()), None)


def _make_maskable(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> None:
    """Take TRL's training variant of the template where the loss needs marks that are not there."""
    loss = recipe["template"].get("loss", "assistant" if _may_chat(recipe) else "completion")
    if loss != "assistant" or can_mask(tokenizer) or chat_template(tokenizer) is None:
        return
    from trl.chat_template_utils import get_training_chat_template

    try:
        tokenizer.chat_template = get_training_chat_template(tokenizer) or tokenizer.chat_template
    except ValueError as error:
        if "loss" in recipe["template"]:
            raise cannot_mask(recipe) from error


def cannot_mask(recipe: Recipe) -> RecipeError:
    """The refusal to train on answers alone with a template that does not mark them."""
    return _problem(recipe, f"the chat template marks no answers; {INSTEAD}", "loss")


def _may_chat(recipe: Recipe) -> bool:
    dataset, pairs = recipe["dataset"], "completion" in recipe["template"]
    formats = {entry.get("format", "auto") for entry in dataset.get("sources", [dataset])}
    return bool(formats - CHATLESS - ({"columns"} if pairs else set()))


def _add_tokens(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add the special tokens that the template writes, and let its end of turn be the end of text."""
    from transformers import AddedToken

    known, rendered = tokenizer.get_vocab(), _probe(tokenizer)
    tokens = [token for token in dict.fromkeys(MARKER.findall(rendered)) if token not in known]
    tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in tokens], special_tokens=True
    )
    end = MARKER.findall(rendered.rpartition(PROBE)[2])
    if "eos_token" in (chat_template(tokenizer) or ""):  # it writes the tokenizer's own end of text
        return
    if end and recipe.origin(("tokenizer", "eos_token")).kind == "loracook":
        tokenizer.eos_token = end[-1]


def _probe(tokenizer: PreTrainedTokenizerBase) -> str:
    """A short conversation as the template writes it."""
    from jinja2 import TemplateError

    spoken = [{"role": "user", "content": PROBE}, {"role": "assistant", "content": PROBE}]
    for turns in ([{"role": "system", "content": PROBE}, *spoken], spoken):
        try:
            return str(tokenizer.apply_chat_template(turns, tokenize=False))
        except TemplateError:
            continue
    return ""
