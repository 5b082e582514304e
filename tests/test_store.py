"""Values on disk: they come back exactly or are refused, and damage is found before anything is parsed."""

from __future__ import annotations

import asyncio
import builtins
import copy
import datetime as dt
import errno
import math
import os
import pickle
import shutil
import subprocess
import sys
import time
import zoneinfo
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import uuid1

import anyio.to_thread
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odibi_async import Secret
from odibi_async.errors import Damaged, OptionError, Unstorable
from odibi_async.store import Kept, Store, blobs
from odibi_async.store import store as storing
from odibi_async.store.blobs import SLICE, digest_of_bytes
from odibi_async.store.locks import Beacon, sweep

DIGEST = "d" * 64


def there_and_back(store: Store, value: Any) -> Any:
    return store.load(Kept.from_json(store.keep(value, DIGEST).to_json()))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def file_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store that makes a file of every value."""
    monkeypatch.setattr(storing, "INLINE", -1)
    return store


# What "identical" means


def same(one: Any, other: Any) -> bool:
    """Equal, with equal types all the way down; NaN equals NaN, and -0.0 does not equal 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, pd.DataFrame):
        columns = (
            [same(one.iloc[:, i], other.iloc[:, i]) for i in range(one.shape[1])]
            if one.shape == other.shape
            else [False]
        )
        return all(columns) and same(one.columns, other.columns) and _same_about(one, other)
    if isinstance(one, pd.Series):
        return _same_arrays(one.array, other.array) and same(one.name, other.name) and _same_about(one, other)
    if isinstance(one, pd.MultiIndex):
        levels = [same(a, b) for a, b in zip(one.levels, other.levels, strict=True)]
        codes = [same(np.asarray(a), np.asarray(b)) for a, b in zip(one.codes, other.codes, strict=True)]
        return same(list(one.names), list(other.names)) and all(levels) and all(codes)
    if isinstance(one, pd.RangeIndex):
        return repr(one) == repr(other)
    if isinstance(one, pd.Index):
        frequencies = getattr(one, "freq", None), getattr(other, "freq", None)
        return _same_arrays(one.array, other.array) and same(one.name, other.name) and same(*frequencies)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes("A") == other.tobytes("A")
    if isinstance(one, pa.Table):
        return bool(one.schema.equals(other.schema, check_metadata=True) and one.equals(other))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, (set, frozenset)):
        return same(sorted(map(_key, one)), sorted(map(_key, other)))
    if isinstance(one, (dt.datetime, dt.time)):
        return _key(one) == _key(other) and type(one.tzinfo) is type(other.tzinfo)
    return _key(one) == _key(other)


def _key(value: Any) -> str:
    if isinstance(value, tuple):
        return repr(("tuple", [*map(_key, value)]))
    if isinstance(value, frozenset):
        return repr(("frozenset", sorted(map(_key, value))))
    fold = getattr(value, "fold", None)
    unit = getattr(value, "unit", None)
    data = value.tobytes() if isinstance(value, np.generic) else None
    return repr((value, fold, unit, data, math.copysign(1, value) if type(value) is float else None))


def _same_about(one: Any, other: Any) -> bool:
    return same(one.index, other.index) and same(one.attrs, other.attrs) and one.flags == other.flags


def _same_arrays(one: Any, other: Any) -> bool:
    if type(one) is not type(other) or repr(one.dtype) != repr(other.dtype) or len(one) != len(other):
        return False
    if isinstance(one, pd.Categorical):
        return same(one.categories, other.categories) and same(one.codes, other.codes) and one.ordered is other.ordered
    if isinstance(getattr(one.dtype, "numpy_dtype", one.dtype), np.dtype):
        cells, others = one.to_numpy(), other.to_numpy()
        if cells.dtype != object:
            return same(cells, others)
    return same(list(one), list(other))


def test_identical_tells_apart_what_pandas_takes_for_equal():
    for one, other in (
        (pd.Series([None], dtype=object), pd.Series([np.nan], dtype=object)),
        (pd.Series(["a"], dtype=object), pd.Series(["a"], dtype="string")),
        (pd.Series([0.0]), pd.Series([-0.0])),
        (pd.Series([1, True], dtype=object), pd.Series([1, 1], dtype=object)),
        (pd.date_range("2020", periods=3), pd.DatetimeIndex(list(pd.date_range("2020", periods=3)))),
        (1, True),
        (0.0, -0.0),
        ([1], (1,)),
    ):
        assert same(one, one)
        assert same(one, copy.deepcopy(one))
        assert not same(one, other)


# Plain values

ZONES = st.sampled_from(
    [None, dt.timezone.utc, dt.timezone(dt.timedelta(hours=-3, seconds=7)), zoneinfo.ZoneInfo("Europe/Berlin")]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**30, max_value=10**40),
    st.floats(),
    st.complex_numbers(allow_nan=False),
    st.text(),
    st.text(st.characters(categories=["Cs", "Lu"])),
    st.binary(),
    st.datetimes(timezones=ZONES),
    st.builds(dt.datetime.replace, st.datetimes(), fold=st.sampled_from([0, 1])),
    st.times(timezones=ZONES),
    st.dates(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.just(Decimal("-NaN12")),
    st.uuids(),
    st.builds(PurePosixPath, st.text(st.characters(exclude_characters="\0"))),
    st.builds(range, st.integers(), st.integers(), st.integers(min_value=1)),
    st.sampled_from([pd.NaT, pd.NA, Path("x"), PureWindowsPath("C:/x"), uuid1(), zoneinfo.ZoneInfo("UTC")]),
    st.sampled_from(
        [
            np.int8(-3),
            np.float32("nan"),
            np.bool_(True),
            np.complex64(1j),
            np.datetime64("NaT", "s"),
            np.uint64(2**64 - 1),
        ]
    ),
    st.sampled_from(
        [np.datetime64("2020-01-01T00:00", "m"), np.timedelta64(3, "W"), np.float16(-0.0), np.datetime64(7, "25s")]
    ),
    st.sampled_from(
        [
            pd.Timestamp("2020-10-25 04:30", tz=zoneinfo.ZoneInfo("Europe/Berlin")),
            pd.Timestamp(1, unit="ns"),
            pd.Timedelta(3, "ms"),
            pd.Timedelta(-1),
        ]
    ),
    st.sampled_from(
        [
            pd.Timestamp("2020-10-25 00:30", tz="UTC").tz_convert(zoneinfo.ZoneInfo("Europe/Berlin")),
            pd.Timestamp("2020", tz="UTC"),
        ]
    ),
)
KEYS = SCALARS | st.tuples(SCALARS, SCALARS) | st.frozensets(st.integers())
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(KEYS, inner)
        | st.sets(KEYS)
        | st.builds(bytearray, st.binary())
    ),
    max_leaves=12,
)

often = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@often
@given(VALUES)
def test_plain_values_come_back_exactly(store: Store, value: Any):
    assert same(there_and_back(store, value), value)


def test_numbers_that_texts_have_trouble_with_come_back_exactly(store: Store):
    value = -(7**10_000)
    assert there_and_back(store, value) == value
    assert there_and_back(store, Decimal("sNaN123")).compare_total(Decimal("sNaN123")) == 0


def test_long_containers_come_back_exactly(file_store: Store):
    numbers = list(range(100_000))
    value = {
        "list": numbers,
        "tuple": tuple(map(str, numbers)),
        "deep": [[n, {n: None}] for n in numbers[:20_000]],
        "set": set(numbers),
    }
    assert there_and_back(file_store, value) == value


class Exact(int):
    pass


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def tower(height: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(height):
        value = [value]
    return value


SHARED: list[Any] = []


@pytest.mark.parametrize(
    ("value", "because"),
    [
        (object(), "builtins.object"),
        (Exact(1), "Exact"),
        ({"a": [Exact(1)]}, "Exact"),
        (lambda: 1, "function"),
        (circle(), "twice"),
        ([SHARED, SHARED], "twice"),
        (tower(1000), "nested in one another"),
        (Secret("s"), "secret"),
        ({"a": (Secret("s"),)}, "secret"),
        (np.array([object()]), "object"),
        (np.array([1.0], dtype="longdouble"), "longdouble|float128"),
        (np.longdouble(1), "longdouble"),
        (np.ma.masked_array([1]), "MaskedArray"),
        (dt.timezone(dt.timedelta(0), "mine"), "name of its own"),
        (zoneinfo.ZoneInfo.no_cache("Europe/Berlin"), "file of its own"),
        (pd.Timestamp(dt.datetime(2020, 10, 25, 2, 30), fold=1), "Timestamp"),
    ],
)
def test_what_would_change_is_refused_with_the_reason(store: Store, value: Any, because: str):
    with pytest.raises(Unstorable, match=because):
        store.keep(value, DIGEST)
    assert not store.directory.exists()


# Frames

CELLS = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint8": st.integers(0, 255),
    "float64": st.floats(),
    "float32": st.floats(width=32),
    "bool": st.booleans(),
    "datetime64[ns]": st.datetimes(dt.datetime(1800, 1, 1), dt.datetime(2200, 1, 1)) | st.just(pd.NaT),
    "datetime64[s]": st.datetimes(),
    "timedelta64[us]": st.timedeltas(dt.timedelta(-1000), dt.timedelta(1000)) | st.just(pd.NaT),
    "datetime64[ns, Europe/Berlin]": st.datetimes(
        dt.datetime(1800, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.timezone.utc)
    ),
    "Int16": st.integers(-(2**15), 2**15 - 1) | st.just(pd.NA),
    "Float64": st.floats(allow_nan=False) | st.just(pd.NA),
    "boolean": st.booleans() | st.just(pd.NA),
    "str": st.text(st.characters(exclude_categories=["Cs"])) | st.none(),
    "string[python]": st.text(st.characters(exclude_categories=["Cs"])) | st.just(pd.NA),
    "category": st.sampled_from(["a", "b", None]),
    "period[M]": st.sampled_from([pd.Period("2020-01", "M"), pd.NaT]),
    "int32[pyarrow]": st.integers(-(2**31), 2**31 - 1) | st.none(),
    "object": st.text() | st.sampled_from([None, np.nan, pd.NA, pd.NaT]),
    "object, anything": SCALARS,
}


@st.composite
def columns(draw: st.DrawFn, rows: int) -> Any:
    dtype = draw(st.sampled_from(sorted(CELLS)))
    cells = draw(st.lists(CELLS[dtype], min_size=rows, max_size=rows))
    if not dtype.startswith("object"):
        return pd.Series(cells, dtype=dtype).array
    values = np.empty(rows, object)
    values[:] = cells
    return pd.Series(values, dtype=object).array


def typed(make: Any, array: Any) -> Any:
    """A series or an index of exactly these objects, which pandas would take for texts or moments."""
    return make(array, dtype=object if array.dtype == object else array.dtype)


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    rows, width = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    index = draw(st.none() | columns(rows))
    made = {n: typed(pd.Series, draw(columns(rows))) for n in range(width)}
    frame = pd.DataFrame(made, index=range(rows))
    frame.columns = pd.Index(
        draw(st.lists(st.sampled_from(["a", "b", 0, ("x", 1), None]), min_size=width, max_size=width)),
        tupleize_cols=False,
    )
    if index is not None:
        frame.index = typed(pd.Index, index).rename(draw(st.sampled_from([None, "i", ("i", 1)])))
    frame.attrs = draw(st.dictionaries(st.text(), SCALARS, max_size=1))
    return frame.iloc[:: draw(st.sampled_from([1, -1]))]


@often
@given(frames())
def test_frames_come_back_exactly(store: Store, frame: pd.DataFrame):
    assert same(there_and_back(store, frame), frame)


def odd_frames() -> dict[str, Any]:
    days = pd.date_range("2020", periods=3, freq="D")
    product = pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["x", None])
    mixed: list[Any] = [
        1,
        "x",
        None,
        1.5,
        {1},
        [2],
        Decimal("1.0"),
        float("nan"),
        np.int8(3),
        "\ud83d\ude00",
        b"x",
        (1,),
        True,
    ]
    made: dict[str, Any] = {
        "texts as objects": pd.DataFrame(
            {"a": pd.Series(["x", "y"], dtype=object)}, index=pd.Index(["u", "v"], dtype=object)
        ),
        "missing of every kind": pd.DataFrame({"a": pd.Series(["x", None, np.nan, pd.NA, pd.NaT, "ü"], dtype=object)}),
        "mixed objects": pd.DataFrame({"a": pd.Series(mixed, dtype=object)}),
        "numpy texts as objects": pd.DataFrame({"a": pd.Series([True, np.bool_(True)], dtype=object)}),
        "halves": pd.DataFrame({"a": np.array([1, 2], "f2")}),
        "nan with a payload": pd.DataFrame({"a": np.array([0x7FF8000000000001, 0xFFF8000000000000], "u8").view("f8")}),
        "one block": pd.DataFrame(np.arange(12.0).reshape(4, 3)),
        "fortran block": pd.DataFrame(np.asfortranarray(np.arange(12.0).reshape(4, 3))),
        "python strings": pd.DataFrame(
            {"a": pd.array(["a", None], pd.StringDtype("python")), "b": pd.array(["a", None], "string")}
        ),
        "nan and NA": pd.DataFrame({"a": pd.arrays.FloatingArray(np.array([np.nan, 1.0]), np.array([False, True]))}),
        "arrow": pd.DataFrame(
            {
                "list": pd.array([[1], None], pd.ArrowDtype(pa.list_(pa.int8()))),
                "string": pd.array(["a", None], pd.ArrowDtype(pa.string())),
                "dictionary": pd.Series(
                    pa.chunked_array([pa.array(["a", "b"]).dictionary_encode()]),
                    dtype=pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string())),
                ),
                "decimal": pd.array([Decimal("1.5"), None], pd.ArrowDtype(pa.decimal128(5, 2))),
                "moment": pd.array([dt.datetime(2020, 1, 1), None], pd.ArrowDtype(pa.timestamp("us", "UTC"))),
                "struct": pd.array([{"a": 1}, None], pd.ArrowDtype(pa.struct([("a", pa.int8())]))),
            }
        ),
        "arrow in chunks": pd.DataFrame({"a": pd.arrays.ArrowExtensionArray(pa.chunked_array([[1, 2], [3]]))}),
        "categories": pd.DataFrame(
            {"a": pd.Categorical(["b", None], categories=["b", "a", "z"], ordered=True), "b": pd.cut([1, 2], [0, 1, 5])}
        ),
        "categories of days": pd.DataFrame({"a": pd.Categorical(list(days), categories=days)}),
        "zones": pd.DataFrame(
            {
                "a": pd.date_range("2020-10-25", periods=5, freq="h", tz="Europe/Berlin"),
                "b": pd.date_range("2020", periods=5, unit="s", tz="UTC"),
            }
        ),
        "fixed offset": pd.DataFrame({"a": pd.date_range("2020", periods=3, tz="+01:30")}),
        "frequency": pd.DataFrame(
            {"a": [1, 2, 3]}, index=pd.date_range("2020", periods=3, freq="MS", tz="Europe/Berlin", name="when")
        ),
        "steps of time": pd.DataFrame({"a": [1, 2]}, index=pd.timedelta_range("1h", periods=2, freq="h")),
        "periods": pd.DataFrame(
            {"a": pd.period_range("2020", periods=2, freq="Q-NOV")}, index=pd.period_range("2020", periods=2, freq="M")
        ),
        "intervals": pd.DataFrame({"a": [1, 2]}, index=pd.interval_range(0, 2, closed="left", name="i")),
        "intervals of days": pd.DataFrame({"a": pd.arrays.IntervalArray.from_breaks(days)}),
        "intervals with gaps": pd.Series(pd.arrays.IntervalArray.from_tuples([(0, 1), np.nan])),
        "unused levels": pd.DataFrame(
            np.arange(16).reshape(4, 4), index=product, columns=pd.MultiIndex.from_product([["a", "b"], days[:2]])
        ).iloc[:2],
        "missing in levels": pd.DataFrame({"a": [1, 2]}, index=pd.MultiIndex.from_tuples([("a", 1), (None, 2)])),
        "duplicate columns": pd.DataFrame([[1, "a"], [2, "b"]], columns=["x", "x"]),
        "integer columns": pd.DataFrame([[1, 2]], columns=[0, 5], index=[7]),
        "days as columns": pd.DataFrame([[1, 2, 3]], columns=days),
        "named columns": pd.DataFrame([[1, 2]], columns=pd.Index(["a", "b"], name="c")),
        "category index": pd.DataFrame({"a": [1, 2]}, index=pd.CategoricalIndex(["u", "v"], name="q")),
        "boolean index": pd.DataFrame({"a": [1, 2]}, index=[True, False]),
        "step range": pd.DataFrame({"a": [1, 2]}, index=pd.RangeIndex(10, 0, -5, name="r")),
        "empty with columns": pd.DataFrame(
            {"a": [], "b": pd.Series([], dtype="str"), "c": pd.Series([], dtype=object)}
        ),
        "rows without columns": pd.DataFrame(index=range(5)),
        "nothing": pd.DataFrame(),
        "slice": pd.DataFrame({"a": ["x", "yy", "zzz"], "b": [1, 2, 3], "c": pd.array([1, None, 3], "Int8")})[1:][::-1],
        "series": pd.Series([1, 2], name=("a", 1)),
        "series of texts": pd.Series(["a"], dtype=object),
        "index": pd.Index(["a", None], dtype=object, name="i"),
        "multiindex": product,
    }
    if not pd.__version__.startswith("2."):
        made["python str"] = pd.DataFrame({"a": pd.array(["a", None], pd.StringDtype("python", na_value=np.nan))})
    made["integer columns"].flags.allows_duplicate_labels = False
    made["slice"].attrs = {"source": ("a.csv", 1)}
    return made


@pytest.mark.parametrize("name", odd_frames())
def test_odd_frames_come_back_exactly(store: Store, name: str):
    frame = odd_frames()[name]
    kept = store.keep(frame, DIGEST)
    assert same(store.load(kept), frame)
    assert kept.rows == (None if isinstance(frame, pd.Index) else len(frame))


class OwnFrame(pd.DataFrame):
    pass


class OwnType(pa.ExtensionType):
    def __init__(self) -> None:
        super().__init__(pa.int8(), "own")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, *_: object) -> Any:
        return cls()


OWN_TYPE = OwnType()


@pytest.mark.parametrize(
    ("frame", "because"),
    [
        (pd.DataFrame({"a": [1j]}), "column 'a': its type complex128"),
        (pd.DataFrame({"a": pd.arrays.SparseArray([0, 1])}), "column 'a': its type Sparse"),
        (pd.DataFrame({"a": [1], ("b", 1): [object()]}), r"column \('b', 1\): .*builtins.object"),
        (pd.DataFrame({"a": [SHARED, SHARED]}), "column 'a': the same list"),
        (pd.DataFrame({"a": [Secret("s")]}), "secret"),
        (pd.DataFrame({"a": np.array([1], ">i4")}), "column 'a': its type >i4"),
        (pd.DataFrame({"a": [1]}).set_axis(pd.Index([Exact(1)], dtype=object), axis=1), "Exact"),
        (
            pd.DataFrame(index=pd.date_range("2020", periods=2, freq=pd.offsets.CDay(holidays=["2020-01-02"]))),
            "frequency",
        ),
        (OwnFrame({"a": [1]}), "OwnFrame"),
        (pa.table({"a": pa.ExtensionArray.from_storage(OWN_TYPE, pa.array([1], pa.int8()))}), "extension"),
    ],
)
def test_frames_that_would_change_are_refused_with_the_column(store: Store, frame: Any, because: str):
    with pytest.raises(Unstorable, match=because):
        store.keep(frame, DIGEST)


def test_attributes_that_would_change_are_refused(store: Store):
    frame = pd.DataFrame({"a": [1]})
    frame.attrs = {"x": object()}
    with pytest.raises(Unstorable, match=r"a label or an attribute: .*object"):
        store.keep(frame, DIGEST)


def test_object_columns_longer_than_a_chunk_come_back_exactly(store: Store):
    texts = pd.Series([f"t{n}" if n % 7 else None for n in range(40_000)], dtype=object)
    mixed = pd.Series([n if n == 39_999 else f"t{n}" for n in range(40_000)], dtype=object)
    frame = pd.DataFrame({"texts": texts, "mixed": mixed})
    assert same(there_and_back(store, frame), frame)


def test_a_loaded_frame_can_be_written_to_and_outlives_its_file(file_store: Store):
    cells: dict[str, Any] = {"x": np.arange(4.0), "y": np.arange(4), "b": [True, False] * 2, "s": list("abcd")}
    cells |= {"o": pd.Series(list("abcd"), dtype=object), "i": pd.array([1, None, 3, 4], "Int8")}
    cells |= {"c": pd.Categorical(list("abab")), "t": pd.date_range("2020", periods=4)}
    frame = pd.DataFrame(cells | {"z": pd.date_range("2020", periods=4, tz="UTC")})
    kept = file_store.keep(frame, DIGEST)
    loaded = file_store.load(kept)
    file_store.discard(kept.blob)
    assert loaded["x"].to_numpy().flags.aligned
    for changed in (frame, loaded):
        changed["x"] += 1
        changed.loc[0, "x"] = -1.0
        for position in range(changed.shape[1]):
            changed.iloc[1, position] = changed.iloc[2, position]
        changed["y"].to_numpy(copy=True)[:] = 0
        del changed["b"]
        changed["new"] = 1
    assert same(loaded, frame)


def test_loading_twice_gives_values_that_share_nothing(file_store: Store):
    kept = file_store.keep(pd.DataFrame({"x": [1, 2]}), DIGEST)
    one, other = file_store.load(kept), file_store.load(kept)
    one.iloc[0, 0] = 7
    assert other.iloc[0, 0] == 1


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6)[::2],
        np.array(3, "i1"),
        np.empty((0, 3)),
        np.array(["a", "bcd"]),
        np.array([1, 2], ">u2"),
        np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
        np.array(["2020"], "M8[25s]"),
        np.array([1j]),
    ],
)
def test_arrays_come_back_exactly_and_writable(store: Store, array: Any):
    loaded = there_and_back(store, array)
    assert same(loaded, array)
    assert (
        loaded.flags.f_contiguous == np.asfortranarray(array).flags.c_contiguous
        or loaded.flags.f_contiguous == array.flags.f_contiguous
    )
    assert loaded.flags.writeable


def test_arrow_tables_come_back_with_their_metadata(store: Store):
    nested = pa.array([[1], None], pa.list_(pa.int8()))
    table = pa.table({"a": pa.chunked_array([["x"], [None]]), "b": nested}, metadata={"k": "v"})
    assert same(there_and_back(store, table), table)
    assert same(there_and_back(store, table.slice(1)), table.slice(1))


def test_texts_and_bytes_come_back_exactly(file_store: Store):
    for value in ("ü" * 5000, b"\0\n" * 5000, "", b"", "\ud800" * 5000):
        assert there_and_back(file_store, value) == value


# The same bytes


def test_a_directory_that_goes_while_it_is_looked_through_holds_nothing_more(file_store: Store):
    for number in range(20):
        file_store.keep(f"text {number}", "digest")
    found = file_store.blobs()
    assert next(found)
    shutil.rmtree(file_store.directory)
    assert list(found) == []
    assert file_store.leased_since() == math.inf


def test_equal_values_have_equal_blobs_and_are_written_once(file_store: Store, monkeypatch: pytest.MonkeyPatch):
    one = file_store.keep(pd.DataFrame({"a": [1]}), "1" * 64)
    monkeypatch.setattr(os, "replace", None)
    other = file_store.keep(pd.DataFrame({"a": [1]}), "2" * 64)
    assert one.blob == other.blob
    assert [blob for blob, _, _ in file_store.blobs()] == [one.blob]


def test_few_bytes_stand_in_the_row_and_make_no_file(store: Store):
    kept = store.keep({"a": 1}, DIGEST)
    assert kept.inline is not None
    assert not store.directory.exists()


def test_directories_and_files_are_the_owners_alone(file_store: Store):
    file_store.keep(1, DIGEST)
    for path in [file_store.directory, *file_store.directory.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


# Damage


def small_values() -> list[Any]:
    return [{"a": [1, 2]}, pd.DataFrame({"a": [1, 2]}), np.arange(3), "text", b"bytes"]


@pytest.mark.parametrize("value", small_values(), ids=lambda value: type(value).__name__)
def test_every_flipped_byte_is_found_and_the_value_can_be_kept_again(file_store: Store, value: Any):
    kept = file_store.keep(value, DIGEST)
    path = file_store._path(kept.blob)
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1 << position % 8]) + good[position + 1 :])
        with pytest.raises(Damaged, match="not those that were written"):
            file_store.load(kept)
        assert file_store.keep(value, DIGEST) == kept
        assert path.read_bytes() == good


@pytest.mark.parametrize("value", small_values(), ids=lambda value: type(value).__name__)
def test_every_truncation_is_found_before_loading(file_store: Store, value: Any):
    kept = file_store.keep(value, DIGEST)
    path = file_store._path(kept.blob)
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        assert not file_store.has(kept)
        with pytest.raises(Damaged):
            file_store.load(kept)
    path.write_bytes(good + b"\0")
    assert not file_store.has(kept)


def test_swapped_and_deleted_files_are_found(file_store: Store):
    one, other = file_store.keep([1], DIGEST), file_store.keep([2], DIGEST)
    file_store._path(one.blob).write_bytes(file_store._path(other.blob).read_bytes())
    assert file_store.has(one)
    for _ in range(2):  # wrong, then gone
        with pytest.raises(Damaged):
            file_store.load(one)
    assert not file_store.has(one)
    assert file_store.load(other) == [2]


def test_a_file_that_cannot_be_read_is_damage(file_store: Store):
    kept = file_store.keep([1], DIGEST)
    file_store.discard(kept.blob)
    file_store._path(kept.blob).mkdir()
    size = file_store._path(kept.blob).stat().st_size
    with pytest.raises(Damaged, match="cannot be read"):
        file_store.load(Kept(digest=DIGEST, kind="json", blob=kept.blob, size=size))


def test_what_stands_in_the_row_is_verified_too(store: Store):
    kept = store.keep([1], DIGEST)
    for inline in (b"[2]", b"", b"[1] "):
        with pytest.raises(Damaged):
            store.load(Kept(digest=DIGEST, kind="json", blob=kept.blob, size=kept.size, inline=inline))


@pytest.mark.parametrize("kind", ["frame", "series", "index", "table", "npy", "pickle", "unknown"])
def test_sound_bytes_of_another_kind_are_damage(store: Store, kind: str):
    kept = store.keep({"a": [1, 2, 3]}, DIGEST)
    with pytest.raises(Damaged):
        store.load(Kept(digest=DIGEST, kind=kind, blob=kept.blob, size=kept.size, inline=kept.inline))


@pytest.mark.parametrize(
    "change",
    [
        {"blob": "../../etc/passwd"},
        {"blob": 7},
        {"size": -1},
        {"size": "1"},
        {"inline": "?"},
        {"digest": None},
        {"more": 1},
    ],
)
def test_a_description_that_was_tampered_with_is_damage(store: Store, change: dict[str, Any]):
    with pytest.raises(Damaged):
        Kept.from_json(store.keep(1, DIGEST).to_json() | change)


# Pickles


class Trap:
    """Its unpickling leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return exec, (f"import pathlib; pathlib.Path({str(self.path)!r}).touch()",)


class Odd:
    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Odd) and other.value == self.value


def test_signed_pickles_keep_what_no_rule_keeps(tmp_path: Path):
    store = Store(tmp_path, pickle="signed", secret=Secret("key"))
    assert there_and_back(store, {"a": Odd(1)}) == {"a": Odd(1)}
    assert store.keep(1, DIGEST).kind == "json"
    for value in (lambda: 1, Odd(Secret("s")), {"a": [Secret("s")]}):
        with pytest.raises(Unstorable):
            store.keep(value, DIGEST)


def test_a_pickle_is_read_only_with_its_secret_and_its_digest(tmp_path: Path):
    trap = tmp_path / "trap"
    store = Store(tmp_path, pickle="signed", secret="key")
    kept = store.keep(Trap(trap), DIGEST)
    for other in (Store(tmp_path), Store(tmp_path, pickle="signed", secret=b"other")):
        with pytest.raises(Damaged):
            other.load(kept)
    with pytest.raises(Damaged, match="not signed"):
        store.load(Kept.from_json(kept.to_json() | {"digest": "e" * 64}))
    assert not trap.exists()
    store.load(kept)
    assert trap.exists()  # the trap is one


def test_an_unsigned_pickle_runs_no_code(tmp_path: Path):
    trap = tmp_path / "trap"
    data = pickle.dumps(Trap(trap))
    for store in (Store(tmp_path), Store(tmp_path, pickle="signed", secret="key")):
        for kind in ("pickle", "json", "frame", "npy", "table"):
            for bytes_ in (data, bytes(32) + data):
                kept = Kept(digest=DIGEST, kind=kind, blob=digest_of_bytes([bytes_]), size=len(bytes_), inline=bytes_)
                with pytest.raises(Damaged):
                    store.load(kept)
    assert not trap.exists()


def test_pickles_whose_class_is_gone_are_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(tmp_path, pickle="signed", secret="key")
    kept = store.keep(Odd(1), DIGEST)
    monkeypatch.delattr(sys.modules[__name__], "Odd")
    with pytest.raises(Damaged, match="Odd"):
        store.load(kept)


@pytest.mark.parametrize("options", [{"pickle": "always"}, {"pickle": "signed"}])
def test_impossible_options_are_refused(tmp_path: Path, options: Any):
    with pytest.raises(OptionError):
        Store(tmp_path, **options)


# Disks that fail


class Failing:
    """Every call of the patched functions is counted; the chosen one fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.calls, self.number = 0, number
        for name in ("replace", "mkdir", "makedirs"):
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))
        monkeypatch.setattr(blobs, "open", self.opened, raising=False)
        monkeypatch.setattr(storing, "open", self.opened, raising=False)

    def counted(self, call: Any) -> Any:
        def counting(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self.number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*args, **kwargs)

        return counting

    def opened(self, *args: Any, **kwargs: Any) -> Any:
        file = self.counted(builtins.open)(*args, **kwargs)
        if "x" not in args[1]:
            return file
        failing = self

        class File:
            write = staticmethod(failing.counted(file.write))

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                file.close()
                failing.counted(lambda: None)()

        return File()


def test_a_full_disk_at_any_call_is_an_oserror_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    value = "x" * (3 * SLICE)
    number, failed = 0, True
    while failed:
        number += 1
        store = Store(tmp_path / str(number))
        with monkeypatch.context() as patch:
            failing = Failing(patch, number)
            try:
                kept = store.keep(value, DIGEST)
                failed = False
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        assert [path for path in store.directory.rglob("*") if path.is_file() and path.suffix != ".lock"] == (
            [] if failed else [store._path(kept.blob)]
        )
        kept = store.keep(value, DIGEST)
        assert store.load(kept) == value
        store.close()
    assert failing.calls >= 10


def test_a_directory_that_cannot_be_made_is_an_oserror(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        Store(tmp_path / "file" / "store").keep("x" * 5000, DIGEST)


def test_a_directory_that_was_removed_is_made_again(tmp_path: Path, file_store: Store):
    import shutil

    file_store.keep(1, DIGEST)
    shutil.rmtree(file_store.directory)
    assert there_and_back(file_store, 1) == 1


# Who is alive

HOLDER = """
import sys
from pathlib import Path
from odibi_async.store import Store
from odibi_async.store.locks import Beacon
store = Store(sys.argv[1])
store.keep("x" * 5000, "d" * 64)
(store._work.folder / "half").write_text("half-written")
lease = store.lease()
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_leaves_is_swept_and_a_living_ones_never(tmp_path: Path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin
    assert holder.stdout
    with holder:
        assert holder.stdout.readline() == "ready\n"
        store = Store(tmp_path)
        store.sweep()
        assert len(list(tmp_path.glob("work/*/half"))) == 1
        assert abs(store.leased_since() - time.time()) < 60
        holder.kill()
        holder.wait()
    store.keep("y" * 5000, DIGEST)
    assert list(tmp_path.glob("work/*/half")) == []
    assert store.leased_since() == math.inf
    store.close()
    assert list(tmp_path.glob("work/*")) == []


def test_the_oldest_living_beacon_counts(tmp_path: Path):
    old, young = Beacon(tmp_path), Beacon(tmp_path)
    os.utime(old._path, (100, 100))
    assert sweep(tmp_path) == 100
    old.out()
    assert sweep(tmp_path) > 100
    young.out()
    assert list(tmp_path.iterdir()) == []


# The loop stays free


def large_frame(megabytes: int) -> pd.DataFrame:
    rows = megabytes * 2**20 // 60
    numbers = np.random.default_rng(1).integers(0, 10**9, rows)
    texts = np.array([f"customer {number}" for number in numbers], dtype=object)
    return pd.DataFrame({"x": numbers, "y": numbers * 0.5, "text": pd.Series(texts, dtype=object)})


@pytest.mark.parametrize(("megabytes", "late"), [(20, 0.050), pytest.param(100, 0.020, marks=pytest.mark.slow)])
async def test_the_loop_stays_free_while_a_frame_is_kept_and_loaded(store: Store, megabytes: int, late: float):
    frame = await anyio.to_thread.run_sync(large_frame, megabytes)
    gaps: list[float] = []

    async def watch() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last - 0.001)
            last = now

    watching = asyncio.create_task(watch())
    try:
        kept = await anyio.to_thread.run_sync(store.keep, frame, DIGEST)
        loaded = await anyio.to_thread.run_sync(store.load, kept)
    finally:
        watching.cancel()
    assert len(loaded) == len(frame)
    gaps.sort()
    assert gaps[len(gaps) // 2] < 0.010
    assert gaps[int(len(gaps) * 0.99)] < late
