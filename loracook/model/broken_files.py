"""Errors of upstream over a base model's files, reported where the recipe names the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loracook.errors import LoracookError, RecipeError, reworded, shorten
from loracook.machine.faults import shortage
from loracook.model.own_code import BASE_MODEL, REFUSED, requires_code
from loracook.recipe.recipe import Recipe

LIMIT = 90
"""Characters of a library's own words, so that the advice still fits the line."""


@contextmanager
def reading(recipe: Recipe, folder: Path, what: str) -> Iterator[None]:
    """Make a problem of whatever a library raises over the files in `folder`.

    What torch raises about memory and devices passes through, and so does a missing package.
    """
    try:
        yield
    except (LoracookError, ImportError, RuntimeError):
        raise
    except Exception as error:
        if shortage(error):
            raise
        if REFUSED in str(error):
            raise requires_code(recipe, folder) from error
        message = f"{what} cannot be read: {_reason(error, folder)}; copy or download the model again"
        raise reworded(RecipeError([recipe.problem(BASE_MODEL, message)]), error) from error


def _reason(error: Exception, folder: Path) -> str:
    text = " ".join(str(error).split()).replace(f"{folder}/", "").rstrip(".:")
    return shorten(text if " " in text else repr(error), LIMIT)
