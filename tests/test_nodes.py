"""Configured steps: each layer does what it says, faults are told before anything runs, nobody sees others' frames."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from odibi_async import (
    Limits,
    Pipeline,
    Retry,
    RunError,
    Runner,
    Secret,
    Step,
    create_engine_context,
    run_pipeline,
    step,
)
from odibi_async.errors import GraphError, OdibiError, OptionError, SqlError
from odibi_async.events import StepStarted
from odibi_async.secret import MASK
from odibi_async.testing import Recorder

ENDLESS = "SELECT count(*) AS n FROM range(10000000) a, range(1000000) b WHERE (a.range * b.range) % 7 = 3"


def configured(layer: str, name: str, kind: str, value: Any, **options: Any) -> Step[..., Any, Any]:
    return Step(layer, name, kind, options.pop("engine", "pandas"), value, **options)


def sql(name: str, value: Any, **options: Any) -> Step[..., Any, Any]:
    return configured("transform", name, "sql", value, **options)


def orders() -> pd.DataFrame:
    return pd.DataFrame({"customer": [1, 2, 1], "amount": [30, 20, 12]})


@pytest.fixture
async def runner() -> AsyncIterator[Runner]:
    async with Runner() as runner:
        yield runner


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Any]:
    with create_engine_context("pandas", root=tmp_path, secrets={"db": "s3cret-pw"}) as engine:
        yield engine


aside = asyncio.to_thread


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def in_database(path: Path, do: Any) -> Any:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        return do(db)


def faults_of(steps: list[Any], inputs: Any = (), **options: Any) -> list[str]:
    with pytest.raises(GraphError) as caught:
        Pipeline(steps, inputs, **options)
    return list(map(str, caught.value.faults))


# -- layers --------------------------------------------------------------------------------------------


async def test_a_pipeline_from_file_to_file(runner: Runner, engine: Any, tmp_path: Path):
    await aside(orders().to_csv, tmp_path / "orders.csv", index=False)
    steps = [
        configured("store", "save", "config_op", "out/totals.parquet", inputs={"data": "totals"}),
        sql("totals", "SELECT customer, sum(amount) AS amount FROM o GROUP BY ALL", inputs={"o": "orders"}),
        configured("ingest", "orders", "config_op", "orders.csv", params={"usecols": ["customer", "amount"]}),
    ]
    result = await runner.run(steps, engine=engine)
    assert set(result.outputs) == {"orders", "totals"}
    saved = await aside(pd.read_parquet, tmp_path / "out" / "totals.parquet")
    assert saved.set_index("customer")["amount"].to_dict() == {1: 42, 2: 20}
    assert result.steps["save"].rows is None


async def test_sql_without_inputs_is_fine(runner: Runner):
    result = await runner.run([sql("one", "SELECT 1 AS n")])
    assert result["one"]["n"].tolist() == [1]


async def test_outputs_name_the_dataset_of_a_step(runner: Runner):
    steps = [
        sql("make", "SELECT 1 AS n", outputs={"data": "numbers"}),
        sql("next", "SELECT n + 1 AS n FROM data", inputs={"data": "numbers"}),
    ]
    result = await runner.run(steps)
    assert set(result.outputs) == {"numbers", "next"}


async def test_a_query_takes_values_from_params_and_from_datasets_that_are_no_frames(runner: Runner):
    text = "SELECT * FROM data WHERE amount BETWEEN $low AND $high ORDER BY amount"
    steps = [
        step(orders),
        sql("some", text, inputs={"data": "orders", "high": "limit"}, params={"params": {"low": 15}}),
    ]
    result = await runner.run(steps, {"limit": 25})
    assert result["some"]["amount"].tolist() == [20]


async def test_logical_names_may_be_any_text(runner: Runner):
    names = ["engine", "connection", "self", "return", "given", "two words", "Ünder", "select"]
    steps: list[Any] = [step(orders)]
    steps += [sql(f"of {name}", f'SELECT count(*) AS n FROM "{name}"', inputs={name: "orders"}) for name in names]
    result = await runner.run(steps)
    assert [result[f"of {name}"]["n"].tolist() for name in names] == [[3]] * len(names)


async def test_functions_are_named_exactly_and_bound_like_any(runner: Runner):
    def scaled(data: pd.DataFrame, factor: int = 2, extra: int = 1) -> pd.DataFrame:
        return data.assign(amount=data["amount"] * factor * extra)

    steps = [
        step(orders),
        configured("transform", "s", "function", "scale", inputs={"data": "orders"}, params={"factor": 10}),
    ]
    result = await runner.run(steps, functions={"scale": scaled})
    assert result["s"]["amount"].tolist() == [300, 200, 120]


@pytest.mark.parametrize("name", ["os.system", "builtins.print", "print", "scale.__globals__", ""])
def test_no_other_function_can_be_named(name: str):
    [fault] = faults_of([configured("transform", "s", "function", name)], functions={"scale": orders})
    assert f"value names the function {name!r}, which is not given" in fault


async def test_when_is_the_name_of_a_function(runner: Runner):
    steps = [
        step(orders),
        sql("large", "SELECT * FROM data", inputs={"data": "orders"}, when="is_large"),  # type: ignore[arg-type]
        sql("small", "SELECT * FROM data", inputs={"data": "orders"}, when="is_small"),  # type: ignore[arg-type]
    ]
    functions = {"is_large": lambda data: len(data) > 100, "is_small": lambda data: len(data) <= 100}
    result = await runner.run(steps, functions=functions)
    assert result.steps["large"].status == "skipped"
    assert len(result["small"]) == 3


async def test_store_and_publish_make_no_dataset_and_can_be_targets(runner: Runner, engine: Any, tmp_path: Path):
    steps = [
        step(orders),
        configured("store", "a", "config_op", "a.csv", inputs={"data": "orders"}),
        configured("publish", "b", "config_op", "b.csv", inputs={"data": "orders"}),
    ]
    pipeline = Pipeline(steps)
    result = await runner.run(pipeline, engine=engine)
    assert set(result.outputs) == {"orders"}
    assert await aside(names_in, tmp_path) == ["a.csv", "b.csv"]
    await aside((tmp_path / "a.csv").unlink)
    await aside((tmp_path / "b.csv").unlink)
    result = await runner.run(pipeline, targets=["b"], engine=engine)
    assert not result.outputs
    assert await aside(names_in, tmp_path) == ["b.csv"]
    result = await runner.run(pipeline, {"orders": orders()}, targets=[steps[1]], engine=engine)
    assert await aside(names_in, tmp_path) == ["a.csv", "b.csv"]


@pytest.mark.parametrize(("mode", "rows"), [("overwrite", 3), ("append", 6), ("ignore", 3)])
async def test_modes_of_stores(runner: Runner, engine: Any, tmp_path: Path, mode: str, rows: int):
    save = configured("store", "save", "config_op", "o.csv", inputs={"data": "orders"}, params={"mode": mode})
    for _ in range(2):
        await runner.run([orders, save], engine=engine)
    assert len(await aside(pd.read_csv, tmp_path / "o.csv")) == rows


async def test_a_store_that_fails_leaves_the_old_file_whole(runner: Runner, engine: Any, tmp_path: Path):
    await aside((tmp_path / "o.csv").write_text, "old\n1\n")
    save = configured("store", "save", "config_op", "o.csv", inputs={"data": "orders"}, params={"sep": 7})
    with pytest.raises(RunError):
        await runner.run([orders, save], engine=engine)
    assert await aside((tmp_path / "o.csv").read_text) == "old\n1\n"
    assert await aside(names_in, tmp_path) == ["o.csv"]


@pytest.mark.parametrize(
    ("layer", "params", "calls"), [("store", {"mode": "append"}, 1), ("publish", {}, 1), ("store", {}, 3)]
)
async def test_a_retry_of_the_run_never_writes_twice_what_adds_up(layer: str, params: Any, calls: int):
    written = []

    class Failing:
        name = "pandas"

        def write(self, frame: pd.DataFrame, place: str, **options: Any) -> None:
            written.append(place)
            raise ConnectionError("gone")

    save = configured(layer, "save", "config_op", "o.csv", inputs={"data": "orders"}, params=params)
    async with Runner() as runner:
        with pytest.raises(RunError):
            await runner.run([orders, save], engine=Failing(), retry=Retry(attempts=3, wait=0.0))
    assert len(written) == calls


# -- connections ---------------------------------------------------------------------------------------


async def test_a_connect_step_uses_its_value_and_params_and_others_wait_for_it():
    calls: list[Any] = []

    class Engine:
        name = "pandas"

        def get_secret(self, name: str) -> Any:
            return {"db": Secret("s3cret-pw")}[name]

        def connect(self, value: str, **params: Any) -> str:
            time.sleep(0.05)
            calls.append(("connect", value, params))
            return "handle"

        def read(self, place: str, **options: Any) -> pd.DataFrame:
            calls.append(("read", place, options))
            return orders()

        def write(self, frame: pd.DataFrame, place: str, **options: Any) -> None:
            calls.append(("write", place, options))

    url = "postgresql://host/sales"
    steps = [
        configured("ingest", "o", "config_op", "orders", params={"connection": "db", "schema": "s"}),
        configured("ingest", "q", "sql", "SELECT 1", params={"connection": "db"}, after=("o",)),
        configured("store", "w", "config_op", "copy", inputs={"data": "q"}, params={"connection": "db"}),
        configured(
            "connect", "db", "config_op", Secret(url), params={"password_secret": "db", "token": Secret("t"), "port": 1}
        ),
    ]
    async with Runner() as runner:
        result = await runner.run(steps, engine=Engine())
    assert calls == [
        ("connect", url, {"password": "s3cret-pw", "token": "t", "port": 1}),
        ("read", url, {"table": "orders", "schema": "s"}),
        ("read", "SELECT 1", {"connection": url}),
        ("write", url, {"table": "copy"}),
    ]
    assert set(result.outputs) == {"o", "q"}


async def test_tables_and_queries_of_a_sqlite_file(runner: Runner, engine: Any, tmp_path: Path):
    await aside(in_database, tmp_path / "sales.db", lambda db: orders().to_sql("orders", db, index=False))
    steps = [
        configured("connect", "sales", "config_op", "sales.db"),
        configured("ingest", "all", "config_op", "orders", params={"connection": "sales"}),
        configured("ingest", "few", "sql", "SELECT * FROM orders WHERE amount < 15", params={"connection": "sales"}),
        configured("ingest", "direct", "sql", "SELECT count(*) AS n FROM orders", params={"connection": "sales.db"}),
        configured("store", "copy", "config_op", "few", inputs={"data": "few"}, params={"connection": "sales"}),
    ]
    result = await runner.run(steps, engine=engine)
    assert [len(result["all"]), len(result["few"]), int(result["direct"]["n"][0])] == [3, 1, 3]
    count = "SELECT count(*) FROM few"
    assert await aside(in_database, tmp_path / "sales.db", lambda db: db.execute(count).fetchone()) == (1,)


async def test_a_connection_to_a_folder(runner: Runner, engine: Any, tmp_path: Path):
    await aside((tmp_path / "lake").mkdir)
    steps = [
        configured("connect", "lake", "config_op", "lake"),
        step(orders),
        configured("store", "save", "config_op", "o.csv", inputs={"data": "orders"}, params={"connection": "lake"}),
        configured("ingest", "again", "config_op", "o.csv", params={"connection": "lake"}, after=("save",)),
    ]
    result = await runner.run(steps, engine=engine)
    assert result["again"].equals(result["orders"])
    assert await aside(names_in, tmp_path / "lake") == ["o.csv"]


async def test_errors_of_drivers_show_no_secret(engine: Any):
    class Engine:
        name = "pandas"

        def connect(self, value: str, **params: Any) -> Any:
            try:
                raise OSError(f"no route to {value}")
            except OSError as error:
                raise ConnectionError(f"cannot log in with {params}") from error

        def read(self, place: str, **options: Any) -> Any:
            class OdditiesError(Exception):
                def __str__(self) -> str:
                    return f"odd: {place}"

            raise OdditiesError

    steps = [
        configured("connect", "db", "config_op", Secret("pg://u:pw1@host"), params={"password": Secret("pw2")}),
        configured("ingest", "odd", "config_op", Secret("https://pw3@host/x.csv")),
    ]
    async with Runner() as runner:
        with pytest.raises(RunError) as caught:
            await runner.run(steps, engine=Engine(), on_error="raise")
        result = await runner.run(steps, engine=Engine(), on_error="continue")
    errors = [result.failures[name].error for name in ("db", "odd")]
    texts = [str(caught.value), *map(str, errors), *map(repr, errors), repr(errors[0].__cause__)]
    assert not [text for text in texts if "pw" in text.replace("password", "")]
    assert isinstance(errors[0], ConnectionError)
    assert MASK in str(errors[0])
    assert MASK in str(errors[1])


# -- isolation and cancellation ------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [200, pytest.param(1000, marks=pytest.mark.slow)])
async def test_parallel_queries_that_share_a_logical_name_never_mix(runner: Runner, rounds: int):
    def frame(k: int) -> pd.DataFrame:
        return pd.DataFrame({"v": range(k * 100, k * 100 + 50)})

    count = 4
    steps: list[Any] = [step(frame, name=f"f{k}", params={"k": k}) for k in range(count)]
    steps += [
        sql(f"q{k}", "SELECT min(v) AS a, max(v) AS b, count(*) AS n FROM data", inputs={"data": f"f{k}"})
        for k in range(count)
    ]
    pipeline = Pipeline(steps)
    for _ in range(rounds):
        result = await runner.run(pipeline)
        rows = [result[f"q{k}"].iloc[0].tolist() for k in range(count)]
        assert rows == [[k * 100, k * 100 + 49, 50] for k in range(count)]


async def test_a_query_that_takes_too_long_is_stopped():
    async with Runner(limits=Limits(grace=5.0)) as runner:
        await runner.run([sql("warm", "SELECT 1 AS n")])
        began = time.perf_counter()
        with pytest.raises(RunError) as caught:
            await runner.run([sql("endless", ENDLESS, timeout=0.3)])
        assert time.perf_counter() - began < 3
        assert isinstance(caught.value.__cause__, TimeoutError)
        assert (await runner.run([sql("after", "SELECT 1 AS n")]))["after"]["n"].tolist() == [1]


async def test_cancelling_the_caller_stops_its_queries(heard: Recorder):
    async with Runner(limits=Limits(grace=5.0, threads=2), observers=[heard]) as runner:
        await runner.run([sql("warm", "SELECT 1 AS n")])
        for _ in range(3):
            heard.clear()
            task = asyncio.create_task(runner.run([sql(f"endless{k}", ENDLESS) for k in range(3)]))
            while len(heard.of(StepStarted)) < 2:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            began = time.perf_counter()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.perf_counter() - began < 3
            assert "StepAbandoned" not in " ".join(heard.story)
        result = await runner.run([sql("after", "SELECT 1 AS n")])  # every thread is there again
        assert result.ok


async def test_a_failure_elsewhere_stops_a_query(runner: Runner):
    async def breaks() -> None:
        await asyncio.sleep(0.3)
        raise ValueError("broken")

    began = time.perf_counter()
    with pytest.raises(RunError, match="broken"):
        await runner.run([breaks, sql("endless", ENDLESS)])
    assert time.perf_counter() - began < 4


# -- the engine ----------------------------------------------------------------------------------------


async def test_the_engine_is_never_a_dataset(runner: Runner, engine: Any):
    pipeline = Pipeline([step(orders), sql("q", "SELECT * FROM data", inputs={"data": "orders"})])
    assert not pipeline.inputs
    result = await runner.run(pipeline, engine=engine, targets=["q"])
    assert set(result.outputs) == {"q"}
    assert set((await runner.run(pipeline)).outputs) == {"orders", "q"}
    with pytest.raises(GraphError):
        await runner.run(pipeline, {"\0engine pandas": 1})
    with pytest.raises(GraphError):
        await runner.run(pipeline, targets=["\0engine pandas"])
    assert "engine" not in pipeline.to_mermaid()


async def test_configured_pipelines_can_be_selected_prefixed_and_joined(runner: Runner):
    part = Pipeline(
        [
            sql("a", "SELECT 1 AS n"),
            sql("b", "SELECT n + $x AS n FROM d", inputs={"d": "a", "x": "x"}),
            sql("c", "SELECT 1"),
        ],
        inputs=["x"],
    )
    assert list(part.inputs) == ["x"]
    both = Pipeline([part.select("+b").prefixed("l_"), part.select("b").prefixed("r_")], inputs=["l_x", "r_x", "r_a"])
    result = await runner.run(both, {"l_x": 1, "r_x": 5, "r_a": pd.DataFrame({"n": [10]})})
    assert [int(result[name]["n"][0]) for name in ("l_b", "r_b")] == [2, 15]


async def test_a_step_without_an_engine_takes_that_of_the_run(engine: Any):
    class Other:
        name = "spark"

        def execute_sql(self, text: str, *_: Any, **__: Any) -> str:
            return f"spark: {text}"

    steps = [sql("own", "SELECT 1 AS n", engine="pandas"), sql("any", "SELECT 2", engine=None)]
    async with Runner() as runner:
        result = await runner.run(steps, engine=Other())
        assert result["any"] == "spark: SELECT 2"
        assert result["own"]["n"].tolist() == [1]
        assert len(await runner.run(steps, engine="pandas")) == 2


async def test_unknown_engines(runner: Runner):
    with pytest.raises(OptionError, match="Did you mean 'pandas'"):
        await runner.run([sql("q", "SELECT 1")], engine="panda")
    with pytest.raises(OptionError, match="neither a name nor a context"):
        await runner.run([sql("q", "SELECT 1")], engine=3)


async def test_a_runner_makes_one_engine_and_closes_it():
    seen = set()

    def note(step: Any) -> Any:
        def call(engine: Any) -> None:
            seen.add(engine)

        return call

    async with Runner() as runner:
        steps = [configured("note", f"n{k}", "config_op", "") for k in range(3)]
        await asyncio.gather(*[runner.run(steps, nodes={"note": note}) for _ in range(5)])
        [engine] = seen
        await aside(engine.execute_sql, "SELECT 1")
    with pytest.raises(OdibiError, match="closed"):
        await aside(engine.execute_sql, "SELECT 1")


# -- custom layers -------------------------------------------------------------------------------------


async def test_a_layer_of_ones_own(runner: Runner):
    def validate(step: Step[..., Any, Any]) -> Any:
        rule = step.value

        def check(data: pd.DataFrame, engine: Any, at_least: int = 0) -> pd.DataFrame:
            assert threading.current_thread() is not threading.main_thread()
            bad = engine.execute_sql(f"SELECT count(*) AS n FROM data WHERE NOT ({rule})", {"data": data})
            if int(bad["n"][0]) or len(data) < at_least:
                raise ValueError(f"{rule} does not hold")
            return data

        return check

    good = configured("validate", "good", "config_op", "amount > 0", inputs={"data": "orders"}, params={"at_least": 2})
    bad = configured("validate", "bad", "config_op", "amount > 15", inputs={"data": "orders"})
    assert len((await runner.run([orders, good], nodes={"validate": validate}))["good"]) == 3
    with pytest.raises(RunError, match="amount > 15 does not hold"):
        await runner.run([orders, bad], nodes={"validate": validate})


# -- faults --------------------------------------------------------------------------------------------


def test_all_faults_are_told_together():
    steps = [
        configured("transfrom", "a", "sql", "SELECT 1"),
        configured("transform", "b", "sqll", "SELECT 1"),
        configured("transform", "c", "api", "https://x"),
        sql("d", "SELECT 1", engine="pandsa"),
        configured("transform", "e", "function", "claen"),
        sql("f", "SELECT 1", inputs={"data": "ordrs"}),
        configured("store", "g", "config_op", "x.csv", inputs={"data": "nothing"}, params={"mode": "overwite"}),
        sql("h", "SELECT 1", when="allways"),  # type: ignore[arg-type]
        step(orders),
    ]
    text = "\n".join(faults_of(steps, functions={"clean": orders, "always": orders}))
    for expected in (
        "Step 'a': layer 'transfrom' is unknown. Did you mean 'transform'?",
        "Step 'b': type 'sqll' is unknown. Did you mean 'sql'?",
        "Step 'c': type 'api' is not supported: use type 'function'",
        "Step 'd': engine 'pandsa' is unknown. Did you mean 'pandas'?",
        "Step 'e': value names the function 'claen', which is not given: functions={...}. Did you mean 'clean'?",
        "Step 'f' reads 'ordrs' (as 'data'), which no step produces. Did you mean 'orders'?",
        "Step 'g': mode 'overwite' is unknown. Did you mean 'overwrite'?",
        "Step 'g' reads 'nothing' (as 'data')",
        "Step 'h': when= names the function 'allways', which is not given: functions={...}. Did you mean 'always'?",
    ):
        assert expected in text
    assert "\0" not in text
    assert "nothing to call" not in text


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (configured("transform", "s", "config_op", "x"), "is of type sql or function"),
        (configured("store", "s", "config_op", "x.csv"), "writes one dataset, but its inputs name none"),
        (
            configured("publish", "s", "config_op", "x.csv", inputs={"a": "orders", "b": "orders"}),
            "writes one dataset, but its inputs name 2",
        ),
        (configured("store", "s", "sql", "x", inputs={"a": "orders"}), "of type config_op or function, not sql"),
        (
            configured("store", "s", "config_op", "x", inputs={"a": "orders"}, outputs={"a": "b"}),
            "makes no dataset, but its outputs name one",
        ),
        (configured("ingest", "s", "config_op", ""), "its value is empty"),
        (configured("ingest", "s", "config_op", "x.csv", inputs={"a": "orders"}), "reads no datasets"),
        (configured("ingest", "s", "sql", "SELECT 1"), "needs a connection"),
        (
            configured("ingest", "s", "config_op", "t", params={"connection": "sales"}),
            "not a connect step, URL or path",
        ),
        (configured("connect", "s", "sql", "SELECT 1"), "of type config_op or function"),
        (configured("connect", "s", "config_op", "x", outputs={"a": "b"}), "makes no dataset"),
        (sql("s", " "), "its value is empty"),
        (sql("s", "SELECT 1", outputs={"a": "x", "b": "y"}), "makes one dataset, but its outputs name 2"),
        (sql("s", "SELECT $a", params={"a": 1}), "has no param 'a'; the value of each $name goes into params"),
        (sql("s", 7), "its value is a text, not 7"),
    ],
)
def test_a_step_that_cannot_do_what_it_says_is_a_fault(bad: Any, told: str):
    [fault] = faults_of([step(orders), bad])
    assert fault.startswith("Step 's': ")
    assert told in fault


async def test_sql_reads_nothing_but_its_inputs(runner: Runner, tmp_path: Path):
    secret = tmp_path / "secret.csv"
    await aside(secret.write_text, "a\n1\n")
    orders_here = orders()  # a Python variable, which DuckDB would find by its name
    assert len(orders_here) == 3
    for text in (
        f"SELECT * FROM '{secret}'",
        f"SELECT * FROM read_csv('{secret}')",
        f"ATTACH '{tmp_path / 'x.db'}'",
        "CREATE TABLE t AS SELECT 1",
        "SET threads = 1",
        "SELECT * FROM orders_here",
        "SELECT * FROM orders",
    ):
        with pytest.raises(RunError) as caught:
            await runner.run([step(orders), sql("q", text)])
        assert isinstance(caught.value.__cause__, SqlError | OdibiError), text


async def test_functions_are_given_to_the_pipeline_once(runner: Runner):
    pipeline = Pipeline([orders])
    with pytest.raises(OptionError, match="has its functions and nodes already"):
        await runner.run(pipeline, functions={})


async def test_the_limits_of_the_run_are_those_of_its_sql(tmp_path: Path):
    sql = "SELECT current_setting('threads') AS threads, current_setting('memory_limit') AS memory"
    ask = Step("transform", "ask", "sql", "pandas", sql)
    limits = Limits(threads=1, memory="256MiB", temp_directory=tmp_path)
    [row] = (await run_pipeline([ask], limits=limits))["ask"].to_dict("records")
    assert (row["threads"], row["memory"]) == (1, "256.0 MiB")
    with pytest.raises(RunError, match="nonsense"):
        await run_pipeline([ask], limits=Limits(memory="nonsense"))
