"""SQL over frames: what may be asked, what comes back, and that no query sees another's frames."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from odibi_async.engines.duckdb import Database, Interrupt
from odibi_async.errors import OdibiError, OptionError, SqlError

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")  # DuckDB's own, in its df() of zoned times

T = pd.DataFrame({"a": [1, 2], "k": ["x", "y"]})
ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE (a.range * b.range) % 7 = 3"
AT_MODULE_LEVEL = pd.DataFrame({"secret": [1]})


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    database = Database(threads=2)
    yield database
    database.close()


# what may be asked


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a FROM t",
        "SELECT a FROM t;  -- and no more",
        "(SELECT a FROM t)",
        "WITH u AS (SELECT a FROM t) SELECT a FROM u",
        "WITH RECURSIVE n(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM n WHERE a < 2) FROM n",
        "VALUES (1), (2)",
        "FROM t",
        "TABLE t",
        "UNPIVOT (SELECT a, a AS b FROM t) ON a",
        "FROM (PIVOT t ON k IN ('x', 'y') USING sum(a)) UNION ALL VALUES (3, 4)",
        "SELECT copy FROM (SELECT a AS copy FROM t)",
        "SELECT (copy) FROM (SELECT a AS copy FROM t)",
        "SELECT 'AS (COPY' FROM t -- AS (COPY",
        "DESCRIBE t",
        "SUMMARIZE t",
    ],
)
def test_one_select_is_run_however_it_is_put(database: Database, sql: str):
    assert len(database.run(sql, {"t": T})) == 2


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT 1; SELECT 2", "2 statements"),
        ("", "none"),
        ("-- nothing", "none"),
        ("CREATE TABLE z (a INT)", "CREATE"),
        ("CREATE TEMP TABLE z AS SELECT 1", "CREATE"),
        ("CREATE MACRO f(a) AS a", "CREATE"),
        ("INSERT INTO t VALUES (1, 'x')", "INSERT"),
        ("DELETE FROM t", "DELETE"),
        ("DROP TABLE t", "DROP"),
        ("COPY t TO '/tmp/x.csv'", "COPY"),
        ("ATTACH ':memory:' AS m", "ATTACH"),
        ("USE memory", "SET"),
        ("SET threads = 1", "SET"),
        ("SET VARIABLE x = 1", "SET"),
        ("RESET threads", "SET"),
        ("INSTALL json", "LOAD"),
        ("LOAD json", "LOAD"),
        ("PRAGMA version", "PRAGMA"),
        ("CALL pragma_version()", "CALL"),
        ("EXPLAIN SELECT 1", "EXPLAIN"),
        ("PREPARE p AS SELECT 1", "PREPARE"),
        ("BEGIN", "TRANSACTION"),
        ("EXPORT DATABASE '/tmp/x'", "EXPORT"),
        ("PIVOT t ON k USING sum(a)", r"PIVOT needs its values"),
        ("CREATE TABLE z AS (PIVOT t ON k USING sum(a))", "PIVOT needs its values"),
        ("WITH c AS (COPY t TO 'x.csv') SELECT 1", "COPY within WITH"),
        ("WITH ä AS /* ( */ MATERIALIZED (\n--\nINSERT INTO t VALUES (1)) SELECT 1", "INSERT within WITH"),
        ("SELEC 1", "syntax error"),
    ],
)
def test_everything_else_is_refused_with_what_was_found(database: Database, sql: str, found: str):
    with pytest.raises(SqlError, match=found):
        database.run(sql, {"t": T})


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM '{}'",
        "SELECT * FROM read_csv('{}')",
        "SELECT * FROM read_text('{}')",
        "SELECT * FROM read_blob('{}')",
        "SELECT * FROM read_parquet('{}')",
        "SELECT * FROM glob('{}')",
        "SELECT * FROM sniff_csv('{}')",
        "SELECT * FROM query('FROM read_text(''{}'')')",
        "SELECT getenv('{}')",
        "SELECT * FROM read_text('https://example.com/{}')",
    ],
)
def test_sql_reads_no_files(database: Database, tmp_path: Path, sql: str):
    file = tmp_path / "secret.csv"
    file.write_text("secret\n1\n")
    with pytest.raises(SqlError):
        database.run(sql.format(file), {})


def test_sql_reads_nothing_beside_the_folder_that_it_spills_to(tmp_path: Path):
    (tmp_path / "secret.csv").write_text("secret\n1\n")
    database = Database(temp_directory=str(tmp_path))
    spill = database.run("SELECT current_setting('temp_directory') AS path", {})["path"][0]
    assert Path(spill).parent == tmp_path
    assert Path(spill).stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "secret.csv", Path(spill) / ".." / "secret.csv"):
        with pytest.raises(SqlError, match="disabled by configuration"):
            database.run(f"SELECT * FROM read_text('{path}')", {})
    database.close()
    assert os.listdir(tmp_path) == ["secret.csv"]


def test_sql_sees_no_python_variables(database: Database):
    local = pd.DataFrame({"secret": [1]})
    for name in ("local", "AT_MODULE_LEVEL", "T"):
        with pytest.raises(SqlError, match="none of its inputs"):
            database.run(f"SELECT * FROM {name}", {"t2": local})


@pytest.mark.parametrize("setting", ["enable_external_access", "python_enable_replacements", "lock_configuration"])
def test_the_settings_are_locked_for_every_cursor(database: Database, setting: str):
    value = database.run("SELECT value FROM duckdb_settings() WHERE name = $name", {}, {"name": setting})["value"][0]
    assert value == ("true" if setting == "lock_configuration" else "false")


def test_threads_memory_and_spilling_are_what_was_said(tmp_path: Path):
    database = Database(threads=1, memory_limit="100MB", temp_directory=str(tmp_path))
    found = database.run("SELECT name, value FROM duckdb_settings()", {}).set_index("name")["value"]
    assert found["threads"] == "1"
    assert found["memory_limit"].startswith("95")
    big = "SELECT hash(i) || repeat('x', 40) AS s FROM range(2000000) r(i) ORDER BY s"
    assert database.run(f"SELECT count(*) AS n FROM ({big}) WHERE s > ''", {})["n"][0] == 2_000_000
    database.close()


def test_settings_that_duckdb_does_not_take_are_an_error_that_names_them(tmp_path: Path):
    with pytest.raises(OptionError, match=r"memory_limit.*lots"):
        Database(memory_limit="lots", temp_directory=str(tmp_path)).run("SELECT 1", {})
    assert os.listdir(tmp_path) == []


def test_the_database_is_made_when_it_is_first_needed(tmp_path: Path):
    database = Database(temp_directory=str(tmp_path))
    assert os.listdir(tmp_path) == []
    database.close()
    with pytest.raises(OdibiError, match="closed"):
        database.run("SELECT 1", {})


def test_a_database_that_nobody_closes_leaves_no_folder(tmp_path: Path):
    database = Database(temp_directory=str(tmp_path))
    database.run("SELECT 1", {})
    assert len(os.listdir(tmp_path)) == 1
    del database
    assert os.listdir(tmp_path) == []


# names and parameters


def test_a_table_that_is_missing_is_an_error_that_names_those_there_are(database: Database):
    with pytest.raises(SqlError) as caught:
        database.run("SELECT * FROM ordrs", {"orders": T, "customers": T})
    assert str(caught.value) == (
        "The query reads 'ordrs', which is none of its inputs. Did you mean 'orders'?\nKnown names: customers, orders."
    )
    with pytest.raises(SqlError, match="It has no inputs"):
        database.run("SELECT * FROM ordrs", {})


def test_other_mistakes_keep_duckdbs_words(database: Database):
    with pytest.raises(SqlError, match='Referenced column "nope" not found') as caught:
        database.run("SELECT nope FROM t", {"t": T})
    assert isinstance(caught.value.__cause__, duckdb.BinderException)


@pytest.mark.parametrize("name", ["a b", 'a"b', "a.b", "select", "ä", "t; DROP TABLE x", "sqlite_master", "'q'", "{}"])
def test_names_are_quoted_never_pasted(database: Database, name: str):
    quoted = '"' + name.replace('"', '""') + '"'
    assert_frame_equal(database.run(f"SELECT * FROM {quoted}", {name: T}), T)


@pytest.mark.parametrize("names", [("",), ("a\0b",), (1,), ("data", "Data"), ("straße", "STRASSE")])
def test_names_that_sql_cannot_tell_are_refused(database: Database, names: Any):
    with pytest.raises(SqlError, match=r"cannot be called|the same in SQL"):
        database.run("SELECT 1", dict.fromkeys(names, T))


def test_parameters_are_bound(database: Database):
    evil = "x' OR '1'='1"
    assert database.run("SELECT a FROM t WHERE k = $k", {"t": T}, {"k": evil}).empty
    day = dt.date(2020, 1, 2)
    found = database.run(
        "SELECT $day AS day, $n AS n, $none AS none", {}, {"day": day, "n": Decimal("1.5"), "none": None}
    )
    assert found.iloc[0].tolist() == [pd.Timestamp(day), 1.5, None]


@pytest.mark.parametrize("params", [None, {}, {"b": 1}, {"a": 1, "b": 2}])
def test_parameters_that_do_not_fit_are_an_error(database: Database, params: Any):
    with pytest.raises(SqlError, match="parameter"):
        database.run("SELECT $a", {}, params)


def test_a_parameter_that_the_query_does_not_have_is_named(database: Database):
    with pytest.raises(SqlError, match=r"The query has no parameter \$lwo, which is given. Did you mean 'low'\?"):
        database.run("SELECT $low", {}, {"lwo": 1})
    assert len(database.run("SELECT $Low", {}, {"low": 1})) == 1


# what comes back

VALUES = {
    "tinyint": "1::TINYINT", "utinyint": "1::UTINYINT", "smallint": "1::SMALLINT", "integer": "1",
    "uinteger": "1::UINTEGER", "bigint": "9007199254740993", "ubigint": "18446744073709551615::UBIGINT",
    "float": "1.5::FLOAT", "double": "1.1::DOUBLE", "decimal": "1.1::DECIMAL(4,1)", "price": "12345.67::DECIMAL(18,2)",
    "wide": "1.5::DECIMAL(38,10)", "boolean": "true", "varchar": "'ä'", "json": """'{"a": 1}'::JSON""",
    "enum": "'y'::ENUM('x', 'y')", "date": "DATE '2020-01-02'", "early": "DATE '0001-01-01'",
    "timestamp": "TIMESTAMP '2020-01-02 03:04:05.678901'", "timestamp_s": "'2020-01-02 03:04:05'::TIMESTAMP_S",
    "timestamp_ms": "'2020-01-02 03:04:05.678'::TIMESTAMP_MS",
    "timestamp_ns": "'2020-01-02 03:04:05.678901234'::TIMESTAMP_NS",
    "timestamptz": "'2020-01-02 03:04:05+02'::TIMESTAMPTZ", "null": "NULL", "blob": "'a'::BLOB", "bit": "'101'::BIT",
    "time": "TIME '12:30:01.5'", "interval": "INTERVAL '1 month 2 days 3 seconds'",
    "uuid": "'caa47aac-6d68-458e-8e4e-cfd5f279cf80'::UUID", "list": "[1, NULL]", "texts": "['a']",
    "lists": "[[1], [2]]", "dates": "[DATE '2020-01-02']", "struct": "{'a': 1, 'b': DATE '2020-01-02'}",
    "map": "MAP {'a': 1}", "array": "[1, 2]::INTEGER[2]",
}  # fmt: skip
SHAPES = {
    "one row": "SELECT {} AS v",
    "many rows": "SELECT {} AS v FROM range(5000)",
    "some NULL": "SELECT CASE WHEN i % 2 = 0 THEN {} END AS v FROM range(5000) r(i)",
    "all NULL": "SELECT CASE WHEN i < 0 THEN {} END AS v FROM range(3) r(i)",
    "no rows": "SELECT {} AS v FROM range(3) r(i) WHERE i < 0",
    "beside a list": "SELECT {} AS v, [1] AS w",
}


SHARED = Database(threads=1)
DUCKDB = duckdb.connect(":memory:")


def by_df(sql: str, **frames: pd.DataFrame) -> pd.DataFrame:
    with DUCKDB.cursor() as cursor:
        for name, frame in frames.items():
            cursor.register(name, frame)
        return cursor.sql(sql).df()


def plain_objects(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with masked arrays as lists: pandas' own comparison does not know them."""
    return frame.map(lambda value: value.tolist() if isinstance(value, np.ma.MaskedArray) else value)


def better(theirs: pd.DataFrame, ours: pd.DataFrame, kind: str = "") -> pd.DataFrame:
    """The same with what we do better: texts are `str` without rows, too, and large integers beside NULL are exact."""
    for i, dtype in enumerate(ours.dtypes):
        is_text = not len(theirs) and dtype == "str" and str(theirs.dtypes.iloc[i]) == "object"
        if is_text or (kind == "hugeint" and dtype == "Int64"):
            theirs.isetitem(i, theirs.iloc[:, i].astype(dtype))
    return theirs


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", VALUES)
def test_types_are_those_of_duckdbs_own_frames(database: Database, kind: str, shape: str):
    sql = SHAPES[shape].format(VALUES[kind])
    ours = database.run(sql, {})
    theirs = better(by_df(sql), ours, kind)
    assert ours.dtypes.tolist() == theirs.dtypes.tolist()
    assert_frame_equal(plain_objects(ours), plain_objects(theirs))


def test_all_types_come_back_together(database: Database):
    for kinds in (list(VALUES), [kind for kind in VALUES if kind not in ("uuid", "list", "map")]):
        sql = "SELECT " + ", ".join(f"{VALUES[kind]} AS {kind}_" for kind in kinds)
        assert_frame_equal(plain_objects(database.run(sql, {})), plain_objects(by_df(sql)))


@pytest.mark.parametrize("beside", ["", ", [1] AS w"], ids=["by Arrow", "by df"])
@pytest.mark.parametrize(
    ("sql", "expected", "dtype"),
    [
        ("SELECT sum(i) AS v FROM range(4) r(i)", [6], "int64"),
        ("SELECT 1::HUGEINT AS v WHERE false", [], "int64"),
        ("SELECT sum(i) AS v FROM range(0) r(i)", [np.nan], "float64"),
        ("SELECT 170141183460469231731687303715884105727 AS v", [2.0**127], "float64"),
    ],
)
def test_sums_of_integers_are_int64_where_that_says_the_same(
    database: Database, sql: str, expected: list[Any], dtype: str, beside: str
):
    frame = database.run(f"SELECT v{beside} FROM ({sql})", {})
    assert_frame_equal(frame[["v"]], pd.DataFrame({"v": expected}, dtype=dtype))


@pytest.mark.parametrize("beside", ["", ", list(k) AS w"], ids=["by Arrow", "by df"])
def test_sums_of_groups_are_exact_also_beside_null_and_lists(database: Database, beside: str):
    rows = "(VALUES (1, 9007199254740993), (1, 2), (2, NULL)) t(k, x)"
    frame = database.run(f"SELECT k, sum(x) AS v{beside} FROM {rows} GROUP BY k ORDER BY k", {})
    assert str(frame["v"].dtype) == "Int64"
    assert list(frame["v"]) == [9007199254740995, pd.NA]
    assert list(frame.columns)[:2] == ["k", "v"]


def test_texts_are_str_also_without_rows(database: Database):
    for beside in ("", ", [1] AS w"):
        assert database.run(f"SELECT 'a' AS v{beside} WHERE false", {})["v"].dtype == "str"


def test_sums_beyond_the_floats_are_exact(database: Database):
    assert database.run("SELECT sum(x) AS v FROM (VALUES (9007199254740993), (2)) t(x)", {})["v"][0] == 9007199254740995


@given(st.lists(st.decimals(-(10**12), 10**12, places=3) | st.none(), min_size=1, max_size=20))
@settings(deadline=None, max_examples=50)
def test_decimals_become_the_nearest_floats(numbers: list[Decimal | None]):
    texts = ", ".join("(NULL)" if number is None else f"({number}::DECIMAL(18,3))" for number in numbers)
    expected = [None if number is None else float(number) for number in numbers]
    for wide in ("v", "v::DECIMAL(38,3)"):
        found = SHARED.run(f"SELECT {wide} AS v FROM (VALUES {texts}) t(v)", {})["v"]
        assert [None if pd.isna(v) else v for v in found] == expected


@pytest.mark.parametrize("sql", ["SELECT 1 AS a, 2 AS a, 3 AS a_1", "SELECT 1 AS a, 2.5 AS A, NULL::INT AS a"])
def test_columns_of_one_name_are_told_apart_as_in_duckdb(database: Database, sql: str):
    assert_frame_equal(database.run(sql, {}), by_df(sql))


def test_a_result_can_be_changed(database: Database):
    frame = database.run("SELECT i::DOUBLE AS a, i AS b, 'x' AS c FROM range(3) r(i)", {})
    frame.loc[0, ["a", "b"]] = [7.0, 7]
    frame.loc[0, "c"] = "y"
    assert frame.iloc[0].tolist() == [7.0, 7, "y"]


# what goes in


def columns(values: st.SearchStrategy[Any], dtype: Any, nullable: bool = True) -> st.SearchStrategy[pd.Series[Any]]:
    values = values | st.none() if nullable else values
    return st.lists(values, min_size=3, max_size=3).map(lambda drawn: pd.Series(drawn, dtype=dtype))


FRAMES = st.dictionaries(
    st.sampled_from("abcd"),
    columns(st.integers(-(2**63), 2**63 - 1), "int64", nullable=False)
    | columns(st.floats(), "float64")
    | columns(st.integers(0, 255), "UInt8")
    | columns(st.booleans(), "boolean")
    | columns(st.text(st.characters(codec="utf-8")), "str")
    | columns(st.datetimes(dt.datetime(1, 1, 1)), "datetime64[us]")
    | columns(st.sampled_from(["x", "y"]), pd.CategoricalDtype(["x", "y"])),
    min_size=1,
).map(pd.DataFrame)


@given(FRAMES)
@settings(deadline=None, max_examples=60)
def test_frames_come_in_and_back_as_with_duckdb_itself(frame: pd.DataFrame):
    for sql in (
        "SELECT * FROM t",
        "SELECT * FROM t LIMIT 0",
        "SELECT count(*) AS n, t.* FROM t GROUP BY ALL ORDER BY ALL",
    ):
        ours = SHARED.run(sql, {"t": frame})
        assert_frame_equal(ours, better(by_df(sql, t=frame), ours))


def column_of(database: Database, values: Any, dtype: Any = None) -> tuple[str, list[Any]]:
    """How SQL sees a column: its type there, and its values as Python has them."""
    frame = pd.DataFrame({"v": pd.Series(values, dtype=dtype)})
    rows = database.run("SELECT typeof(v) AS kind, v::VARCHAR AS v FROM t", {"t": frame})
    return rows["kind"][0], [None if pd.isna(value) else value for value in rows["v"]]


UTC = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)
BERLIN = pd.Timestamp("2020-01-01 12:00", tz="Europe/Berlin")


@pytest.mark.parametrize(
    ("values", "dtype", "kind", "texts"),
    [
        ([1, None, np.nan, pd.NA], object, "BIGINT", ["1", None, None, None]),
        ([2**53 + 1, None], object, "BIGINT", ["9007199254740993", None]),
        ([2**70, 1], object, "DECIMAL(38,0)", ["1180591620717411303424", "1"]),
        ([1, 2.5], object, "DOUBLE", ["1.0", "2.5"]),
        ([True, None], object, "BOOLEAN", ["true", None]),
        (["a", None, np.nan], object, "VARCHAR", ["a", None, None]),
        ([1, "a", None], object, "VARCHAR", ["1", "a", None]),
        ([1, True], object, "VARCHAR", ["1", "True"]),
        ([dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, 5)], object, "VARCHAR", ["2020-01-01", "2020-01-01 05:00:00"]),
        ([Decimal("1.5"), Decimal("1.12345")], object, "DECIMAL(6,5)", ["1.50000", "1.12345"]),
        ([dt.date(2020, 1, 1), None], object, "DATE", ["2020-01-01", None]),
        ([pd.Timestamp("2020-01-01 00:00:00.123456789")], object, "TIMESTAMP_NS", ["2020-01-01 00:00:00.123456789"]),
        ([dt.datetime(2020, 1, 1), UTC], object, "VARCHAR", ["2020-01-01 00:00:00", "2020-01-01 00:00:00+00:00"]),
        ([[1], [2, 3]], object, "BIGINT[]", ["[1]", "[2, 3]"]),
        ([{"a": 1}, {"b": 2}], object, "STRUCT(a BIGINT, b BIGINT)", ["{'a': 1, 'b': NULL}", "{'a': NULL, 'b': 2}"]),
        ([None, None], object, '"NULL"', [None, None]),
        ([1, None], "Int64", "BIGINT", ["1", None]),
        ([True, None], "boolean", "BOOLEAN", ["true", None]),
        (["a", None], "string", "VARCHAR", ["a", None]),
        ([1, None], "int64[pyarrow]", "BIGINT", ["1", None]),
        ([Decimal("1.5"), None], pd.ArrowDtype(pa.decimal128(5, 1)), "DECIMAL(5,1)", ["1.5", None]),
        ([[1], None], pd.ArrowDtype(pa.list_(pa.int64())), "BIGINT[]", ["[1]", None]),
        (["b", "a", None], "category", "ENUM('a', 'b')", ["b", "a", None]),
        ([2**53 + 1, 2, None], "category", "BIGINT", ["9007199254740993", "2", None]),
        ([pd.Timestamp("2020-01-01"), None], "category", "TIMESTAMP", ["2020-01-01 00:00:00", None]),
        ([1.5, np.nan], "float16", "FLOAT", ["1.5", None]),
    ],
)
def test_columns_of_every_kind_come_in_right(database: Database, values: Any, dtype: Any, kind: str, texts: Any):
    assert column_of(database, values, dtype) == (kind, texts)


@pytest.mark.parametrize(("first", "late"), [(1, 2.5), (1, 2**40), (1, "z"), (Decimal("1.5"), Decimal("1.12345"))])
def test_a_late_value_of_an_object_column_is_not_bent_to_the_kind_of_the_first(
    database: Database, first: Any, late: Any
):
    values = [first] * 50_000 + [late] + [first] * 50_000
    kind, texts = column_of(database, values, object)
    assert (type(late) if kind != "VARCHAR" else str)(texts[50_000]) == late


def test_zoned_times_keep_their_moment(database: Database):
    for unit in ("s", "us", "ns"):
        frame = pd.DataFrame({"v": pd.Series([BERLIN, None]).dt.as_unit(unit)})  # type: ignore[arg-type]
        found = database.run("SELECT v, epoch(v) AS seconds FROM t", {"t": frame})
        assert found["seconds"][0] == BERLIN.timestamp()
        assert found["v"][0] == BERLIN


def test_an_index_is_not_a_column_and_the_order_of_rows_stays(database: Database):
    frame = pd.DataFrame({"a": [1, 2, 3]}, index=pd.Index([7, 8, 9], name="key"))
    for some in (frame, frame[::-1], frame[::2], frame[::-1].astype("Int64")):
        assert_frame_equal(database.run("FROM t", {"t": some}), some.reset_index(drop=True), check_dtype=False)


def test_a_frame_that_sql_cannot_read_is_named(database: Database):
    for frame in (pd.DataFrame({"v": [1 + 2j]}), pd.DataFrame()):
        with pytest.raises(SqlError, match="cannot read the frame 'odd'"):
            database.run("SELECT 1", {"odd": frame})


# isolation


@pytest.mark.parametrize("rounds", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_parallel_queries_that_share_a_name_each_read_their_own_frame(database: Database, rounds: int):
    def step(i: int) -> bool:
        frame = pd.DataFrame({"i": range(i, i + 3), "s": [f"s{i}"] * 3})
        found = database.run(
            "SELECT sum(i) AS i, min(s) AS low, max(s) AS high, count(*) AS n FROM data", {"data": frame}
        )
        return bool(found.iloc[0].tolist() == [3 * i + 3, f"s{i}", f"s{i}", 3])

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(step, range(rounds * 4)))


@pytest.mark.parametrize("sql", ["SELECT count(*) FROM t", "SELECT nope FROM t", "DROP VIEW t"])
def test_nothing_is_left_of_a_query_whatever_happens(database: Database, sql: str):
    frame = T.copy()
    gone = weakref.ref(frame)
    with contextlib.suppress(SqlError):
        database.run(sql, {"t": frame})
    assert database.run("SELECT * FROM duckdb_views() WHERE NOT internal", {}).empty
    assert database.run("SELECT * FROM duckdb_tables()", {}).empty
    del frame
    assert gone() is None


# interruption


class Reins:
    """Stops a query from another thread, again and again until it is over."""

    def __init__(self) -> None:
        self.interrupt: Interrupt | None = None
        self.over = threading.Event()

    @contextlib.contextmanager
    def __call__(self, interrupt: Interrupt) -> Iterator[None]:
        self.interrupt = interrupt
        puller = threading.Thread(target=self._pull)
        puller.start()
        try:
            yield
        finally:
            self.over.set()
            puller.join()

    def _pull(self) -> None:
        assert self.interrupt is not None
        while not self.over.wait(0.05):
            self.interrupt()


def test_an_interrupted_query_ends_at_once_as_cancelled_and_alone(database: Database):
    reins = Reins()
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(database.run, "SELECT count(*) AS n FROM range(30000000) r(i) WHERE i % 3 = 0", {})
        began = time.perf_counter()
        with pytest.raises(asyncio.CancelledError):
            database.run(ENDLESS, {"t": T}, None, reins)
        assert time.perf_counter() - began < 2
        assert other.result()["n"][0] == 10_000_000
    assert reins.interrupt is not None
    reins.interrupt()  # too late: nothing happens
    assert database.run("SELECT 1 AS a", {})["a"][0] == 1


def test_a_query_that_ends_before_it_is_interrupted_gives_its_rows(database: Database):
    told: list[Interrupt] = []
    assert database.run("SELECT 1 AS a", {}, None, lambda interrupt: told.append(interrupt))["a"][0] == 1
    assert len(told) == 1


def test_an_interrupt_that_is_not_ours_stays_what_it_is(database: Database, monkeypatch: Any):
    def interrupted(relation: object) -> None:
        raise duckdb.InterruptException("INTERRUPT Error: Interrupted!")

    monkeypatch.setattr("odibi_async.engines.duckdb.result_frame", interrupted)
    with pytest.raises(duckdb.InterruptException):
        database.run("SELECT 1", {})
