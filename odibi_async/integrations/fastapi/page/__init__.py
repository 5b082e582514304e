"""The live page: what a browser shows of the pipelines and their runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """
    A page, and what it may load.

    Attributes:
        html: The page.
        csp: Its content security policy.
    """

    html: str
    csp: str


_HTML: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Pipelines</title></head>
<body><p>See <a href="pipelines">the pipelines</a> and <a href="runs">their runs</a>.</p></body></html>
"""


def page() -> Page:
    """The page."""
    return Page(html=_HTML, csp="default-src 'none'")
