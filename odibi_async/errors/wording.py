"""How messages are worded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def located(source: str, place: str) -> str:
    """A file and a place in it, as one writes them: `a.yaml:12:9`, `a.csv, row 3`."""
    if not place:
        return source
    return f"{source}{':' if place[0].isdigit() else ', '}{place}"


def with_article(noun: str) -> str:
    """A noun with `a` or `an` before it."""
    return f"{'an' if noun[:1] in 'aeiouAEIOU' else 'a'} {noun}"


def listed(where: str, faults: Sequence[str]) -> str:
    """The fault, or all of them under a headline."""
    if len(faults) == 1:
        return faults[0]
    indented = (fault.replace("\n", "\n    ") for fault in faults)
    return "\n  - ".join((f"{len(faults)} faults in the {where}:", *indented))


def one_line(text: str) -> str:
    """A text whose line breaks, control characters and marks that turn the direction of reading are escaped."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def shortened(names: Sequence[str], most: int = 8) -> str:
    """Names with commas between them; those beyond `most` are only counted."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A question that offers the known name nearest to `name`, with a leading space, or nothing."""
    import difflib  # 12 ms to import, for a message that few runs need

    spelled = {each.casefold(): each for each in known}
    nearest = difflib.get_close_matches(name.casefold(), list(spelled), n=1, cutoff=cutoff)
    return f" Did you mean {spelled[nearest[0]]!r}?" if nearest else ""
