"""Digests of values and files: equal for equal content, different for anything that a step could tell."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import os
import pickle
import subprocess
import sys
import threading
import types
import uuid
import weakref
import zoneinfo
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odibi_async import Secret
from odibi_async.fingerprint import Undigestible, combined, digest_of, digest_of_file, is_mutable

UTC = datetime.timezone.utc
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


@dataclasses.dataclass(frozen=True)
class Point:
    x: Any
    y: Any = 0


@dataclasses.dataclass
class Spot:
    x: Any
    y: Any = 0


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Shade(enum.Enum):
    RED = 1


class Pair(NamedTuple):
    a: Any
    b: Any


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a: Any) -> None:
        self.a = a


class Row(dict[str, Any]):
    pass


class Number(int):
    pass


class Text(str):
    pass


class Grid(pd.DataFrame):
    pass


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns)


def objects(*cells: Any) -> pd.DataFrame:
    column = np.empty(len(cells), dtype=object)
    column[:] = cells
    return pd.DataFrame({"a": pd.Series(column, dtype=object)})


def named(value: Any, *names: Any) -> Any:
    value.index.names = names
    return value


def with_attrs(value: pd.DataFrame, **attrs: Any) -> pd.DataFrame:
    value.attrs.update(attrs)
    return value


def nan_with(payload: int) -> float:
    return float(np.array([0x7FF8_0000_0000_0000 + payload], dtype="u8").view("f8")[0])


def dated(unit: str, zone: str | None = None) -> pd.DataFrame:
    return frame(a=pd.to_datetime(["2020-06-01", "2021-06-01"]).as_unit(unit).tz_localize(zone))


DIFFERENT: dict[str, tuple[Any, ...]] = {
    "plain types": (None, False, 0, 0.0, 0j, "", b"", bytearray(), (), [], {}, set(), frozenset(), ...),
    "ones": (1, True, 1.0, "1", b"1", 1 + 0j, decimal.Decimal(1), fractions.Fraction(1), np.int64(1), np.int32(1)),
    "more ones": (np.float64(1), np.bool_(True), np.array(1), np.array([1]), pd.Series([1]), pd.Index([1]), Number(1)),
    "signs": (0.0, -0.0, 0, -1, 255, -256, 256, 2**64, -(2**64), float("nan"), float("inf"), float("-inf")),
    "digits": (decimal.Decimal("1.0"), decimal.Decimal("1.00"), decimal.Decimal("NaN"), 1.0),
    "nothing": (None, float("nan"), pd.NA, pd.NaT, np.datetime64("NaT", "ns"), np.float64("nan"), "", "nan", "None"),
    "texts": ("a", "b", "ab", "a\0b", "\ud800", "é", "e\u0301", "a" * 5000, "a" * 5001, b"a" * 5000),
    "nesting": (
        [],
        [[]],
        [[], []],
        [()],
        (),
        ((),),
        [None],
        {"a": []},
        {"a": {}},
        {},
        [1, 2],
        [2, 1],
        [12],
        ["1", "2"],
    ),
    "borders": (["ab", "c"], ["a", "bc"], ["abc"], ["a", "b", "c"], [b"ab", "c"], [["a"], "b"], ["a", ["b"]]),
    "kinds of containers": (
        {"a": 1},
        {"a": 2},
        {"b": 1},
        {1: "a"},
        {True: "a"},
        collections.OrderedDict(a=1),
        collections.defaultdict(int, a=1),
        collections.defaultdict(None, a=1),
        collections.Counter(a=1),
        Row(a=1),
        types.MappingProxyType({"a": 1}),
        types.SimpleNamespace(a=1),
        [("a", 1)],
        {("a", 1)},
    ),
    "order where it shows": (
        collections.OrderedDict([("a", 1), ("b", 2)]),
        collections.OrderedDict([("b", 2), ("a", 1)]),
        collections.deque([1, 2]),
        collections.deque([2, 1]),
        collections.deque([1, 2], 5),
    ),
    "times": (
        datetime.date(2020, 1, 1),
        datetime.datetime(2020, 1, 1),
        datetime.datetime(2020, 1, 1, tzinfo=UTC),
        datetime.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
        datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(0), "Z")),
        datetime.datetime(2020, 1, 1, fold=1),
        datetime.datetime(2020, 1, 1, microsecond=1),
        datetime.time(0),
        datetime.time(0, tzinfo=UTC),
        pd.Timestamp(2020, 1, 1),
        pd.Timestamp("2020-01-01").as_unit("s"),
        pd.Timestamp("2020-01-01", tz="UTC"),
        pd.Timestamp("2020-01-01", tz=BERLIN),
        np.datetime64("2020-01-01"),
        np.datetime64("2020-01-01", "ns"),
        "2020-01-01",
    ),
    "spans": (
        datetime.timedelta(1),
        datetime.timedelta(hours=1),
        pd.Timedelta(1, "D"),
        np.timedelta64(1, "D"),
        pd.Period("2020", "Y"),
        pd.Period("2020", "M"),
        pd.Interval(0, 1),
        pd.Interval(0, 1, closed="left"),
        range(3),
        range(1, 3),
        range(0, 3, 2),
        slice(3),
        slice(0, 3),
        [0, 1, 2],
        pd.offsets.Day(2),
        pd.offsets.CustomBusinessDay(holidays=["2020-01-01"]),
        pd.offsets.CustomBusinessDay(),
    ),
    "objects": (
        Point(1),
        Point(1, 1),
        Spot(1),
        Pair(1, 0),
        (1, 0),
        Slotted(1),
        Slotted(2),
        Colour.RED,
        Colour.BLUE,
        Shade.RED,
        Point,
        Spot,
        Colour,
        int,
        uuid.UUID(int=1),
        PurePosixPath("a"),
        Path("a"),
        "a",
    ),
    "functions": (
        len,
        max,
        abs,
        np.sum,
        np.mean,
        functools.partial(np.sum, axis=0),
        functools.partial(np.sum),
        "x".upper,
    ),
    "arrays": (
        np.zeros(4),
        np.zeros(4, "f4"),
        np.zeros(4, ">f8"),
        np.zeros(4, "i8"),
        np.zeros(4, "m8[ns]"),
        np.zeros(4, "M8[ns]"),
        np.zeros(4, "M8[s]"),
        np.zeros((2, 2)),
        np.zeros((4, 1)),
        np.zeros(4, object),
        np.zeros(4, bool),
        np.zeros(4, "S8"),
        np.zeros(4, "U2"),
        np.zeros(4, [("a", "f8")]),
        np.zeros(4, [("b", "f8")]),
        np.zeros(0),
        np.zeros((0, 4)),
        np.zeros((4, 0)),
        np.array([[1, 2], [3, 4]]),
        np.array([[1, 3], [2, 4]]),
        np.array(["a", None], dtype=object),
        np.array([None, "a"], dtype=object),
    ),
    "a value, rows, columns": (
        frame(a=[1, 2, 3], b=[4, 5, 6]),
        frame(a=[1, 2, 3], b=[4, 5, 7]),
        frame(a=[2, 1, 3], b=[5, 4, 6]),
        frame(b=[4, 5, 6], a=[1, 2, 3]),
        frame(a=[4, 5, 6], b=[1, 2, 3]),
        frame(a=[1, 2, 3], c=[4, 5, 6]),
        frame(a=[1, 2, 3]),
        frame(a=[1, 2], b=[4, 5]),
        frame(a=[1, 2, 3], b=[4, 5, 6]).T,
        Point(frame(a=[1])),
    ),
    "labels": (
        frame(a=[1]),
        frame(b=[1]),
        pd.DataFrame({1: [1]}),
        pd.DataFrame({"1": [1]}),
        pd.DataFrame({1.0: [1]}),
        pd.DataFrame({True: [1]}),
        pd.DataFrame({("a", "b"): [1]}),
        pd.DataFrame([[1]]),
        pd.DataFrame({None: [1]}),
        frame(a=[1]).rename_axis(columns="a"),
        frame(a=[1]).rename_axis(columns="b"),
        frame(a=[1]).astype({"a": "i8"}).set_axis(pd.Index(["a"], dtype=pd.StringDtype("python")), axis=1),
        frame(a=[1]).set_axis(pd.CategoricalIndex(["a"]), axis=1),
        frame(a=[1]).rename_axis("a"),
        frame(a=[1]).set_flags(allows_duplicate_labels=False),
        with_attrs(frame(a=[1]), source="x"),
        with_attrs(frame(a=[1]), source="y"),
        frame(a=[1])["a"],
        frame(a=[1])["a"].rename("b"),
        frame(a=[1])["a"].rename(None),
    ),
    "dtypes": (
        frame(a=np.array([1, 2], "i8")),
        frame(a=np.array([1, 2], "i4")),
        frame(a=np.array([1, 2], "u8")),
        frame(a=np.array([1, 2], "f8")),
        frame(a=np.array([1, 2], "M8[ns]")),
        frame(a=np.array([1, 2], "m8[ns]")),
        frame(a=pd.array([1, 2], dtype="Int64")),
        frame(a=pd.array([1, 2], dtype="Float64")),
        frame(a=pd.array([1, 2], dtype="int64[pyarrow]")),
        frame(a=pd.array([1, 2], dtype=pd.SparseDtype("i8"))),
        frame(a=pd.array([1, 2], dtype=object)),
        frame(a=["1", "2"]),
        frame(a=pd.Categorical([1, 2])),
        frame(a=pd.period_range("1970-01-02", periods=2, freq="D")),
        frame(a=pd.interval_range(0, 2)),
        frame(a=pd.interval_range(0, 2, closed="left")),
    ),
    "dates": tuple(dated(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC", "Europe/Berlin"))
    + (dated("ns", "Europe/Paris"), frame(a=pd.period_range("2020", periods=2, freq="Y"))),
    "indexes": (
        frame(a=[1, 2]),
        frame(a=[1, 2]).set_axis([0, 1]),
        frame(a=[1, 2]).set_axis([1, 0]),
        frame(a=[1, 2]).set_axis([0.0, 1.0]),
        frame(a=[1, 2]).set_axis(pd.RangeIndex(1, 3)),
        frame(a=[1, 2]).set_axis(pd.RangeIndex(0, 4, 2)),
        frame(a=[1, 2]).set_axis(["0", "1"]),
        frame(a=[1, 2]).set_axis(pd.date_range("2020", periods=2)),
        frame(a=[1, 2]).set_axis(pd.DatetimeIndex(["2020-01-01", "2020-01-02"])),
        frame(a=[1, 2]).set_axis(pd.MultiIndex.from_arrays([[0, 1]])),
        frame(a=[1, 2]).set_axis(pd.MultiIndex.from_arrays([[0, 1], [0, 1]])),
        frame(a=[1, 2]).set_axis(pd.MultiIndex.from_arrays([[0, 1], [1, 0]])),
        named(frame(a=[1, 2]).set_axis(pd.MultiIndex.from_arrays([[0, 1], [1, 0]])), "x", None),
        frame(a=[1, 2]).set_axis(pd.CategoricalIndex([0, 1])),
        frame(a=[1, 2]).set_axis(pd.TimedeltaIndex([0, 1])),
    ),
    "cells": tuple(
        objects(cell, "x")
        for cell in (
            *(None, float("nan"), pd.NA, pd.NaT, 1, True, 1.0, "1", b"1", decimal.Decimal(1), np.int64(1), "x", ""),
            *(
                np.str_("1"),
                Text("1"),
                [1],
                (1,),
                {1},
                {"a": 1},
                [[1]],
                Point(1),
                datetime.date(2020, 1, 1),
                Colour.RED,
                np.array([1]),
                "a\0b",
            ),
        )
    ),
    "texts in cells": (
        objects("a", "bc"),
        objects("ab", "c"),
        objects("a\0b", "c"),
        objects("a", "b\0c"),
        objects("a", "b", "c"),
        objects("", "abc"),
        objects("a", None),
        objects("\ud800", "a"),
        objects(b"a", b"bc"),
        objects(*["x"] * 16_384, "y"),
        objects(*["x"] * 16_383, "y", "x"),
        objects(*["x"] * 16_384, None),
    ),
    "texts of other dtypes": (
        frame(a=pd.Series(["x", "y"], dtype=object)),
        frame(a=pd.Series(["x", "y"], dtype=pd.StringDtype("python"))),
        frame(a=pd.Series(["x", "y"], dtype=pd.StringDtype("pyarrow"))),
        frame(a=pd.Series(["x", "y"], dtype=pd.ArrowDtype(pa.string()))),
        frame(a=pd.Series(["x", "y"], dtype=pd.ArrowDtype(pa.large_string()))),
        frame(a=pd.Series(["x", "y"], dtype="category")),
        frame(a=pd.Series(["y", "x"], dtype=pd.StringDtype("pyarrow"))),
        frame(a=pd.Series(["x", None], dtype=pd.StringDtype("pyarrow"))),
        frame(a=pd.Series(["x", ""], dtype=pd.StringDtype("pyarrow"))),
        frame(a=pd.Series([None, "x"], dtype=pd.StringDtype("pyarrow"))),
        frame(a=pd.Series(["xy", ""], dtype=pd.StringDtype("pyarrow"))),
    ),
    "categories": (
        pd.Series(pd.Categorical(["x", "y"], ["x", "y"])),
        pd.Series(pd.Categorical(["x", "y"], ["y", "x"])),
        pd.Series(pd.Categorical(["x", "y"], ["x", "y", "z"])),
        pd.Series(pd.Categorical(["x", "y"], ["x", "y"], ordered=True)),
        pd.Series(pd.Categorical(["x", None], ["x", "y"])),
        pd.Series(["x", "y"]),
    ),
    "missing": (
        pd.Series([1, None], dtype="Int64"),
        pd.Series([1, 0], dtype="Int64"),
        pd.Series([None, 1], dtype="Int64"),
        pd.Series([1, None], dtype="float64"),
        pd.Series([1, None], dtype="Float64"),
        pd.Series([1, None], dtype="int64[pyarrow]"),
        pd.Series([1, 0], dtype="int64[pyarrow]"),
        pd.Series([True, None], dtype="boolean"),
        pd.Series([True, False], dtype="boolean"),
    ),
    "empty": (
        pd.DataFrame(),
        pd.DataFrame(index=[0]),
        pd.DataFrame(columns=["a"]),
        pd.DataFrame(columns=["b"]),
        frame(a=np.array([], "i8")),
        frame(a=np.array([], "i4")),
        frame(a=np.array([], "M8[ns]")),
        frame(a=pd.Series([], dtype="string")),
        frame(a=pd.Series([], dtype="category")),
        pd.Series([], dtype="i8"),
        pd.Index([], dtype="i8"),
        pa.table({}),
        pa.table({"a": pa.array([], pa.int64())}),
        pa.table({"a": pa.array([], pa.int32())}),
        pa.table({"a": pa.array([], pa.string())}),
    ),
    "tables": (
        pa.table({"a": [1, 2]}),
        pa.table({"b": [1, 2]}),
        pa.table({"a": [2, 1]}),
        pa.table({"a": [1, None]}),
        pa.table({"a": [None, 1]}),
        pa.table({"a": pa.array([1, 2], pa.int32())}),
        pa.table({"a": [1.0, 2.0]}),
        pa.table({"a": ["1", "2"]}),
        pa.table({"a": pa.array(["1", "2"], pa.large_string())}),
        pa.table({"a": [b"1", b"2"]}),
        pa.table({"a": [[1], [2]]}),
        pa.table({"a": [[1, 2], []]}),
        pa.table({"a": [[], [1, 2]]}),
        pa.table({"a": [None, [1, 2]]}),
        pa.table({"a": [[None], [1, 2]]}),
        pa.table({"a": [{"x": 1}, {"x": 2}]}),
        pa.table({"a": [{"x": 1}, None]}),
        pa.table({"a": [{"x": 1}, {"x": None}]}),
        pa.table({"a": [{"y": 1}, {"y": 2}]}),
        pa.table({"a": pa.array([1, 2], pa.timestamp("s"))}),
        pa.table({"a": pa.array([1, 2], pa.timestamp("ms"))}),
        pa.table({"a": pa.array([1, 2], pa.timestamp("ms", "UTC"))}),
        pa.table({"a": pa.array([True, False])}),
        pa.table({"a": pa.array([False, True])}),
        pa.table({"a": pa.array(["1", "2"]).dictionary_encode()}),
        pa.table({"a": pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int32()), ["2", "1"])}),
        pa.table({"a": pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), ["1", "2", "3"])}),
        pa.table({"a": pa.nulls(2)}),
        pa.table({"a": pa.array([[(1, 2)], []], pa.map_(pa.int64(), pa.int64()))}),
        pa.table({"a": pa.array([[(2, 1)], []], pa.map_(pa.int64(), pa.int64()))}),
        pa.table({"a": pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2))}),
        pa.table({"a": pa.array([decimal.Decimal("1.0"), None])}),
        pa.table({"a": [1, 2]}).replace_schema_metadata({"k": "v"}),
        pa.RecordBatch.from_pydict({"a": [1, 2]}),
        pa.table({"a": [1, 2]}).schema,
        pa.array([1, 2]),
        pa.chunked_array([[1, 2]]),
        *(pa.array(each, pa.string_view()) for each in (["x", None], [None, "x"]) if hasattr(pa, "string_view")),
        pa.int64(),
        pa.int32(),
    ),
}


def test_every_one_of_these_has_a_digest_of_its_own_among_its_like():
    for title, values in DIFFERENT.items():
        digests: dict[str, Any] = {}
        for value in values:
            digest = digest_of(value)
            assert digest not in digests, f"{title}: {value!r} and {digests[digest]!r}"
            digests[digest] = value


def test_a_digest_is_64_hex_letters():
    assert len(digest_of(1)) == 64
    assert set(digest_of(1)) <= set("0123456789abcdef")


def wide() -> pd.DataFrame:
    """A frame of every usual dtype, longer than a chunk."""
    rows = 40_000
    numbers = np.arange(rows)
    return pd.DataFrame(
        {
            "int": numbers,
            "float": np.where(numbers % 7, numbers / 3, np.nan),
            "flag": numbers % 2 == 0,
            "when": pd.to_datetime(numbers, unit="s"),
            "zoned": pd.to_datetime(numbers, unit="s", utc=True).tz_convert("Europe/Berlin"),
            "text": pd.Series([f"text {number % 100}" for number in range(rows)], dtype="str"),
            "gaps": pd.Series([None if number % 5 == 0 else str(number) for number in range(rows)], dtype="str"),
            "object": pd.Series([number if number % 3 == 0 else f"{number}" for number in range(rows)], dtype=object),
            "kind": pd.Categorical.from_codes(numbers % 3, ["c", "b", "a"]),
            "masked": pd.array(np.where(numbers % 4, numbers, -1), dtype="Int64"),
            "arrow": pd.Series(pa.array([None if n % 6 == 0 else n for n in range(rows)])).astype("int64[pyarrow]"),
        }
    )


def test_a_copy_is_equal():
    value = wide()
    digest = digest_of(value)
    assert digest_of(value.copy()) == digest
    assert digest_of(value.copy(deep=False)) == digest
    assert digest_of(pickle.loads(pickle.dumps(value))) == digest


def test_a_slice_of_a_larger_frame_equals_a_frame_of_its_own():
    value = wide()
    part = value.iloc[1000:30_000].reset_index(drop=True)
    own = pd.DataFrame({name: pd.Series(column.tolist(), dtype=column.dtype) for name, column in part.items()})
    assert digest_of(part) == digest_of(own)


def test_strided_rows_and_columns_lie_as_they_like():
    value = wide()
    strided = value[::2]
    assert digest_of(strided) == digest_of(strided.copy())
    numbers = np.arange(60_000.0).reshape(20_000, 3)
    by_row, by_column = pd.DataFrame(numbers), pd.DataFrame(np.asfortranarray(numbers))
    assert (
        digest_of(by_row)
        == digest_of(by_column)
        == digest_of(pd.DataFrame({n: numbers[:, n] for n in range(3)}).set_axis(by_row.columns, axis=1))
    )


def test_columns_added_one_by_one_equal_columns_at_once():
    at_once = frame(a=[1, 2], b=[3, 4], c=[5.0, 6.0])
    one_by_one = frame(a=[1, 2])
    one_by_one["b"] = [3, 4]
    one_by_one["c"] = [5.0, 6.0]
    assert digest_of(one_by_one) == digest_of(at_once)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_parquet_round_trip_that_restores_the_dtypes_is_equal(tmp_path: Path):
    value = wide().drop(columns=["object"])
    value.loc[1, "float"] = -0.0
    value.loc[2, "float"] = nan_with(5)
    value.to_parquet(tmp_path / "value.parquet")
    again = pd.read_parquet(tmp_path / "value.parquet")
    assert again.dtypes.equals(value.dtypes)
    assert digest_of(again) == digest_of(value)


def test_other_chunks_of_arrow_columns_are_equal():
    values = [None if n % 7 == 0 else n for n in range(1000)]
    for arrow in (
        pa.array(values),
        pa.array([None if n is None else str(n) for n in values]),
        pa.array([None if n is None else n % 2 == 0 for n in values]),
        pa.array([None if n is None else [n, None] * (n % 3) for n in values]),
        pa.array([None if n is None else {"x": n, "y": [str(n)]} for n in values]),
        pa.array([None if n is None else str(n % 9) for n in values]).dictionary_encode(),
        pa.array([None if n is None else [(n, str(n))] for n in values], pa.map_(pa.int64(), pa.string())),
        pa.array([None if n is None else [n, n] for n in values], pa.list_(pa.int64(), 2)),
        pa.array([None if n is None else decimal.Decimal(n) for n in values]),
    ):
        whole = pa.chunked_array([arrow])
        cut = pa.chunked_array([arrow[:0], arrow[:3], arrow[3:500], arrow[500:]])
        copied = pa.chunked_array([pa.concat_arrays([arrow[:123], arrow[123:]])])
        assert digest_of(cut) == digest_of(whole) == digest_of(copied), arrow.type
        assert digest_of(cut[100:300]) == digest_of(pa.chunked_array([arrow[100:300]])), arrow.type
        if not pa.types.is_dictionary(arrow.type):
            fresh = pa.array(arrow[100:300].to_pylist(), arrow.type)
            assert digest_of(fresh) == digest_of(arrow[100:300]), arrow.type


def test_what_lies_under_a_null_does_not_count():
    mask = np.array([False, True, False])
    ours, theirs = (pd.arrays.IntegerArray(np.array([1, noise, 3]), mask) for noise in (0, 99))
    assert digest_of(ours) == digest_of(theirs)
    arrow = [
        pa.Array.from_buffers(pa.int64(), 3, [pa.py_buffer(b"\x05"), pa.py_buffer(np.array([1, n, 3]))])
        for n in (0, 99)
    ]
    assert digest_of(arrow[0]) == digest_of(arrow[1])
    assert digest_of(arrow[0]) == digest_of(pa.array([1, None, 3]))
    texts = pa.array(["a", "NOISE", "c"])
    buffers = [pa.py_buffer(b"\x05"), *texts.buffers()[1:]]
    assert digest_of(pa.Array.from_buffers(pa.string(), 3, buffers)) == digest_of(pa.array(["a", None, "c"]))


def test_the_storage_of_a_text_dtype_may_use_either_width():
    narrow = pd.array(pa.array(["a", None]), dtype="str")
    wide = pd.array(pa.array(["a", None], pa.large_string()), dtype="str")
    assert digest_of(narrow) == digest_of(wide)


def test_reordered_dicts_are_equal_unless_their_order_is_asked_for():
    ours, theirs = {"a": 1, "b": [2]}, {"b": [2], "a": 1}
    assert digest_of(ours) == digest_of(theirs)
    assert digest_of([ours]) == digest_of([theirs])
    assert digest_of(ours, ordered=True) != digest_of(theirs, ordered=True)
    assert digest_of({1, 2, "x"}) == digest_of({"x", 2, 1})


def test_arrays_are_equal_in_row_and_in_column_order():
    value = np.arange(24).reshape(2, 3, 4)
    assert digest_of(np.asfortranarray(value)) == digest_of(value)
    assert digest_of(value.transpose(2, 1, 0).copy().transpose(2, 1, 0)) == digest_of(value)
    large = np.arange(600_000).reshape(2, 300_000)
    assert digest_of(np.asfortranarray(large)) == digest_of(large)
    assert digest_of(np.asfortranarray(large.astype(object)[:, :50])) == digest_of(large.astype(object)[:, :50])


def test_padding_between_the_fields_of_a_structured_array_is_noise():
    dtype = np.dtype([("a", "i1"), ("b", "i8")], align=True)
    ours, theirs = np.zeros(3, dtype), np.frombuffer(bytearray(b"\xff" * 3 * dtype.itemsize), dtype)
    theirs["a"], theirs["b"] = 0, 0
    assert ours.tobytes() != theirs.tobytes()
    assert digest_of(ours) == digest_of(theirs)


SCRIPT = """
import pandas as pd, datetime, sys
from odibi_async.fingerprint import digest_of
frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": pd.Series([{1, "y"}, "z"], dtype=object)})
def helper(x): return x in {"a", "b", "c", "d"}
def clean(x): return helper(x)
sets = [{"k": {"a", "b", None}}, frozenset("abcdef"), {"e", len, datetime.date(2020, 1, 1)}]
print(digest_of([frame, sets, clean]))
"""


def test_every_process_and_hash_seed_agrees():
    printed = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(printed) == 1


def test_plain_values_load_no_heavy_library():
    code = (
        "import sys; from odibi_async.fingerprint import digest_of, code_of; digest_of([1, {'a': (None,)}]); "
        "code_of(lambda x: x); print({'pandas', 'numpy', 'pyarrow', 'duckdb'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_threads_agree():
    value = wide()
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(digest_of, [value] * 16))) == 1


def test_a_file_goes_by_its_content(tmp_path: Path):
    ours, theirs = tmp_path / "ours.csv", tmp_path / "theirs.csv"
    ours.write_bytes(b"x" * 3_000_000)
    theirs.write_bytes(b"x" * 3_000_000)
    before = digest_of_file(ours), digest_of(ours)
    os.utime(ours, (0, 0))
    assert (digest_of_file(ours), digest_of(ours)) == before
    assert digest_of_file(theirs) == before[0]
    assert digest_of(theirs) != before[1]
    stat = ours.stat()
    ours.write_bytes(b"y" + b"x" * 2_999_999)
    os.utime(ours, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert digest_of_file(ours) != before[0]
    assert digest_of(ours) != before[1]


def test_a_path_to_nothing_goes_by_its_text_and_a_folder_by_nothing(tmp_path: Path):
    assert digest_of(tmp_path / "a") != digest_of(tmp_path / "b")
    assert digest_of(tmp_path / "a") == digest_of(tmp_path / "a")
    with pytest.raises(Undigestible, match="something other than a file"):
        digest_of(tmp_path)


def test_the_digest_of_a_file_may_be_known_to_the_caller(tmp_path: Path):
    (tmp_path / "a").write_text("x")
    asked: list[Any] = []

    def known(path: Any) -> str:
        asked.append(path)
        return "00" * 32

    digest_of({"path": tmp_path / "a"}, files=known)
    assert asked == [tmp_path / "a"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "odibi_async"


def test_secrets_are_told_apart_by_a_key_that_only_the_user_has(home: Path):
    ours = digest_of(Secret("a"))
    assert digest_of(Secret("a")) == ours
    assert digest_of(Secret("b")) != ours
    assert digest_of("a") != ours
    assert (home / "secret.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in home.iterdir()] == ["secret.key"]
    (home / "secret.key").unlink()
    assert digest_of(Secret("a")) != ours


def test_processes_that_make_the_key_at_once_agree(home: Path):
    code = (
        "from odibi_async import Secret; from odibi_async.fingerprint import digest_of; print(digest_of(Secret('a')))"
    )
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert len({process.communicate()[0] for process in started}) == 1
    assert [path.name for path in home.iterdir()] == ["secret.key"]


@pytest.mark.parametrize("damage", ["open to others", "too short", "no folder"])
def test_a_secret_without_a_sound_key_is_undigestible_and_never_shown(home: Path, damage: str):
    if damage == "no folder":
        home.parent.write_text("a file stands in the way")
    else:
        digest_of(Secret("hush"))
        if damage == "open to others":
            (home / "secret.key").chmod(0o644)
        else:
            (home / "secret.key").write_bytes(b"short")
    with pytest.raises(Undigestible, match=r"^params\['password'\] is a secret, and the key") as caught:
        digest_of({"password": Secret("hush")}, name="params")
    assert "hush" not in str(caught.value)


def test_what_cannot_be_digested_is_named_with_its_place():
    lock = threading.Event()
    for value, path in (
        (lock, "the value"),
        ([1, lock], "the value[1]"),
        ({"x": [lock]}, "the value['x'][0]"),
        (frame(a=[1], b=[lock]), "the value, column 'b', row 0"),
        (objects(*["x"] * 20_000, [lock]), "the value, column 'a', row 20000[0]"),
        (with_attrs(frame(a=[1]), x=lock), "the value's attrs['x']"),
        (Point(lock), "the value's attribute 'x'"),
        (np.array([lock]), "the value's element 0"),
    ):
        with pytest.raises(Undigestible) as caught:
            digest_of(value)
        assert str(caught.value) == f"{path} is a threading.Event, which has no content to identify it by"
        assert caught.value.what == path
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_what_contains_itself_is_undigestible_and_depth_is_no_limit():
    circle: list[Any] = [1]
    circle.append({"x": circle})
    with pytest.raises(Undigestible, match=r"^the value\[1\]\['x'\] contains itself$"):
        digest_of(circle)
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert digest_of(deep) != digest_of([deep])
    assert is_mutable(deep)
    shared = [1]
    assert digest_of([shared, shared]) == digest_of([[1], [1]])


class Awkward:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class Liar:
    __class__ = dict  # type: ignore[assignment]


class Hidden(threading.Thread):
    pass


def generated() -> Any:
    yield 1


ZOO: tuple[Any, ...] = (
    *(object(), Hidden(), Grid({"a": [1]}), generated(), (n for n in ()), iter([]), memoryview(b"x")),
    *(sys, types, threading.Lock(), threading.local(), sys.stdout, weakref.ref(Point), lambda x: x, Awkward(), Liar()),
    *(np.ma.array([1]), np.rec.array([(1,)]), np.random.default_rng(0), np.add, np.vectorize(len)),
    *(pd.DataFrame({"a": [1]}).groupby("a"), pd.Series([1]).rolling(1), pd.DataFrame.sum, pa.scalar(1), pa.compute.sum),
    *(
        type,
        Exception("x"),
        NotImplemented,
        types.SimpleNamespace(a=threading.Event()),
        os.environ,
        [].append,
        str.upper,
    ),
    *(
        property(len),
        list[int],
        int | None,
        type("X", (), {}),
        functools.lru_cache(len),
        operator_like := {}.get,
        2**100_000,
    ),
    *(
        frozenset([frozenset([object()])]),
        {object(): 1},
        {Point(1): [1]},
        {(1, 2): {3}},
        weakref.WeakSet(),
        bytes(5000),
    ),
    *(
        pa.array([1], pa.int64()).buffers()[1],
        pa.RunEndEncodedArray.from_arrays([1], [1]),
        np.dtype("f8"),
        pd.Int64Dtype(),
    ),
    *(
        np.array([(1, 2.0)], "i4,f8")[0],
        np.array(["a"], "U1")[0],
        np.longdouble(1),
        np.array([1], "f2"),
        decimal.getcontext(),
    ),
)


def digest_or_fault(value: Any) -> str:
    try:
        return digest_of(value)
    except Undigestible as fault:
        return str(fault)


@pytest.mark.parametrize("value", ZOO, ids=lambda value: type.__repr__(type(value)))
def test_odd_values_have_a_digest_that_stays_or_are_undigestible(value: Any):
    first, again = digest_or_fault(value), digest_or_fault(value)
    assert first == again
    assert len(first) == 64 or first.startswith(("the value", "the class"))
    assert is_mutable(value) in (True, False)


def test_what_derives_from_a_known_class_is_never_taken_for_it():
    assert digest_of(Number(1)) != digest_of(1)
    assert digest_of(Row(a=1)) != digest_of({"a": 1})
    assert digest_of(Row(a=1)) != digest_of(Row(a=2))
    with pytest.raises(
        Undigestible, match=r"is a tests.test_fingerprint.Grid, and what its base pandas.*DataFrame holds"
    ):
        digest_of(Grid({"a": [1]}))
    with pytest.raises(Undigestible):
        digest_of(np.ma.array([1, 2], mask=[True, False]))


def test_objects_go_by_their_state():
    one, other = Slotted(1), Slotted(1)
    assert digest_of(one) == digest_of(other)
    other.b = 2
    assert digest_of(one) != digest_of(other)
    assert digest_of(Spot([1])) == digest_of(Spot([1]))
    assert digest_of(Spot([1])) != digest_of(Spot([2]))


def test_an_object_that_hides_its_attributes_is_undigestible():
    class Hiding:
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            return {}

    with pytest.raises(Undigestible, match="which hides its attributes"):
        digest_of(Hiding())


def test_objects_and_classes_go_by_the_code_of_their_class_too():
    def build(factor: int) -> Any:
        class Price:
            def total(self) -> int:
                return 3 * factor

        return Price

    assert digest_of(build(2)) == digest_of(build(2))
    assert digest_of(build(2)) != digest_of(build(3))
    assert digest_of(build(2)()) == digest_of(build(2)())
    assert digest_of(build(2)()) != digest_of(build(3)())


def test_combined_does_not_depend_on_the_order_and_does_on_names():
    assert combined({"a": "1", "b": "2"}) == combined({"b": "2", "a": "1"})
    assert (
        len({combined(each) for each in ({"a": "1", "b": "2"}, {"a": "2", "b": "1"}, {"a": "1"}, {}, {"a1": ""})}) == 5
    )


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            1,
            1.5,
            "x",
            b"x",
            (1, ("a", None)),
            frozenset([1]),
            datetime.datetime(2020, 1, 1),
            Point(1),
            Colour.RED,
        ),
        *(
            range(3),
            slice(1),
            PurePosixPath("a"),
            Secret("x"),
            np.float64(1),
            pd.Timestamp("2020"),
            pd.NA,
            len,
            Point,
            Pair(1, 2),
        ),
        *(pd.Index(["x"]), pa.table({"a": [1]})),
    ],
    ids=repr,
)
def test_these_nobody_can_change(value: Any):
    assert not is_mutable(value)


@pytest.mark.parametrize(
    "value",
    [
        *([], {}, set(), bytearray(), (1, [2]), np.zeros(1), Spot(1), Point([1]), Slotted(1), Row(), Pair(1, [])),
        *(
            collections.deque(),
            objects(1, [2]),
            pd.Series([{}, 1]),
            pd.array([1]),
            types.SimpleNamespace(),
            object.__new__(Hidden),
            Path("file.csv"),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_these_somebody_could_change(value: Any):
    assert is_mutable(value)


@pytest.mark.parametrize("value", [frame(a=[1], b=["x"]), objects(1, "x", None, (1,)), pd.Series([1])])
def test_frames_nobody_can_change_where_copies_are_made_on_write(value: Any):
    assert is_mutable(value) == (int(pd.__version__.split(".")[0]) < 3)


def test_the_labels_of_several_levels_are_looked_at_level_by_level(monkeypatch: pytest.MonkeyPatch):
    index = pd.MultiIndex.from_product([["x", "y"], range(3)])

    def rows(*_: object) -> Any:
        raise AssertionError("a tuple for each row was made")

    monkeypatch.setattr(pd.MultiIndex, "to_numpy", rows)
    for value in (frame(a=range(6)).set_index(index), pd.Series(range(6), index), index):
        assert is_mutable(value) == (not isinstance(value, pd.Index) and int(pd.__version__.split(".")[0]) < 3)


@pytest.mark.parametrize("value", [Path("file.csv"), [{"at": Path("file.csv")}], objects(Path("file.csv"))])
def test_paths_can_be_refused(value: Any):
    digest_of(value)
    with pytest.raises(Undigestible, match="is a path, and what is there may change or disappear"):
        digest_of(value, paths=False)


def test_attributes_that_a_reader_changes_are_its_own():
    value = with_attrs(frame(a=[1]), notes=[1])
    digest = digest_of(value)
    value.copy(deep=False).attrs["notes"].append(2)
    assert digest_of(value) == digest


cells = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(width=32), st.text(max_size=3), st.binary(max_size=2)
)
columns = st.one_of(
    st.lists(st.integers(-(2**62), 2**62), min_size=3, max_size=3).map(lambda values: pd.Series(values, dtype="i8")),
    st.lists(st.floats(), min_size=3, max_size=3).map(lambda values: pd.Series(values, dtype="f8")),
    st.lists(st.text(max_size=5).filter(str.isascii), min_size=3, max_size=3).map(
        lambda values: pd.Series(values, dtype="str")
    ),
    st.lists(cells, min_size=3, max_size=3).map(lambda values: pd.Series(values, dtype=object)),
    st.lists(st.one_of(st.none(), st.integers(-3, 3)), min_size=3, max_size=3).map(
        lambda values: pd.Series(values, dtype="Int64")
    ),
)
frames = st.dictionaries(st.text("abc", min_size=1, max_size=2), columns, min_size=1, max_size=4).map(pd.DataFrame)


@settings(deadline=None, max_examples=60)
@given(frames)
def test_frames_stay_equal_through_copies_slices_and_reordering_back(value: pd.DataFrame):
    digest = digest_of(value)
    assert digest_of(value.copy()) == digest
    assert digest_of(pd.concat([value, value], ignore_index=True).iloc[:3]) == digest
    assert digest_of(value[list(value.columns)[::-1]][list(value.columns)]) == digest
    assert digest_of(value.iloc[::-1].iloc[::-1]) != digest or isinstance(
        value.iloc[::-1].iloc[::-1].index, pd.RangeIndex
    )


@settings(deadline=None, max_examples=60)
@given(frames, st.data())
def test_one_change_anywhere_changes_the_digest(value: pd.DataFrame, data: st.DataObject):
    digest = digest_of(value)
    name = data.draw(st.sampled_from(list(value.columns)))
    row = data.draw(st.integers(0, 2))
    changed = value.copy()
    column = changed[name].tolist()
    if value[name].dtype == "str":
        column[row] += "!"
    elif value[name].dtype == object:
        column[row] = ["changed"]
    else:
        column[row] = 4 if column[row] is pd.NA or column[row] != 4 else 5
    changed[name] = pd.Series(column, dtype=value[name].dtype)
    if not changed.equals(value) or value[name].dtype == object:
        assert digest_of(changed) != digest
    assert digest_of(value.rename(columns={name: name + "x"})) != digest
