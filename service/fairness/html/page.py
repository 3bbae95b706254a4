"""The frame of a page: the templates, the one stylesheet, and the policy that names it.

A page is one file that loads nothing and runs nothing. What a user sent (names, texts, answers)
meets it in three places: Jinja escapes every value, `svg.tag` escapes what plots are made of, and
at the end what no HTML may hold (control characters, lone surrogates) is replaced everywhere.
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
"""The Content-Security-Policy in every page: the stylesheet by its SHA-256, nothing else."""

HEADER_POLICY = f"{POLICY}; frame-ancestors 'none'"
"""The same for the HTTP header; the last directive is only heeded there."""

_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""Code points that HTML's parser calls errors or that UTF-8 cannot hold."""


def render(template: str, **context: Any) -> str:
    """The page, without anything in it that cannot be encoded as UTF-8."""
    page = _environment().get_template(template).render(context)
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", page)


@cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("service.fairness.html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for module in (figures, plots_rates, plots_lines, plots_bins, plots_plane):
        made.globals[module.__name__.rpartition(".")[2]] = module
    made.globals |= {
        "policy": POLICY,
        "stylesheet": Markup(STYLESHEET),  # noqa: S704 - a file of ours
        "version": __version__,
    }
    return made
