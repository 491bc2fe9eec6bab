"""Self-contained HTML pages from the templates beside this module: nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import math
from pathlib import Path
from typing import Any

from loracook.errors import clean_lines, shorten
from loracook.units import duration, size

TEMPLATES = Path(__file__).parent / "templates"
LONGEST = 20_000
"""Characters of one value on a page; a stranger's record may hold longer ones."""


def page(template: str, *, script: str = "", **values: Any) -> str:
    """The page of a template: every value is escaped, its invisible characters and secrets are replaced.

    Its policy (CSP) allows the page's own style and script by their hashes, and nothing else.
    """
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    spacing = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, finalize=_clean, **spacing)
    environment.filters |= {"percent": "{:.1%}".format, "count": "{:,}".format, "size": size}
    environment.filters |= {"duration": _duration}
    style, code = _text("page.css"), _text(script) if script else ""
    policy = f"default-src 'none'; style-src '{_hash(style)}'; base-uri 'none'; form-action 'none'"
    frame = {
        "style": Markup(style),  # our own file
        "script": Markup(code),
        "policy": f"{policy}; script-src '{_hash(code)}'" if code else policy,
    }
    return str(environment.get_template(template).render(**frame, **values))


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _clean(value: Any) -> Any:
    """Bounded text without control characters; markup, which a macro made, is left alone."""
    return clean_lines(shorten(value, LONGEST)) if type(value) is str else value


def _duration(seconds: float) -> str:
    return duration(seconds) if math.isfinite(seconds) else "unknown"
