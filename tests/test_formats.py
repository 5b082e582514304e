"""What this engine writes it reads back as it was, and what it appends to stays as it was; or it refuses in words."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from pyarrow import feather

from odibi_async.engines.pandas import PandasEngine
from odibi_async.errors import OdibiError, OptionError, PathError

FORMATS = ["x.json", "x.jsonl", "x.jsonl.gz", "x.xlsx", "x.parquet", "x.feather"]
TEXTS = some.sampled_from(
    ["", "01234", "NA", "null", "1e5", "=1+1", "true", "2024-01-01", " x ", "ä\n,\"'", "nan", "x" * 40]
)
CELLS: list[some.SearchStrategy[Any]] = [
    some.floats(allow_infinity=False, width=64),
    some.sampled_from([1.5e-12, 1 / 3, 0.3, 0.1 + 0.2, 1e300, 5e-324, -0.0]),
    some.integers(-(2**63), 2**63 - 1),
    some.integers(-100, 100),
    some.booleans(),
    TEXTS,
    some.one_of(some.none(), TEXTS),
    some.datetimes(dt.datetime(1950, 1, 1), dt.datetime(2100, 1, 1)),
    some.one_of(some.none(), some.integers(2**53, 2**60)).map(lambda cell: pd.NA if cell is None else cell),
]


@some.composite
def frames(draw: Any) -> pd.DataFrame:
    rows = draw(some.integers(1, 5))
    columns = {}
    for place in range(draw(some.integers(1, 4))):
        cells = draw(some.sampled_from(CELLS))
        values = [draw(cells) for _ in range(rows)]
        whole = any(value is pd.NA for value in values)
        columns[draw(some.sampled_from(["modified", "at", "id", "date", "b"])) + str(place)] = pd.Series(
            values, dtype="Int64" if whole else None
        )
    return pd.DataFrame(columns)


def told(value: Any) -> Any:
    """A cell as it can be compared: missing is missing, a moment is its ISO text."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dt.datetime):
        return pd.Timestamp(value).isoformat()
    return value


def cells(frame: pd.DataFrame) -> dict[str, list[Any]]:
    return {str(name): [(type(each) is str, told(each)) for each in map(told, frame[name])] for name in frame}


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frame=frames(), more=frames())
def test_random_frames_come_back_as_they_were_or_are_refused(tmp_path: Path, name: str, frame: Any, more: Any) -> None:
    engine, file = PandasEngine(root=tmp_path), tmp_path / name
    try:
        engine.write(frame, name)
    except OdibiError:
        return
    assert cells(engine.read(name)) == cells(frame)
    for added in (frame, more.set_axis([*frame.columns, *more.columns][: more.shape[1]], axis=1)):
        before, bytes_before = engine.read(name), file.read_bytes()
        try:
            engine.write(added, name, mode="append")
        except OdibiError:
            assert file.read_bytes() == bytes_before
            continue
        if name.startswith("x.jsonl") and set(added) != set(before):
            return  # lines of another kind are nothing unusual there
        after = engine.read(name)
        assert cells(after.iloc[: len(before)]) == cells(before)
        assert cells(after.iloc[len(before) :]) == cells(added[list(before)])
        if name.endswith(("parquet", "feather")):
            assert list(after.dtypes) == list(before.dtypes)


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_json_says_numbers_to_the_last_digit_and_guesses_nothing(tmp_path: Path, name: str) -> None:
    engine = PandasEngine(root=tmp_path)
    moment = pd.Timestamp("2024-01-01 12:00:00.123456789")
    frame = pd.DataFrame(
        {"small": [1.5e-12], "third": [1 / 3], "code": ["01234"], "modified": [1], "when": [moment], "tiny": [0.3]}
    )
    engine.write(frame, name)
    [row] = [json.loads(line) for line in (tmp_path / name).read_text().strip("[]\n").split("\n")]
    assert row == {
        "small": 1.5e-12,
        "third": 1 / 3,
        "code": "01234",
        "modified": 1,
        "when": moment.isoformat(),
        "tiny": 0.3,
    }
    assert list(engine.read(name).iloc[0]) == list(row.values())


@pytest.mark.parametrize("value", [math.inf, 1j, b"x", decimal.Decimal("0.1000000000000000000001"), object()])
def test_what_json_cannot_carry_is_refused_by_column(tmp_path: Path, value: Any) -> None:
    with pytest.raises(OptionError, match=r"Writing 'x.json' as json: column 'a' holds"):
        PandasEngine(root=tmp_path).write(pd.DataFrame({"a": [value]}), "x.json")
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("value", [2**53 + 1, "=1+1", dt.datetime(2024, 1, 1, 0, 0, 0, 1), decimal.Decimal("1.1")])
def test_what_a_spreadsheet_cannot_carry_is_refused_by_column(tmp_path: Path, value: Any) -> None:
    with pytest.raises(OptionError, match=r"Writing 'x.xlsx' as excel: column 'a' holds"):
        PandasEngine(root=tmp_path).write(pd.DataFrame({"a": [value]}), "x.xlsx")
    assert not (tmp_path / "x.xlsx").exists()


@pytest.mark.parametrize("names", [["=1+1"], ["a", "a"], ["", "b"], ["a\rb"]])
def test_names_that_a_spreadsheet_cannot_carry_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(OptionError, match=r"Writing 'x.xlsx' as excel: a spreadsheet cannot carry the name of"):
        PandasEngine(root=tmp_path).write(pd.DataFrame([[1] * len(names)], columns=names), "x.xlsx")
    assert not (tmp_path / "x.xlsx").exists()


def test_a_sheet_with_a_name_is_checked_likewise(tmp_path: Path) -> None:
    engine = PandasEngine(root=tmp_path)
    with pytest.raises(OptionError, match="column 'a' holds '=1"):
        engine.write(pd.DataFrame({"a": ["=1+1"]}), "x.xlsx", sheet_name="data")
    engine.write(pd.DataFrame({"a": [1]}), "x.xlsx", sheet_name="data", freeze_panes=(1, 0))
    assert engine.read("x.xlsx", sheet_name="data")["a"].tolist() == [1]


def test_floats_in_a_spreadsheet_have_all_their_digits(tmp_path: Path) -> None:
    engine, frame = PandasEngine(root=tmp_path), pd.DataFrame({"a": [0.1 + 0.2, 100 / 7, 1e-300]})
    engine.write(frame, "x.xlsx")
    engine.write(frame, "x.xlsx", mode="append")
    assert engine.read("x.xlsx")["a"].tolist() == [*frame["a"], *frame["a"]]


def with_sheet(file: Path, pattern: bytes, text: bytes) -> None:
    """Changes the XML of the sheet in a spreadsheet, which no library here writes as other programs do."""
    with zipfile.ZipFile(file) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    with zipfile.ZipFile(file, "w") as book:
        for name, part in parts.items():
            book.writestr(name, re.sub(pattern, text, part) if name.endswith("sheet1.xml") else part)


def test_the_size_that_a_spreadsheet_says_of_a_sheet_is_not_believed(tmp_path: Path) -> None:
    engine, frame = PandasEngine(root=tmp_path), pd.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6]})
    engine.write(frame, "x.xlsx")
    with_sheet(tmp_path / "x.xlsx", b'<dimension ref="[^"]*"', b'<dimension ref="A1:A2"')
    assert engine.read("x.xlsx").to_dict("list") == frame.to_dict("list")


def test_an_append_that_would_lose_the_results_of_formulas_is_refused(tmp_path: Path) -> None:
    engine = PandasEngine(root=tmp_path)
    engine.write(pd.DataFrame({"a": [1], "b": [77]}), "x.xlsx")
    with_sheet(tmp_path / "x.xlsx", b"<v>77</v>", b"<f>A2*2</f><v>2</v>")
    before = (tmp_path / "x.xlsx").read_bytes()
    assert engine.read("x.xlsx")["b"].tolist() == [2]
    with pytest.raises(PathError, match="formulas, whose results would be lost"):
        engine.write(pd.DataFrame({"a": [5], "b": [6]}), "x.xlsx", mode="append")
    assert (tmp_path / "x.xlsx").read_bytes() == before


@pytest.mark.parametrize("name", ["x.parquet", "x.feather"])
@pytest.mark.parametrize("added", [[None], [1.5], ["x"], [2**64]])
def test_rows_that_would_change_the_type_of_a_column_are_refused(tmp_path: Path, name: str, added: list[Any]) -> None:
    engine = PandasEngine(root=tmp_path)
    engine.write(pd.DataFrame({"a": [9007199254740993]}), name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(PathError, match="what is appended does not fit"):
        engine.write(pd.DataFrame({"a": added}), name, mode="append")
    assert (tmp_path / name).read_bytes() == before
    engine.write(pd.DataFrame({"a": [9007199254740995]}), name, mode="append")
    assert list(engine.read(name)["a"]) == [9007199254740993, 9007199254740995]


ZONED = pd.to_datetime(["2024-01-01 05:00+05:00"])


@pytest.mark.parametrize("name", ["x.parquet", "x.feather"])
@pytest.mark.parametrize(
    ("there", "added"),
    [
        (pd.to_datetime(["2024-01-01"]), ZONED),
        (ZONED, pd.to_datetime(["2024-01-01"])),
        ([dt.date(2024, 1, 1)], pd.to_datetime(["2024-01-01 12:00"])),
        (np.array([1.5], dtype="float32"), [0.1]),
    ],
)
def test_values_that_a_column_would_bend_are_refused(tmp_path: Path, name: str, there: Any, added: Any) -> None:
    engine = PandasEngine(root=tmp_path)
    engine.write(pd.DataFrame({"a": there}), name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(PathError, match="what is appended does not fit"):
        engine.write(pd.DataFrame({"a": added}), name, mode="append")
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("name", ["x.parquet", "x.feather"])
def test_lists_are_appended_to_lists_and_shorter_floats_where_they_say_the_same(tmp_path: Path, name: str) -> None:
    engine = PandasEngine(root=tmp_path)
    engine.write(pd.DataFrame({"a": [[1, 2]], "f": np.array([1.5], dtype="float32")}), name)
    engine.write(pd.DataFrame({"a": [[3]], "f": [0.25]}), name, mode="append")
    assert [list(cell) for cell in engine.read(name)["a"]] == [[1, 2], [3]]
    assert engine.read(name)["f"].tolist() == [1.5, 0.25]


UNFIT: list[tuple[str, bytes]] = [
    ("x.csv", "a\nä\n".encode("latin-1")),
    ("x.csv", ("a\n" + "b\n" * 600_000 + "ä\n").encode("latin-1")),
    ("x.jsonl", '{"a": 1}'.encode("utf-16")),
    ("x.jsonl", '{"a": "ä"}'.encode("latin-1")),
    ("x.jsonl", b'[{"a": 1}]'),
    ("x.jsonl", b"hello\n"),
]


@pytest.mark.parametrize(("name", "content"), UNFIT, ids=range(len(UNFIT)))
def test_rows_that_would_make_a_file_unreadable_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PathError):
        PandasEngine(root=tmp_path).write(pd.DataFrame({"a": ["ö"]}), name, mode="append")
    assert (tmp_path / name).read_bytes() == content


def test_lines_of_json_are_appended_behind_a_byte_order_mark(tmp_path: Path) -> None:
    engine = PandasEngine(root=tmp_path)
    (tmp_path / "x.jsonl").write_text('\ufeff{"a": 1}\n', encoding="utf-8")
    engine.write(pd.DataFrame({"a": [2]}), "x.jsonl", mode="append")
    assert engine.read("x.jsonl")["a"].tolist() == [1, 2]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "latin-1"])
def test_lines_are_appended_in_the_encoding_of_the_file(tmp_path: Path, encoding: str) -> None:
    engine, frame = PandasEngine(root=tmp_path), pd.DataFrame({"a": ["ä"], "b": ["ö"]})
    engine.write(frame, "x.csv", encoding=encoding)
    before = (tmp_path / "x.csv").read_bytes()
    for _ in range(2):
        engine.write(frame, "x.csv", mode="append", encoding=encoding)
    assert (tmp_path / "x.csv").read_bytes().startswith(before)
    assert engine.read("x.csv", encoding=encoding)["a"].tolist() == ["ä"] * 3
    if encoding in ("utf-16", "utf-32", "utf-8-sig"):  # the file says itself what it is
        engine.write(frame, "x.csv", mode="append")
        assert engine.read("x.csv", encoding=encoding)["b"].tolist() == ["ö"] * 4


def test_a_csv_file_whose_rows_are_longer_than_its_header_does_not_shift(tmp_path: Path) -> None:
    engine = PandasEngine(root=tmp_path)
    (tmp_path / "x.csv").write_text("customer,amount\n1,30,\n2,20,\n")
    assert engine.read("x.csv").to_dict("list") == {"customer": [1, 2], "amount": [30, 20]}
    texts = (
        ("customer,amount\n1,30,7\n", 2),
        ("customer,amount\n1,30,\n2,20,7\n", 3),
        ('customer,amount\n1,"a\nb",\n\n2,20,7\n', 5),
    )
    for text, line in texts:
        (tmp_path / "x.csv").write_text(text)
        with pytest.raises(PathError, match=f"line {line} has 3 fields, but the header only 2.*index_col=0"):
            engine.read("x.csv")
    assert engine.read("x.csv", index_col=0).index.tolist() == [1, 2]


@pytest.mark.parametrize(
    "options",
    [{"header": 0}, {"skiprows": []}, {"comment": "#"}, {"names": ["a", "b"], "header": 0}, {"escapechar": "\\"},
     {"sep": r",\s*", "engine": "python"}, {"sep": None, "engine": "python"}, {"index_col": None}, {"quoting": 3}],
)  # fmt: skip
def test_no_option_lets_rows_that_are_longer_than_the_header_shift(tmp_path: Path, options: dict[str, Any]) -> None:
    engine = PandasEngine(root=tmp_path)
    for first in (0, 1):  # which pandas takes for an index of the usual kind
        (tmp_path / "x.csv").write_text(f"customer,amount\n{first},30,\n{first + 1},20,\n")
        assert engine.read("x.csv", **options).iloc[:, 0].tolist() == [first, first + 1]
        (tmp_path / "x.csv").write_text(f"customer,amount\n{first},30,\n{first + 1},20,7\n")
        with pytest.raises(PathError, match=r"(line 3|row 2) has 3 fields, but the header only 2"):
            engine.read("x.csv", **options)
    assert engine.read("x.csv", usecols=["amount"])["amount"].tolist() == [30, 20]


def test_rows_that_are_longer_than_the_header_do_not_shift_in_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.csv.zip", "w") as archive:
        archive.writestr("x.csv", "customer,amount\n1,30,7\n")
    with pytest.raises(PathError, match="row 1 has 3 fields, but the header only 2"):
        PandasEngine(root=tmp_path).read("x.csv.zip")


@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_carriage_returns_in_texts_of_csv_are_no_ends_of_lines(tmp_path: Path, mode: Any) -> None:
    engine = PandasEngine(root=tmp_path)
    frame = pd.DataFrame({"a\rb": ["x\ry", "z\r\n", None], "n": [1, 2, 3], "f": [1.5, None, 2.0]})
    engine.write(frame[:0], "x.csv")
    engine.write(frame, "x.csv", mode=mode)
    pd.testing.assert_frame_equal(engine.read("x.csv"), frame)


BIG = 2**53 + 1


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.json", "x.jsonl", "x.parquet", "x.feather"])
def test_integers_beside_missing_values_keep_their_digits(tmp_path: Path, name: str) -> None:
    engine = PandasEngine(root=tmp_path)
    frame = pd.DataFrame({"id": pd.array([BIG, None], dtype="Int64"), "n": [1, None], "t": [1e300, None]})
    if name.endswith(("parquet", "feather")):  # as others write it, who do not say what pandas would make of it
        table = pa.Table.from_pandas(frame).replace_schema_metadata(None)
        pq.write_table(table, tmp_path / name) if name == "x.parquet" else feather.write_feather(
            table, str(tmp_path / name)
        )
    else:
        engine.write(frame, name)
    again = engine.read(name)
    assert again["id"].tolist() == [BIG, pd.NA]
    assert [str(dtype) for dtype in again.dtypes] == ["Int64", "float64", "float64"]


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_files_of_a_pattern_keep_the_values_that_each_of_them_has(tmp_path: Path, suffix: str) -> None:
    engine = PandasEngine(root=tmp_path)
    first = pd.DataFrame({"id": [BIG], "half": [BIG], "k": [1], "s": ["x"]})
    for place, frame in enumerate([first, pd.DataFrame({"half": [0.5], "k": [2], "s": ["y"]}), first[:0]]):
        engine.write(frame, f"in/{place}.{suffix}")
    frame = engine.read(f"in/*.{suffix}")
    assert frame["id"].tolist() == [BIG, pd.NA]
    assert frame["half"].tolist() == [BIG, 0.5]
    assert [str(frame[name].dtype) for name in ("k", "s")] == ["int64", "str"]


def test_each_file_of_a_pattern_is_read_as_its_own_suffix_says_and_named_in_faults(tmp_path: Path) -> None:
    engine = PandasEngine(root=tmp_path)
    for name in ("in/1.csv", "in/2.csv.gz", "in/3.parquet"):
        engine.write(pd.DataFrame({"a": [name]}), name)
    assert engine.read("in/*")["a"].tolist() == ["in/1.csv", "in/2.csv.gz", "in/3.parquet"]
    assert len(engine.read("in/*.csv*", format="csv")) == 2
    (tmp_path / "in/4.csv").write_text("a\n1,2\n")
    with pytest.raises(PathError, match=r"in/4\.csv' cannot be used: line 2"):
        engine.read("in/*.csv")


def test_rows_are_added_to_a_list_whose_bytes_stay(tmp_path: Path) -> None:
    engine = PandasEngine(root=tmp_path)
    (tmp_path / "x.json").write_text('[ {"id": "007", "n": 1.50} ]\n')
    engine.write(pd.DataFrame({"n": [0.1], "id": ["01"]}), "x.json", mode="append")
    assert (tmp_path / "x.json").read_text() == '[ {"id": "007", "n": 1.50},\n{"id": "01", "n": 0.1}]'
    (tmp_path / "x.json").write_text('{"a": 1}')
    with pytest.raises(PathError, match="list of objects"):
        engine.write(pd.DataFrame({"a": [1]}), "x.json", mode="append")


@pytest.mark.parametrize("sheet", ["two", 1, -2])
def test_a_sheet_that_is_not_there_is_told_of(tmp_path: Path, sheet: str | int) -> None:
    engine = PandasEngine(root=tmp_path)
    engine.write(pd.DataFrame({"a": [1]}), "x.xlsx")
    with pytest.raises(OptionError, match=r"There is no sheet .* Sheets: Sheet1"):
        engine.read("x.xlsx", sheet_name=sheet)
