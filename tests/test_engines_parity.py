"""The same pipeline on pandas and on Spark: equal results, or a difference that docs/spark.md tells of."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from odibi_async import OdibiError, RunError, Step, create_engine_context, run_pipeline, step
from odibi_async.config import load_steps

ORDERS = pd.DataFrame(
    {
        "id": [1, 2, 3, 4, 5, 6],
        "customer": ["a", "b", "a", None, "c", "a"],
        "amount": [10.5, 20.0, -3.25, 4.0, None, 7.5],
        "items": pd.array([1, 2, None, 4, 5, 6], "Int64"),
        "paid": [True, False, True, True, False, True],
        "day": pd.to_datetime(["2020-01-01", "2020-01-02", "2020-02-29", "2020-03-29", "2020-10-25", None]),
    }
)
CUSTOMERS = pd.DataFrame({"customer": ["a", "b", "d"], "name": ["Ann", "Bö", "Dee"]})
QUERIES = [
    "SELECT id, customer, amount, items, paid FROM orders ORDER BY id",
    "SELECT * FROM orders WHERE amount > 5 ORDER BY id",
    "SELECT customer, count(*) AS n, sum(items) AS s, avg(amount) AS m FROM orders GROUP BY customer"
    " ORDER BY customer NULLS LAST",
    "SELECT customer, count(*) AS n FROM orders GROUP BY ALL ORDER BY n DESC, customer NULLS LAST",
    "SELECT o.id, c.name FROM orders o LEFT JOIN customers c USING (customer) ORDER BY o.id",
    "SELECT o.id, c.name FROM orders o JOIN customers c ON o.customer = c.customer ORDER BY o.id",
    "SELECT c.name, o.id FROM orders o FULL JOIN customers c ON o.customer = c.customer"
    " ORDER BY c.name NULLS LAST, o.id NULLS LAST",
    "WITH big AS (SELECT * FROM orders WHERE amount > 5) SELECT max(id) AS m FROM big",
    "SELECT id, row_number() OVER (PARTITION BY customer ORDER BY id) AS r FROM orders ORDER BY id",
    "SELECT id, lag(amount) OVER (ORDER BY id) AS before FROM orders ORDER BY id",
    "SELECT id, CASE WHEN paid THEN 'yes' ELSE 'no' END AS word FROM orders ORDER BY id",
    "SELECT id, coalesce(customer, 'nobody') AS who FROM orders ORDER BY id",
    "SELECT upper(customer) AS u, length(customer) AS l FROM orders ORDER BY id",
    "SELECT id FROM orders WHERE customer IN (SELECT customer FROM customers) ORDER BY id",
    "SELECT id FROM orders WHERE EXISTS (SELECT 1 FROM customers c WHERE c.customer = orders.customer) ORDER BY id",
    "SELECT id FROM orders EXCEPT SELECT 1 AS id ORDER BY id",
    "SELECT id FROM orders UNION ALL SELECT id FROM orders ORDER BY id",
    "SELECT DISTINCT paid FROM orders ORDER BY paid",
    "SELECT id, year(day) AS y, month(day) AS m FROM orders ORDER BY id",
    "SELECT id, CAST(date_trunc('month', day) AS DATE) AS m FROM orders ORDER BY id",
    "SELECT greatest(amount, 5) AS g, abs(amount) AS a FROM orders ORDER BY id",
    "SELECT id FROM orders ORDER BY amount DESC NULLS LAST, id LIMIT 3",
    "SELECT count(*) AS n FROM orders WHERE customer IS NULL",
    "SELECT sum(items) AS s FROM orders WHERE false",
    "SELECT * FROM orders WHERE false",
    "VALUES (1), (2)",
]


@pytest.fixture(params=["pandas", "spark"])
def engine(request: pytest.FixtureRequest, spark_session: Any, tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "root").mkdir()
    own = {"session": spark_session} if request.param == "spark" else {}
    with create_engine_context(request.param, root=tmp_path / "root", **own) as engine:
        yield engine


@pytest.fixture
def engines(spark_session: Any, tmp_path: Path) -> Iterator[Mapping[str, Any]]:
    with contextlib.ExitStack() as stack:
        found = {}
        for name in ("pandas", "spark"):
            (tmp_path / name).mkdir()
            own = {"session": spark_session} if name == "spark" else {}
            found[name] = stack.enter_context(create_engine_context(name, root=tmp_path / name, **own))
        yield found


@step(name="made", engine="pandas", inputs={"frame": "result"})
def made(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


async def result_of(engine: Any, *steps: Any, **given: Any) -> pd.DataFrame:
    """What steps make on an engine, as a frame of pandas."""
    result = await run_pipeline([*steps, made], given, engine=engine, targets=["made"])
    frame: pd.DataFrame = result["made"]
    return frame


def equal(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Equal names, rows and values; integers may be wider, moments of another unit, dates objects."""
    assert list(one.columns) == list(other.columns)
    for name in one:
        mine, theirs = one[name], other[name]
        if pd.api.types.is_datetime64_any_dtype(mine):  # DuckDB makes moments of dates
            mine, theirs = (pd.to_datetime(each).dt.as_unit("ns") for each in (mine, theirs))
        values = [each.astype(object).where(each.notna(), None).tolist() for each in (mine, theirs)]
        assert values[0] == pytest.approx(values[1]) if mine.dtype.kind == "f" else values[0] == values[1], name


@pytest.mark.parametrize("query", QUERIES)
async def test_queries_give_the_same(engines: Mapping[str, Any], query: str):
    named = {name: name for name in ("orders", "customers") if name in query}
    given = {"orders": ORDERS, "customers": CUSTOMERS}
    asked = Step("transform", "result", "sql", None, query.replace("VALUES (1), (2)", "SELECT 1 AS one"), {}, named)
    frames = [await result_of(engines[e], asked, **{n: given[n] for n in named}) for e in ("pandas", "spark")]
    equal(*frames)


@pytest.mark.parametrize("query", ["SELECT", "DROP TABLE orders", "SELECT 1; SELECT 2", "SELECT nothing FROM orders"])
async def test_queries_that_are_none_are_refused(engine: Any, query: str):
    with pytest.raises(RunError, match="SqlError"):
        await result_of(
            engine, Step("transform", "result", "sql", None, query, {}, {"orders": "orders"}), orders=ORDERS
        )


@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.jsonl", "x.json"])
@pytest.mark.parametrize("writer", ["pandas", "spark"])
async def test_what_an_engine_writes_it_reads(engines: Mapping[str, Any], name: str, writer: str):
    engine = engines[writer]
    frame = ORDERS[["id", "customer", "amount", "paid"]]
    store = Step("store", "save", "config_op", None, name, {}, {"data": "orders"})
    await run_pipeline([store], {"orders": frame}, engine=engine)
    read = await result_of(engine, Step("ingest", "result", "config_op", None, name))
    equal(read.sort_values("id")[list(frame.columns)], frame)


@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.jsonl", "x.json"])
async def test_spark_reads_what_pandas_writes(engines: Mapping[str, Any], name: str):
    frame = ORDERS[["id", "customer", "amount", "paid"]]
    place = engines["spark"]._root / name
    await asyncio.to_thread(lambda: create_engine_context("pandas", root=place.parent).write(frame, name))
    read = await result_of(engines["spark"], Step("ingest", "result", "config_op", None, name))
    equal(read[list(frame.columns)], frame)


@pytest.mark.parametrize("mode", ["overwrite", "append", "error", "ignore"])
async def test_modes_mean_the_same(engine: Any, mode: str):
    def store(mode: str) -> Any:
        return Step("store", "save", "config_op", None, "x.parquet", {"mode": mode}, {"data": "orders"})

    frame = ORDERS[["id", "customer"]]
    await run_pipeline([store("overwrite")], {"orders": frame}, engine=engine)
    again = run_pipeline([store(mode)], {"orders": frame.iloc[:2]}, engine=engine)
    if mode == "error":
        with pytest.raises(RunError, match="exists already"):
            await again
    else:
        await again
    read = await result_of(engine, Step("ingest", "result", "config_op", None, "x.parquet"))
    assert len(read) == {"overwrite": 2, "append": 8, "error": 6, "ignore": 6}[mode]


async def test_functions_get_frames_of_the_engine_and_connect_steps_check_places(engine: Any, tmp_path: Path):
    await asyncio.to_thread((tmp_path / "root" / "data").mkdir)
    await run_pipeline(
        [Step("store", "save", "config_op", None, "data/o.csv", {}, {"data": "orders"})],
        {"orders": ORDERS},
        engine=engine,
    )
    connect = Step("connect", "disk", "config_op", None, "data")
    read = Step("ingest", "orders", "config_op", None, "o.csv", {"connection": "disk"})

    def result(orders: Any) -> Any:
        assert type(orders).__module__.startswith(("pandas", "pyspark"))
        return orders.head(1) if engine.name == "pandas" else orders.orderBy("id").limit(1)

    frame = await result_of(engine, connect, read, result)
    assert frame["id"].tolist() == [1]
    with pytest.raises(RunError, match="no such file or folder"):
        await run_pipeline(
            [
                Step("connect", "disk", "config_op", None, "nowhere"),
                Step("ingest", "orders", "config_op", None, "o.csv", {"connection": "disk"}),
            ],
            engine=engine,
        )


async def test_a_configuration_mixes_engines(spark_session: Any, tmp_path: Path):
    await asyncio.to_thread((tmp_path / "o.csv").write_text, "id,v\n1,2\n2,3\n")
    await asyncio.to_thread(
        (tmp_path / "p.yaml").write_text,
        """
version: 1
defaults: {engine: spark}
steps:
  - {name: orders, layer: ingest, value: o.csv}
  - {name: totals, type: sql, inputs: {data: orders}, value: SELECT sum(v) AS total FROM data}
  - {name: twice, type: sql, engine: pandas, inputs: {data: totals}, value: 'SELECT total * 2 AS twice FROM data'}
  - {name: save, layer: store, engine: pandas, value: out.csv, inputs: {data: twice}}
""",
    )
    engine = await asyncio.to_thread(create_engine_context, "spark", session=spark_session, root=tmp_path)
    steps = await asyncio.to_thread(load_steps, tmp_path / "p.yaml")
    result = await run_pipeline([each for each in steps if each.name != "save"], engine=engine)
    assert result["twice"]["twice"].tolist() == [10]
    assert hasattr(result["totals"], "sparkSession")


async def test_secrets_are_resolved_by_both(spark_session: Any, tmp_path: Path):
    for engine in (
        create_engine_context("pandas", secrets={"db": "hush"}),
        create_engine_context("spark", session=spark_session, secrets={"db": "hush"}),
    ):
        assert engine.get_secret("db") == "hush"
        with pytest.raises(OdibiError, match="Did you mean 'db'"):
            engine.get_secret("dbb")


def test_samples_are_the_first_rows(engine: Any):
    frame = engine.from_arrow(
        engine.to_arrow(ORDERS[["id"]], "it")
        if engine.name == "pandas"
        else create_engine_context("pandas").to_arrow(ORDERS[["id"]], "it"),
        "it",
    )
    assert engine.collect_sample(frame, 2) == [{"id": 1}, {"id": 2}]
