"""A story as one page: nothing is loaded from anywhere, and a strict content security policy lets it work."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

from odibi_async.observers.record import RunRecord
from odibi_async.observers.story.html import Html, joined, tag
from odibi_async.observers.story.overview import cards, execution, graph, verdict, warnings
from odibi_async.observers.story.steps import card, steps
from odibi_async.observers.story.timeline import timeline
from odibi_async.observers.story.view import View

LARGEST: Final = 2_000_000
"""Bytes that a page has at most."""
_LITTLE: Final = {"samples": False, "sources": False, "data": False}
SOME: Final = 20
"""Steps by which the size of a page is judged."""
IN_TABLE, AS_JSON, A_COLUMN = 300, 700, 30
"""Bytes of a step in the table, and of a step and of a column in the run as JSON, at least."""
SHRINKING: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("", {}),
    ("first rows", {"samples": False}),
    ("first rows, sources and the run as JSON", _LITTLE),
    ("first rows, sources, the run as JSON and the details of most steps", {**_LITTLE, "most": 100}),
    ("first rows, sources, the run as JSON and most steps", {**_LITTLE, "most": 100, "rows": 3_000}),
    ("first rows, sources, the run as JSON and most steps", {**_LITTLE, "most": 20, "rows": 300}),
    ("all but how the run ended", {**_LITTLE, "most": 0, "rows": 0, "overview": False}),
)
"""What is left out, more and more, of a page that would be too large."""


def page(record: RunRecord, explanations: Mapping[str, Any]) -> str:
    """
    The page of a run, of at most 2 MB: what does not fit is left out, and it says so.

    Args:
        record: The run.
        explanations: Step -> what to say about it; those of other steps are left out.
    """
    text, seen = "", dict[str, dict[str, Any]]()
    for left, how in SHRINKING:
        view = View(record=record, explanations=explanations, seen=seen, **how)
        if how is not SHRINKING[-1][1] and _estimated(view) > LARGEST:
            continue
        text = _page(view, left)
        if len(text.encode("utf-8", "xmlcharrefreplace")) <= LARGEST:
            break
    return text


def _estimated(view: View) -> float:
    """Bytes that a page takes, judged by the details of some steps: making one that is too large takes long."""
    names = view.first(view.most)
    some = names[:: max(1, len(names) // SOME)]
    details = sum(len(card(view, name).encode("utf-8", "replace")) for name in some) / max(1, len(some)) * len(names)
    return details + len(names) * IN_TABLE + (_estimated_json(view) if view.data else 0)


def _estimated_json(view: View) -> int:
    steps = view.record.steps.values()
    seen = view.snapshots([dataset for step in steps for dataset in (*step.outline.reads, *step.outline.makes)])
    return len(steps) * AS_JSON + sum(len(snapshot.columns) for snapshot in seen) * A_COLUMN


def _page(view: View, left: str) -> str:
    title = f"Run {view.record.run_id}".strip()
    note = f"To keep this page below {LARGEST // 1_000_000} MB, it leaves out {left}." if left else ""
    header = (tag("h1", title), verdict(view), cards(view), tag("p", note, class_="dim") if note else None)
    made = (graph(view), timeline(view.record), warnings(view), steps(view), execution(view)) if view.overview else ()
    body = joined(
        (
            tag("main", header, made),
            tag("footer", "Written by odibi_async. This page loads nothing and sends nothing."),
            tag("script", _file("story.js")),
        )
    )
    policy = (
        f"default-src 'none'; style-src '{_hash('story.css')}'; script-src '{_hash('story.js')}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )
    head = joined(
        (
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=policy),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", title),
            tag("style", _file("story.css")),
        )
    )
    return f"<!doctype html>\n{tag('html', tag('head', head), tag('body', body), lang='en')}\n"


@functools.cache
def _file(name: str) -> Html:
    """One of the page's own files."""
    return Html(resources.files(__package__).joinpath(name).read_text(encoding="utf-8").strip())


def _hash(name: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(_file(name).encode()).digest()).decode()}"
