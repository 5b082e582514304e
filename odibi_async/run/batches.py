"""What the batches of a streaming step are together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from odibi_async.dataset import engine_of
from odibi_async.errors import BatchesDiffer


def are_frames(batches: Sequence[Any]) -> bool:
    """Whether they are pandas frames, all of them, and there are any."""
    pandas = sys.modules.get("pandas")
    return bool(batches) and pandas is not None and all(isinstance(each, pandas.DataFrame) for each in batches)


def whole(step: str, batches: list[Any]) -> Any:
    """
    The dataset that batches make together: of pandas frames one frame, else the list of them. Blocks.

    Raises:
        BatchesDiffer: The frames have not the same columns of the same types.
    """
    if not are_frames(batches):
        return batches
    pandas = sys.modules["pandas"]
    first = batches[0]
    for number, batch in enumerate(batches):
        difference = _difference(first, batch)
        if difference:
            raise BatchesDiffer(step, number, difference)
    if len(batches) == 1:
        return first
    is_numbered = all(type(each.index) is pandas.RangeIndex and each.index.name is None for each in batches)
    return pandas.concat(batches, ignore_index=is_numbered)


def _difference(first: Any, batch: Any) -> str:
    """In which way a frame is unlike the first one; empty where it is like it."""
    assert engine_of(batch) == "pandas"
    columns, others = list(first.columns), list(batch.columns)
    if columns != others:
        lacks = [str(name) for name in columns if name not in others]
        more = [str(name) for name in others if name not in columns]
        if not (lacks or more):
            return f"the columns are in another order, {', '.join(map(str, others))},"
        parts = [f"there is no {', '.join(lacks)}"] if lacks else []
        parts += [f"there is also {', '.join(more)}"] if more else []
        return " and ".join(parts)
    for place, name in enumerate(columns):
        was, now = first.dtypes.iloc[place], batch.dtypes.iloc[place]
        if was != now and str(was) == str(now):
            return f"{name} is {now} of other values than in batch 0,"
        if was != now:
            return f"{name} is {now}, not {was} as in batch 0,"
    if type(first.index) is not type(batch.index) or list(first.index.names) != list(batch.index.names):
        return "the index is another one"
    if first.index.dtype != batch.index.dtype:
        return f"the index is {batch.index.dtype}, not {first.index.dtype} as in batch 0,"
    return ""
