"""Elements of HTML. Every text is escaped; only what was made here is taken for HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any, Final

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
LONG: Final = 10_000
"""Letters of a text that are shown: of an error, a log, an explanation."""
SHORT: Final = 1_000
"""Letters of one that is told in a sentence."""
_VOID = frozenset(("meta", "br", "input", "link"))


class Html(str):
    """A text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """
    An element.

    Args:
        name: Its tag.
        *children: `Html`, other values as their escaped text, iterables of both; `None` for nothing.
        **attributes: By name, with `_` for `-` (and `class_`); `None` for those that are left out, `True` for those
            without a value.
    """
    given = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    return Html(f"<{name}{given}>" if name in _VOID else f"<{name}{given}>{joined(children)}</{name}>")


def joined(children: Iterable[Any]) -> Html:
    """Children of an element, one after the other."""
    return Html("".join(map(_child, children)))


def _child(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Html):
        return value
    if isinstance(value, Iterable) and not isinstance(value, str):
        return joined(value)
    return html.escape(_clean(str(value)))


def _attribute(name: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{html.escape(_clean(str(value)))}"'


def _clean(text: str) -> str:
    """
    A text without what HTML cannot hold, and without what turns the direction of all that follows: such control
    characters become the sign for what cannot be shown.
    """
    return _CONTROL.sub("\ufffd", text)


def cut(text: str, most: int) -> str:
    """A text of at most so many letters."""
    return text if len(text) <= most else f"{text[:most]}…"


def table(headings: Iterable[Any], rows: Iterable[Iterable[Any]], **attributes: Any) -> Html:
    """A table; cells that are `Html` elements `td` or `th` stand as they are."""
    head = tag("tr", [tag("th", heading, scope="col") for heading in headings])
    body = [tag("tr", [cell if _is_cell(cell) else tag("td", cell) for cell in row]) for row in rows]
    return tag(
        "div",
        tag("table", tag("thead", head), tag("tbody", body), **attributes),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=attributes.get("aria_label", "table"),
    )


def _is_cell(value: Any) -> bool:
    return isinstance(value, Html) and value.startswith(("<td", "<th"))


def facts(entries: Iterable[tuple[str, Any]]) -> Html:
    """A list of headings and what there is to say of each; without those of which there is nothing."""
    return tag(
        "dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in entries if value not in ("", None)]
    )


def folded(summary: Any, *children: Any, opened: bool = False, **attributes: Any) -> Html:
    """What a reader unfolds."""
    return tag("details", tag("summary", summary), *children, open=opened, **attributes)
