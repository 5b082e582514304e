"""The story of a run: one page of HTML that needs nothing but itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from odibi_async.errors import OptionError
from odibi_async.files import location, replaced
from odibi_async.observers.record import RunRecord


def tell_story(record: RunRecord, path: str | os.PathLike[str], explanations: Mapping[str, Any] | None = None) -> str:
    """
    Writes the story of a run: a whole file, or none.

    Args:
        record: The run.
        path: The file; its folder is made if it is not there.
        explanations: Step -> what to say about it: a text, or a mapping (or a dataclass) of headings, such as purpose,
            details, formulas, result, to texts, lists or mappings.

    Returns:
        The path of the page.

    Raises:
        OptionError: The explanations are no mapping.
    """
    if explanations is not None and not isinstance(explanations, Mapping):
        raise OptionError(f"explanations={explanations!r}: a mapping of steps to what there is to say is needed.")
    from odibi_async.observers.story.page import page

    return write_whole(path, page(record, explanations or {}).encode("utf-8", "xmlcharrefreplace"))


def name_of_page(run_id: str) -> str:
    """What the file is called that has the story of a run: a name and no path, whatever the id is."""
    return f"story_{quote(run_id, safe=' ', errors='replace')}.html"


def write_whole(path: str | os.PathLike[str], content: bytes) -> str:
    """Writes a file, all of it or nothing; its path in full."""
    place = location(path, None)
    with replaced(place, None) as file:
        file.write(content)
    return str(place)
