"""Errors of upstream over a base model's files, reported where the recipe names the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loracook.errors import LoracookError, RecipeError, reworded, shorten
from loracook.errors import Path as Key
from loracook.machine.faults import shortage
from loracook.model.own_code import BASE_MODEL, REFUSED, requires_code
from loracook.recipe.recipe import Recipe

PANIC = "PanicException"
"""What a fault in the Rust code of tokenizers raises, which is no Exception and has no importable name."""
LIMIT = 90
"""Characters of a library's own words, so that the advice still fits the line."""


@contextmanager
def reading(
    recipe: Recipe, folder: Path, what: str, *passing: type[Exception], at: Key = BASE_MODEL
) -> Iterator[None]:
    """Make a problem of whatever a library raises over the files in `folder`, which the recipe names at `at`.

    A missing package passes through, a lack of memory or disk, and errors of the types in `passing`.
    """
    try:
        yield
    except (LoracookError, ImportError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise
        too_deep = isinstance(error, RecursionError)
        if isinstance(error, passing) and not too_deep:
            raise
        if isinstance(error, Exception) and shortage(error):
            raise
        if REFUSED in str(error):
            raise requires_code(recipe, folder, at) from error
        reason = "it is nested too deep" if too_deep else _reason(error, folder)
        message = f"{what} cannot be read: {reason}; copy or download it again"
        raise reworded(RecipeError([recipe.problem(at, message)]), error) from error


def _reason(error: BaseException, folder: Path) -> str:
    text = " ".join(str(error).split()).replace(f"{folder}/", "").rstrip(".:")
    return shorten(text if " " in text else repr(error), LIMIT)
