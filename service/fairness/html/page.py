"""Rendering of a page: the templates, the stylesheet, and the Content-Security-Policy.

A page is one file that loads nothing and runs nothing. Text from users (names, texts, answers) is
made harmless in three places: Jinja escapes every value, `svg.tag` escapes the content of plots,
and finally characters that HTML does not allow (control characters, unpaired surrogates) are
replaced in the whole page.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from service import __version__
from service.fairness.html import figures, plots_bins, plots_lines, plots_plane, plots_rates

STYLESHEET = (resources.files(__package__) / "templates" / "page.css").read_text("utf-8")

_DIGEST = base64.b64encode(hashlib.sha256(STYLESHEET.encode()).digest()).decode()
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'none'",
        "img-src 'none'",
        f"style-src 'sha256-{_DIGEST}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
)
"""Content-Security-Policy of every page: it allows only the stylesheet, by its SHA-256."""

HEADER_POLICY = f"{POLICY}; frame-ancestors 'none'"
"""Policy for the HTTP header; its last directive has no effect in a page."""

_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""Code points that are parse errors in HTML or that UTF-8 cannot encode."""


def render(template: str, **context: Any) -> str:
    """Return the page; its text can be encoded as UTF-8."""
    page = _environment().get_template(template).render(context)
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", page)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("service.fairness.html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for module in (figures, plots_rates, plots_lines, plots_bins, plots_plane):
        environment.globals[module.__name__.rpartition(".")[2]] = module
    environment.globals |= {
        "policy": POLICY,
        "stylesheet": Markup(STYLESHEET),  # noqa: S704 - a file of this package
        "version": __version__,
    }
    return environment
