"""What a dataset looked like: its columns, how many rows it had, the first of them; and any value as JSON says it."""

from __future__ import annotations

import datetime as dt
import fnmatch
import itertools
import math
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from odibi_async.dataset import ABSENT, engine_of, reader_copy
from odibi_async.secret import redacted

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


MASKED: Final = "•••"
"""Stands for a cell of a column that is masked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """
    How datasets are looked at.

    Attributes:
        samples: Whether rows are shown; else only columns, types and counts.
        mask: Patterns, such as `"*email*"`, of columns whose cells are not shown, in any case of letters.
    """

    samples: bool = True
    mask: Sequence[str] = ()

    def masks(self, column: Any) -> bool:
        """Whether the cells of a column are not shown."""
        name = str(column).casefold()
        return any(fnmatch.fnmatchcase(name, pattern.casefold()) for pattern in self.mask)


def kind_of(value: Any) -> str:
    """The class of a value, as people call it."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """
    What a dataset looked like. It keeps nothing of the dataset but what it shows.

    Attributes:
        dataset: Its name.
        kind: The class of its value.
        row_count: `None` where it is not known, or no frame.
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
    def of(cls, dataset: str, value: Any, look: Look | None = None) -> Snapshot:
        """
        A snapshot of a frame or a series of pandas; of a Spark frame the columns; of all else only the class.

        Looks at no rows but the first of a pandas frame. Runs no job of Spark.
        """
        kind, engine, look = kind_of(value), engine_of(value), look or Look()
        if engine == "spark":
            fields = list(value.schema)
            types = [str(field.dataType.simpleString()) for field in fields]
            return cls(dataset=dataset, kind=kind, columns=[field.name for field in fields], types=types)
        if not engine:
            return cls(dataset=dataset, kind=kind)
        frame = value if hasattr(value, "columns") else value.to_frame()
        rows = frame.iloc[:ROWS].to_numpy(dtype=object).tolist() if look.samples else ()  # the array may keep the frame
        masked = [place for place, column in enumerate(frame.columns) if look.masks(column)]
        for row in rows:
            for place in masked:
                row[place] = MASKED
        return cls(
            dataset=dataset,
            kind=kind,
            row_count=len(frame),
            columns=frame.columns,
            types=[str(dtype) for dtype in frame.dtypes],
            rows=rows,
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


class Snapshots:
    """
    What the datasets of a run look like. Frames are looked at in a thread that lives while there is one to look at.

    Whoever asks for a snapshot that is not taken yet takes it: taking it twice is no error, and nobody waits.
    """

    def __init__(self, look: Look | None = None) -> None:
        self._look = look or Look()
        self._taken: dict[str, Snapshot] = {}
        self._waiting: dict[str, Any] = {}
        self._busy = False

    def __contains__(self, dataset: str) -> bool:
        return dataset in self._taken or dataset in self._waiting

    def take(self, dataset: str, value: Any) -> None:
        """Has a snapshot taken of a dataset as it is now. Takes microseconds."""
        if not engine_of(value):
            self._taken[dataset] = Snapshot(dataset=dataset, kind=kind_of(value))
            return
        self._waiting[dataset] = reader_copy(value)
        if not self._busy:
            self._busy = True
            threading.Thread(target=self._work, name="odibi snapshots", daemon=True).start()

    def get(self, dataset: str) -> Snapshot | None:
        """The snapshot of a dataset; `None` where there is none."""
        value = self._waiting.get(dataset, ABSENT)
        if value is not ABSENT:
            self._develop(dataset, value)
        return self._taken.get(dataset)

    def _develop(self, dataset: str, value: Any) -> None:
        try:
            self._taken[dataset] = Snapshot.of(dataset, value, self._look)
        except Exception:  # a session of Spark that is gone, a column type that fails at everything: no reason to fail
            self._taken[dataset] = Snapshot(dataset=dataset, kind=kind_of(value))
        self._waiting.pop(dataset, None)

    def _work(self) -> None:
        while self._waiting:
            dataset = next(iter(list(self._waiting)), None)
            value = ABSENT if dataset is None else self._waiting.get(dataset, ABSENT)
            if dataset is not None and value is not ABSENT:
                self._develop(dataset, value)
            del value
        self._busy = False
        if self._waiting and not self._busy:  # one came in between
            self._busy = True
            self._work()


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
    text = redacted(text_of(value), secrets)
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
