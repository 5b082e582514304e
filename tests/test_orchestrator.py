"""The orchestrator: code that was written for ODIBI CORE runs, and does what that only promised."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from odibi_async import (
    EventEmitter,
    Orchestrator,
    RunError,
    Step,
    Tracker,
    create_engine_context,
    resource,
    step,
)
from odibi_async.errors import CycleError, GraphError, OptionError

COLUMNS = "Layer, StepName, StepType, Engine, Value, Params, Inputs, Outputs, project, enabled, execution_order"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def context() -> Iterator[Any]:
    with create_engine_context("pandas") as engine:
        yield engine


def write_database() -> str:
    rows = [
        ("ingest", "read_orders", "config_op", "Pandas", "orders.csv", None, None, {"data": "orders"}),
        ("ingest", "read_names", "config_op", "pandas", "names.csv", None, None, {"data": "names"}),
        (
            "transform",
            "join",
            "sql",
            "pandas",
            "SELECT name, sum(amount) AS total FROM o JOIN n USING (customer) GROUP BY ALL",
            None,
            {"o": "orders", "n": "names"},
            {"data": "totals"},
        ),
        ("store", "save", "config_op", "pandas", "out/totals.csv", None, {"data": "totals"}, None),
    ]
    with contextlib.closing(sqlite3.connect("pipeline.db")) as db, db:
        db.execute(f"CREATE TABLE transformation_config ({COLUMNS})")
        for order, row in enumerate(rows):
            cells = [json.dumps(cell) if isinstance(cell, dict) else cell for cell in row]
            db.execute(f"INSERT INTO transformation_config VALUES ({'?,' * 10}?)", (*cells, "sales", 1, order))
    return "pipeline.db"


def write_json() -> str:
    join = "SELECT name, sum(amount) AS total FROM o JOIN n USING (customer) GROUP BY ALL"
    steps = [
        {"layer": "ingest", "name": "read_orders", "value": "orders.csv", "outputs": {"data": "orders"}},
        {"layer": "ingest", "name": "read_names", "value": "names.csv", "outputs": {"data": "names"}},
        {
            "name": "join",
            "type": "sql",
            "value": join,
            "inputs": {"o": "orders", "n": "names"},
            "outputs": {"data": "totals"},
        },
        {"layer": "store", "name": "save", "value": "out/totals.csv", "inputs": {"data": "totals"}},
    ]
    Path("pipeline.json").write_text(json.dumps(steps))
    return "pipeline.json"


@pytest.mark.parametrize("write", [write_database, write_json])
def test_the_code_that_people_have_runs_with_another_import(
    request: pytest.FixtureRequest, write: Callable[[], str], capsys: pytest.CaptureFixture[str]
):
    Path("orders.csv").write_text("customer,amount\n1,30\n2,20\n1,12\n")
    Path("names.csv").write_text("customer,name\n1,Ada\n2,Grace\n")
    uri = write()
    assert capsys.readouterr().out == ""

    from odibi_async import ConfigLoader, EventEmitter, Orchestrator, Tracker, create_engine_context

    steps = ConfigLoader().load(uri, project="sales" if uri.endswith(".db") else None)
    context = create_engine_context("pandas")
    request.addfinalizer(context.close)
    tracker = Tracker()
    events = EventEmitter()
    events.on("step_complete", lambda step, duration_ms: print(f"{step.name}: {duration_ms >= 0}"))
    orchestrator = Orchestrator(
        steps=steps,
        context=context,
        tracker=tracker,
        events=events,
        parallel=True,
        max_workers=4,
        use_cache=True,
        max_retries=2,
        retry_delay=1.0,
    )
    result = orchestrator.run()
    stats = result.get_execution_stats()
    print(f"Nodes: {stats['total_steps']}")
    print(f"Success rate: {stats['success_rate']:.1f}%")
    print(f"Cache hits: {stats['cache_hits']} ({stats['cache_hit_rate']:.0%})")
    print(f"Duration: {stats['total_duration_ms']:.2f}ms")
    totals = result.data_map["totals"]
    lineage = tracker.export_lineage()
    tracker.save("tracker_logs/run.json")
    story_path = tracker.export_to_story(
        story_dir="stories",
        explanations={"join": {"purpose": "Totals by name", "formulas": {"total": "sum(amount)"}}},
        dag_builder=result._dag_builder,
    )
    context.close()

    told = capsys.readouterr()
    assert told.err == ""
    lines = told.out.splitlines()
    assert sorted(lines[:4]) == ["join: True", "read_names: True", "read_orders: True", "save: True"]
    assert lines[4:7] == ["Nodes: 4", "Success rate: 100.0%", "Cache hits: 0 (0%)"]
    assert lines[7].startswith("Duration: ")
    assert len(lines) == 8
    assert dict(zip(totals["name"], totals["total"], strict=True)) == {"Ada": 42, "Grace": 20}
    assert Path("out/totals.csv").exists()
    assert set(result.data_map) == {"orders", "names", "totals"}
    assert result.tracker is tracker
    assert json.loads(Path("tracker_logs/run.json").read_text()) == lineage
    assert [each["state"] for each in lineage["steps"]] == ["success"] * 4
    page = Path(story_path).read_text()
    assert Path(story_path).parent == Path("stories").resolve()
    assert all(text in page for text in ("Totals by name", "sum(amount)", "graph TD", "read_orders"))


# -- statistics ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [True, False])
def test_the_statistics_are_in_the_units_that_people_know(parallel: bool):
    result = Orchestrator([step(lambda: time.sleep(0.05), name="a")], None, None, None, parallel).run()
    stats = result.get_execution_stats()
    assert 50 <= stats.pop("total_duration_ms") < 5_000
    expected = {
        "total_steps": 1,
        "success_count": 1,
        "failed_count": 0,
        "success_rate": 100.0,
        "parallel_execution": parallel,
    }
    assert stats == (expected | {"cache_hits": 0, "cache_hit_rate": 0.0} if parallel else expected)


def test_what_was_computed_before_comes_from_the_cache_and_is_counted(tmp_path: Path):
    def doubled(one: pd.DataFrame) -> pd.DataFrame:
        return 2 * one

    steps = [step(lambda: pd.DataFrame({"a": [1, 2]}), name="one"), doubled]
    for use_cache, hits in ((True, 0), (True, 1), (False, 0), (tmp_path, 0), (tmp_path, 1)):
        tracker = Tracker()
        result = Orchestrator(steps, None, tracker, use_cache=use_cache).run()
        stats = result.get_execution_stats()
        assert (stats["cache_hits"], stats["cache_hit_rate"]) == (hits, hits / 2)
        assert stats["success_rate"] == 100
        assert list(result.data_map["doubled"]["a"]) == [2, 4]
        told = tracker.export_lineage()["steps"][1]
        assert (told["state"], told["row_delta"]) == ("success", 0)
        assert told["after_snapshot"]["sample_data"] == [{"a": 2}, {"a": 4}]


# -- one step at a time --------------------------------------------------------------------------------


class Witness:
    """Makes functions that note when they run, and whether another one does at the same time."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def seen(self, name: str) -> Iterator[None]:
        with self._lock:
            self.order.append(name)
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1

    def blocking(self, name: str, **options: Any) -> Step[..., Any, Any]:
        def run(**_: Any) -> str:
            with self.seen(name):
                time.sleep(0.005)
            return name

        return step(run, name=name, **options)

    def on_loop(self, name: str, **options: Any) -> Step[..., Any, Any]:
        async def run(**_: Any) -> str:
            with self.seen(name):
                await asyncio.sleep(0.005)
            return name

        return step(run, name=name, **options)


@pytest.fixture
def witness() -> Witness:
    return Witness()


def test_without_parallel_one_step_runs_at_a_time_in_topological_order(witness: Witness):
    steps = [
        witness.blocking("last", inputs={"x": "first", "y": "second"}),
        witness.on_loop("z"),
        witness.blocking("second", inputs={"x": "first"}),
        witness.on_loop("a"),
        witness.blocking("first"),
        witness.on_loop("b", inputs={"x": "z"}),
    ]
    result = Orchestrator(steps, None, parallel=False).run()
    assert witness.order == ["z", "a", "first", "second", "last", "b"] == result.dag_builder.order()
    assert witness.most == 1


@pytest.mark.parametrize("workers", [3, 40])
def test_with_parallel_as_many_steps_run_at_a_time_as_there_are_workers(workers: int):
    together, now, most = threading.Barrier(workers), [], []

    def run() -> None:
        now.append(1)
        most.append(len(now))
        together.wait(timeout=10)
        now.pop()

    Orchestrator([step(run, name=f"s{i}") for i in range(2 * workers)], None, max_workers=workers).run()
    assert max(most) == workers


def test_async_steps_count_among_those_that_run_at_a_time(witness: Witness):
    steps = [make(f"{make.__name__}{i}") for i in range(10) for make in (witness.blocking, witness.on_loop)]
    Orchestrator(steps, None, max_workers=3).run()
    assert witness.most == 3


def test_elements_of_mapped_steps_run_one_at_a_time_too(witness: Witness):
    def doubled(x: int) -> int:
        with witness.seen("doubled"):
            time.sleep(0.005)
        return 2 * x

    async def halved(x: int) -> int:
        with witness.seen("halved"):
            await asyncio.sleep(0.005)
        return x // 2

    steps = [
        step(lambda: [1, 2, 3], name="numbers"),
        step(doubled, map_over="x", inputs={"x": "numbers"}),
        step(halved, map_over="x", inputs={"x": "doubled"}),
        witness.blocking("other"),
    ]
    result = Orchestrator(steps, None, parallel=False).run()
    assert result.data_map["halved"] == [1, 2, 3]
    assert witness.order == ["doubled"] * 3 + ["halved"] * 3 + ["other"]
    assert witness.most == 1


def test_resources_and_connections_are_open_for_their_readers_when_one_step_runs_at_a_time(
    witness: Witness, context: Any
):
    @resource
    @contextlib.contextmanager
    def opened() -> Iterator[str]:
        with witness.seen("opened"):
            pass
        yield "handle"
        with witness.seen("closed"):
            pass

    Path("lake").mkdir()
    steps = [
        Step("connect", "lake", "config_op", "pandas", "lake"),
        opened,
        Step("transform", "one", "sql", "pandas", "SELECT 1 AS n"),
        step(lambda opened: len(opened), name="reads"),
        witness.blocking("stranger"),
        Step("store", "save", "config_op", "pandas", "one.csv", {"connection": "lake"}, {"data": "one"}),
    ]
    result = Orchestrator(steps, context, parallel=False).run()
    assert result.run.ok
    assert Path("lake/one.csv").read_text().splitlines()[0] == "n"
    assert witness.order[0] == "opened"
    assert sorted(witness.order[1:]) == ["closed", "stranger"]  # it is closed while the next step begins


def test_a_step_that_is_skipped_lets_the_next_one_run(witness: Witness):
    steps = [
        witness.blocking("a", when=lambda: False),
        witness.blocking("needs_a", inputs={"x": "a"}),
        witness.blocking("b"),
    ]
    result = Orchestrator(steps, None, parallel=False).run()
    assert witness.order == ["b"]
    assert [record.status for record in result.run.steps.values()] == ["skipped", "skipped", "succeeded"]


def test_without_parallel_nothing_runs_after_a_failure(witness: Witness):
    steps = [witness.blocking("a"), step(lambda: 1 / 0, name="bad"), witness.blocking("b")]
    with pytest.raises(RunError) as caught:
        Orchestrator(steps, None, parallel=False, max_retries=1).run()
    assert list(caught.value.failures) == ["bad"]
    assert witness.order == ["a"]
    assert caught.value.result.outputs == {"a": "a"}


# -- failures and faults -------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [True, False])
def test_a_failed_run_raises_what_was_emitted_before(parallel: bool):
    events, heard = EventEmitter(), []
    events.on("pipeline_error", lambda error: heard.append(error))
    events.on("pipeline_complete", lambda data_map: heard.append(data_map))
    with pytest.raises(RunError, match="bad: ZeroDivisionError") as caught:
        Orchestrator([step(lambda: 1 / 0, name="bad")], None, None, events, parallel, max_retries=1).run()
    assert heard == [caught.value]


@pytest.mark.parametrize(("max_retries", "calls"), [(1, 1), (2, 2), (3, 3)])
def test_max_retries_counts_all_calls(max_retries: int, calls: int):
    seen = []

    def flaky() -> None:
        seen.append(1)
        raise OSError

    with pytest.raises(RunError):
        Orchestrator([flaky], None, max_retries=max_retries, retry_delay=0).run()
    assert len(seen) == calls


def test_a_step_that_succeeds_at_its_second_call_is_a_success():
    errors = [OSError("gone")]

    def flaky() -> int:
        if errors:
            raise errors.pop()
        return 1

    result = Orchestrator([flaky], None, retry_delay=0).run()
    assert (result.data_map["flaky"], result.run.steps["flaky"].attempts) == (1, 2)


@pytest.mark.parametrize("options", [{"max_retries": 0}, {"max_workers": 0}, {"retry_delay": -1}])
def test_values_that_cannot_be_are_refused_at_once(options: dict[str, Any]):
    with pytest.raises(OptionError):
        Orchestrator([lambda: 1], None, **options)


def sql(name: str, reads: str) -> Step[..., Any, Any]:
    return Step("transform", name, "sql", "pandas", "SELECT * FROM data", inputs={"data": reads})


def test_a_cycle_is_named_by_each_way_in():
    events, heard = EventEmitter(), []
    events.on("pipeline_start", lambda steps: heard.append(steps))
    events.on("pipeline_error", lambda error: heard.append(error))
    orchestrator = Orchestrator([sql("a", "c"), sql("b", "a"), sql("c", "b")], None, None, events)
    for enter in (orchestrator.detect_cycles, orchestrator.build_dag, orchestrator.run):
        with pytest.raises(CycleError, match="a -> b -> c -> a") as caught:
            enter()
        assert caught.value.cycle == ("a", "b", "c", "a")
    assert heard == [caught.value]


def test_what_slipped_through_before_is_a_fault_before_anything_runs():
    steps = [sql("a", "nothing"), step(lambda: 1, name="b"), step(lambda: 1, name="b")]
    with pytest.raises(GraphError) as caught:
        Orchestrator(steps, None).run()
    text = str(caught.value)
    assert "Step 'a' reads 'nothing'" in text
    assert "Two steps are called 'b'" in text


def test_the_dag_builder_tells_the_order_the_levels_and_draws():
    orchestrator = Orchestrator([sql("b", "a"), Step("transform", "a", "sql", "pandas", "SELECT 1 AS n")], None)
    orchestrator.detect_cycles()
    dag = orchestrator.build_dag()
    assert dag.order() == ["a", "b"]
    assert dag.levels() == [["a"], ["b"]]
    assert [each.name for each in dag.steps] == ["b", "a"]
    result = orchestrator.run()
    assert result.dag_builder is result._dag_builder is dag
    mermaid = dag.to_mermaid().splitlines()
    assert mermaid[0] == "graph TD"
    assert '    n0["b"]' in mermaid
    assert "    n1 --> n0" in mermaid
    assert "    style n0 fill:#f3e5f5" in mermaid


# -- what can be given ---------------------------------------------------------------------------------


def test_arguments_may_be_given_by_position():
    tracker, events, started = Tracker(), EventEmitter(), []
    events.on("pipeline_start", lambda steps: started.append(steps))
    one = step(lambda: 1, name="one")
    result = Orchestrator([one], None, tracker, events, False, 2, False, 1, 0.5).run()
    assert result.data_map == {"one": 1}
    assert result.get_execution_stats()["parallel_execution"] is False
    assert started == [[one]]
    assert len(tracker.runs) == 1


def test_tracker_and_events_may_be_left_out():
    result = Orchestrator([lambda_step()], None, None, None).run()
    assert result.tracker is None
    assert result.data_map == {"one": 1}


def lambda_step() -> Step[..., Any, Any]:
    return step(lambda: 1, name="one")


def test_function_steps_call_the_functions_that_are_given(context: Any):
    def scaled(data: pd.DataFrame, factor: int) -> pd.DataFrame:
        return data * factor

    steps = [
        Step("transform", "one", "sql", "pandas", "SELECT 1 AS n"),
        Step("transform", "ten", "function", "pandas", "scale", {"factor": 10}, {"data": "one"}),
    ]
    result = Orchestrator(steps, context, functions={"scale": scaled}).run()
    assert result.data_map["ten"]["n"].tolist() == [10]
    with pytest.raises(GraphError, match="'scale', which is not given"):
        Orchestrator(steps, context).run()


def test_layers_of_ones_own_are_given_by_name(context: Any):
    steps = [Step("greet", "hello", "config_op", "pandas", "world")]
    result = Orchestrator(steps, context, nodes={"greet": lambda step: lambda: f"hello {step.value}"}).run()
    assert result.data_map == {"hello": "hello world"}


def test_the_context_that_is_given_serves_the_steps(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("n\n7\n")
    with create_engine_context("pandas", root=tmp_path / "in") as context:
        result = Orchestrator([Step("ingest", "a", "config_op", "pandas", "a.csv")], context).run()
        assert result.data_map["a"]["n"].tolist() == [7]
        with pytest.raises(RunError, match="leads outside"):
            Orchestrator([Step("ingest", "a", "config_op", "pandas", "../b.csv")], context).run()


def test_it_runs_twice(context: Any):
    tracker = Tracker()
    orchestrator = Orchestrator([Step("transform", "one", "sql", "pandas", "SELECT 1 AS n")], context, tracker)
    assert [orchestrator.run().data_map["one"]["n"].tolist() for _ in range(2)] == [[1], [1]]
    assert len(tracker.runs) == 2


@pytest.mark.foreign_loop  # which stands still while the run has one of its own
async def test_it_runs_where_a_loop_runs_already(context: Any):
    events, names = EventEmitter(), []
    events.on("step_complete", lambda step, duration_ms: names.append(step.name))
    steps = [Step("transform", "one", "sql", "pandas", "SELECT 1 AS n"), step(lambda one: len(one), name="rows")]
    result = Orchestrator(steps, context, Tracker(), events).run()
    assert result.data_map["rows"] == 1
    assert names == ["one", "rows"]
    with pytest.raises(RunError):
        Orchestrator([step(lambda: 1 / 0, name="bad")], context, Tracker(), events).run()


def test_the_predecessors_own_example_runs_with_another_import_line(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from odibi_async.core import (
        CacheManager,
        ConfigLoader,
        DAGBuilder,
        EventEmitter,
        NodeContext,
        Orchestrator,
        Tracker,
        create_engine_context,
    )

    monkeypatch.chdir(tmp_path)
    Path("pipeline.json").write_text(
        '[{"name": "orders", "type": "sql", "value": "SELECT 1 AS a"},'
        ' {"name": "totals", "type": "sql", "inputs": {"data": "orders"}, "value": "SELECT sum(a) AS a FROM data"}]'
    )
    steps = ConfigLoader().load("pipeline.json")
    context = create_engine_context("pandas")
    request.addfinalizer(context.close)
    tracker, events = Tracker(), EventEmitter()
    orchestrator = Orchestrator(steps, context, tracker, events, parallel=True, max_workers=4, use_cache=False)
    result = orchestrator.run()
    page = tracker.export_to_story(dag_builder=orchestrator._dag_builder)
    assert "graph TD" in Path(page).read_text()
    assert result.data_map["totals"]["a"].tolist() == [1]
    assert result.get_execution_stats()["success_rate"] == 100
    assert DAGBuilder(steps).order() == ["orders", "totals"]
    assert CacheManager(tmp_path / "cache")
    assert NodeContext
