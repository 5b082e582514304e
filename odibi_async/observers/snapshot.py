"""What a dataset looked like: its columns, how many rows it had, the first of them; and any value as JSON says it."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from odibi_async.dataset import KINDS
from odibi_async.secret import masked

ROWS: Final = 5
"""How many rows of a frame are shown."""
LETTERS: Final = 1_000
"""How much of a text is shown."""
ENTRIES: Final = 100
"""How many entries of a list or a mapping are shown."""
DEPTH: Final = 5
"""How many lists and mappings are shown in each other."""
CUT: Final = "…"
"""Stands for what is not shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """
    What a dataset looked like. It keeps nothing of the dataset but what it shows.

    Attributes:
        dataset: Its name.
        kind: The class of its value.
        row_count: `None` where it is no frame.
        columns: The labels of its columns.
        types: The type of each of them.
        rows: The first rows, a value a column.
    """

    dataset: str
    kind: str
    row_count: int | None = None
    columns: Sequence[Any] = ()
    types: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()

    @classmethod
    def of(cls, dataset: str, value: Any) -> Snapshot:
        """A snapshot of a frame or a series of pandas; of all else only the class is told. Looks at no other rows."""
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        known = KINDS[type(value)]
        if known is None or known.rows is None:
            return cls(dataset=dataset, kind=kind)
        frame = value if hasattr(value, "columns") else value.to_frame()
        return cls(
            dataset=dataset,
            kind=kind,
            row_count=len(frame),
            columns=frame.columns,
            types=[str(dtype) for dtype in frame.dtypes],
            rows=frame.iloc[:ROWS].to_numpy(dtype=object).tolist(),  # an array may keep the whole frame in memory
        )

    def told(self, timestamp: str | None, others: Sequence[str], secrets: Collection[str]) -> dict[str, Any]:
        """
        The snapshot in the words of ODIBI CORE.

        Args:
            timestamp: When the dataset looked so.
            others: The datasets that the step read, or made, besides.
            secrets: Texts that are not to be shown.
        """
        columns = _distinct(plain(label, secrets) for label in self.columns)
        schema = [{"column": column, "type": kind} for column, kind in zip(columns, self.types, strict=True)]
        return {
            "name": self.dataset,
            "timestamp": timestamp,
            "row_count": self.row_count,
            "schema": schema,
            "sample_data": [dict(zip(columns, (plain(v, secrets) for v in row), strict=True)) for row in self.rows],
            "metadata": {"type": self.kind, "others": list(others)},
        }


def schema_diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Which columns came and went between two snapshots that were told, and which changed their type."""
    old, new = ({entry["column"]: entry["type"] for entry in snapshot["schema"]} for snapshot in (before, after))
    return {
        "added_columns": [column for column in new if column not in old],
        "removed_columns": [column for column in old if column not in new],
        "changed_types": [
            {"column": column, "before": old[column], "after": kind}
            for column, kind in new.items()
            if old.get(column, kind) != kind
        ],
    }


def _distinct(labels: Iterable[Any]) -> list[str]:
    """The labels as texts; where some are the same, the later ones are numbered: `a`, `a.1`."""
    counts: dict[str, int] = {}
    for text in map(str, labels):
        label = text
        while label in counts:
            label = f"{text}.{counts[text]}"
            counts[text] += 1
        counts[label] = 1
    return list(counts)


# -- any value as JSON says it -----------------------------------------------------------------------------


def plain(value: Any, secrets: Collection[str] = (), depth: int = 0) -> Any:
    """
    A value as JSON can say it: numbers stay numbers, what is missing becomes `None`, all else lists, mappings
    and texts. Long ones are cut.

    Args:
        value: Anything at all.
        secrets: Texts that are not to be shown.
        depth: In how many lists and mappings it stands.
    """
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0 and value.dtype.kind in "biuf":
        value = value.item()
    if value is None or type(value).__name__ in ("NaTType", "NAType"):
        return None
    if isinstance(value, bool | int | float):
        return _number(value)
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _entries(value, lambda each: plain(each, secrets, depth + 1)) if depth < DEPTH else CUT
    text = masked(text_of(value), secrets)
    return text if len(text) <= LETTERS else text[:LETTERS] + CUT


def _number(value: float) -> Any:
    """Whole numbers beyond 64 bits and what is infinite become texts: not every reader of JSON knows them."""
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else text_of(value)
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def _entries(value: Any, made: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {str(made(key)): made(each) for key, each in itertools.islice(value.items(), ENTRIES)}
    entries = [made(each) for each in itertools.islice(value, ENTRIES)]
    return sorted(entries, key=str) if isinstance(value, set | frozenset) else entries


def text_of(value: Any) -> str:
    """What a value says of itself; ISO 8601 for times."""
    try:
        if isinstance(value, dt.date | dt.time):
            return value.isoformat()
        return repr(value) if isinstance(value, bytes | bytearray) else str(value)
    except Exception:  # it is anybody's: whatever is wrong with it, there is a story to tell
        return f"<{type(value).__name__} that cannot be shown>"
