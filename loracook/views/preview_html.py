"""A preview as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from loracook.data.preview import Preview, State
from loracook.data.warnings import FLAWS
from loracook.errors import clean_lines

TEMPLATES = Path(__file__).parent / "templates"


def as_html(preview: Preview) -> str:
    """A preview as a page that loads nothing from elsewhere; all text from the data is escaped."""
    flaws = {name: flaw._asdict() for name, flaw in FLAWS.items()}
    return render("preview.html.jinja", preview=preview, flaws=flaws, states=get_args(State))


def render(template: str, **values: Any) -> str:
    """A page from a template of ours; every value is escaped, its invisible characters and secrets too."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_clean,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = "{:.1%}".format
    return str(environment.get_template(template).render(values))


def _clean(value: Any) -> Any:
    """Text without control characters; markup, which a macro made, is left alone."""
    return clean_lines(value) if type(value) is str else value
