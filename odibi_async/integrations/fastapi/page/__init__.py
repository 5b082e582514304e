"""The live page of a service: pipelines, a form to start them, and their runs while they run."""

from __future__ import annotations

import base64
import functools
import hashlib
import threading
from dataclasses import dataclass
from importlib import resources
from typing import Final

SCRIPTS: Final = (
    "dom",
    "words",
    "asking",
    "stream",
    "form",
    "graph",
    "model",
    "steps",
    "log",
    "head",
    "outcome",
    "run",
    "runs",
    "pipelines",
    "upkeep",
    "main",
)
"""The files of the page's one script, in the order in which they follow each other."""
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Page:
    """
    A page, and what has to be sent with it.

    Attributes:
        html: The page, with its style and its script inside. It is the same for every service.
        csp: The value of its `Content-Security-Policy`: it runs this style and this script, talks to its own origin
            and to nobody else, and turns no text into HTML.
    """

    html: str
    csp: str


def page() -> Page:
    """The live page. The first call reads its files, and so blocks; later ones give the same page, in any thread."""
    with _lock:
        return _page()


@functools.cache
def _page() -> Page:
    style, script = _file("page.css"), "\n".join(_file(f"script/{name}.js") for name in SCRIPTS)
    policy = (
        "default-src 'none'",
        f"style-src '{_hash(style)}'",
        f"script-src '{_hash(script)}'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    html = _file("page.html").replace("/* page.css */", style).replace("/* page.js */", script)
    return Page(html=f"{html}\n", csp="; ".join(policy))


def _file(name: str) -> str:
    """One of the page's own files."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
