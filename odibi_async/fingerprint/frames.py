"""The content of pandas frames, series and indexes: what a step can observe, not how their blocks are laid out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pandas as pd
from blake3 import blake3
from pandas.api.extensions import ExtensionArray, ExtensionDtype
from pandas.tseries.offsets import BaseOffset

from odibi_async.fingerprint.arrays import feed_array, feed_cells
from odibi_async.fingerprint.encoding import ROWS, Digesting, Undigestible, header, leaf, sealed, text

COPIES_ON_WRITE: Final = int(pd.__version__.partition(".")[0]) >= 3
"""Whether what is done to a shallow copy of a frame leaves the frame as it is."""


def digesting(value: Any) -> Digesting | None:
    """What encodes a value of pandas', or nothing for those that have no content."""
    return next((digests(value) for base, digests in _DIGESTING.items() if isinstance(value, base)), None)


def objects_in(value: Any) -> list[np.ndarray[Any, Any]]:
    """The columns, index and labels of a frame, a series or an index that hold Python objects of any kind."""
    if isinstance(value, pd.DataFrame):
        parts = [value.iloc[:, place] for place in range(value.shape[1]) if _is_object(value.dtypes.iloc[place])]
        parts += [*_flat(value.index), *_flat(value.columns)]
    else:
        parts = [value, *_flat(value.index)] if isinstance(value, pd.Series) else _flat(value)
    return [part.to_numpy() for part in parts if _is_object(part.dtype)]


def _flat(index: Any) -> list[Any]:
    """The levels of an index, which has no array of its own when there are several."""
    return list(index.levels) if isinstance(index, pd.MultiIndex) else [index]


def _is_object(dtype: Any) -> bool:
    return bool(dtype == "object")


def _frame(frame: Any) -> Digesting:
    hasher = blake3(text(str(frame.shape)))
    hasher.update((yield frame.columns, "'s columns", None))
    hasher.update((yield frame.index, "'s index", None))
    hasher.update((yield from _notes(frame)))
    for place, label in enumerate(frame.columns):
        hasher.update((yield frame.iloc[:, place].array, ", column {}", label))
    return sealed(header(type(frame)), hasher.digest())


def _series(series: Any) -> Digesting:
    hasher = blake3((yield series.name, "'s name", None))
    hasher.update((yield series.index, "'s index", None))
    hasher.update((yield from _notes(series)))
    hasher.update((yield series.array, "", None))
    return sealed(header(type(series)), hasher.digest())


def _notes(value: Any) -> Digesting:
    """What is attached to a frame or series: attributes and flags."""
    attributes = yield value.attrs, "'s attrs", None
    return attributes + (b"\1" if value.flags.allows_duplicate_labels else b"\0")


def _index(index: Any) -> Digesting:
    """A range differs from its numbers written out, and levels count with what no row uses: steps can tell."""
    hasher = blake3((yield tuple(index.names), "'s names", None))
    if isinstance(index, pd.RangeIndex):
        hasher.update((yield range(index.start, index.stop, index.step), "", None))
    elif isinstance(index, pd.MultiIndex):
        for place, (level, codes) in enumerate(zip(index.levels, index.codes, strict=True)):
            hasher.update((yield level, "'s level {}", place))
            hasher.update((yield np.asarray(codes), "'s level {}", place))
    else:
        hasher.update((yield getattr(index, "freq", None), "'s freq", None))
        hasher.update((yield index.array, "", None))
    return sealed(header(type(index)), hasher.digest())


def _array(array: Any) -> Digesting:
    """The values of a column, of whatever dtype; what lies under a missing one is noise."""
    hasher = blake3((yield array.dtype, "'s dtype", None))
    hasher.update(len(array).to_bytes(8, "little"))
    if hasattr(array, "_pa_array"):
        from odibi_async.fingerprint.arrow import digest_of_chunks

        hasher.update(digest_of_chunks(array._pa_array))
    elif hasattr(array, "asi8"):
        hasher.update((yield getattr(array, "freq", None), "'s freq", None))  # below pandas 3; columns have none
        feed_array(hasher, array.asi8)
    elif hasattr(array, "_mask"):
        _feed_masked(hasher, array._data, array._mask)
    elif isinstance(array, pd.Categorical):
        feed_array(hasher, array.codes)
    elif isinstance(array, pd.arrays.IntervalArray):
        hasher.update((yield (array.left, array.right), "", None))
    elif isinstance(array, pd.arrays.SparseArray):
        kept = type(array.sp_index).__name__, array.sp_index.to_int_index().indices, array.sp_values
        hasher.update((yield kept, "", None))
    elif isinstance(array, pd.arrays.NumpyExtensionArray):
        yield from _numpy(hasher, array._ndarray)
    else:
        raise Undigestible("", f"has the dtype {array.dtype}, whose content is unknown")
    return sealed(header(type(array)), hasher.digest())


def _numpy(hasher: blake3, array: np.ndarray[Any, Any]) -> Any:
    if array.ndim > 1:
        hasher.update((yield array, "", None))
    elif array.dtype == object:
        yield from feed_cells(hasher, array, ", row {}")
    else:
        feed_array(hasher, array)


def _feed_masked(hasher: blake3, data: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> None:
    feed_array(hasher, mask)
    for start in range(0, len(data), ROWS):
        piece = slice(start, start + ROWS)
        feed_array(hasher, np.where(mask[piece], data.dtype.type(0), data[piece]))


def _dtype(dtype: Any) -> Digesting:
    says = _SAYS.get(type(dtype), lambda dtype: (dtype.numpy_dtype,))
    return leaf(header(type(dtype)), (yield says(dtype), "", None))


def _parts(*names: str) -> Callable[[Any], Digesting]:
    """Encodes values by those of their attributes that are all there is to them."""

    def digesting(value: Any) -> Digesting:
        return leaf(header(type(value)), (yield tuple(getattr(value, name) for name in names), "", None))

    return digesting


_SAYS: Final[dict[type, Callable[[Any], tuple[Any, ...]]]] = {
    pd.CategoricalDtype: lambda dtype: (dtype.categories, dtype.ordered),
    pd.DatetimeTZDtype: lambda dtype: (dtype.unit, dtype.tz),
    pd.PeriodDtype: lambda dtype: (dtype.freq,),
    pd.IntervalDtype: lambda dtype: (dtype.subtype, dtype.closed),
    pd.SparseDtype: lambda dtype: (dtype.subtype, dtype.fill_value),
    pd.StringDtype: lambda dtype: (dtype.storage, dtype.na_value),
    pd.ArrowDtype: lambda dtype: (dtype.pyarrow_dtype,),
}
"""Type of a dtype -> its parts; all others wrap one of NumPy's."""

_DIGESTING: Final[dict[type, Callable[[Any], Digesting]]] = {
    pd.DataFrame: _frame,
    pd.Series: _series,
    pd.Index: _index,
    ExtensionArray: _array,
    ExtensionDtype: _dtype,
    BaseOffset: _parts("n", "normalize", "kwds"),
    pd.Timestamp: _parts("asm8", "tzinfo", "fold"),
    pd.Timedelta: _parts("asm8"),
    pd.Period: _parts("ordinal", "freq"),
    pd.Interval: _parts("left", "right", "closed"),
    type(pd.NaT): _parts(),
    type(pd.NA): _parts(),
}
"""Class -> what encodes its values, and those of the classes that pandas derives from it."""
