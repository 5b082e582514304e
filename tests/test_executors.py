"""What every place where steps run has in common: the loop, threads, worker processes, a Dask cluster."""

from __future__ import annotations

import asyncio
import decimal
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from odibi_async import Limits, Retry, RunError, Runner, Secret, Status, Step, resource, run_pipeline, step
from odibi_async.abc import Raised, Work
from odibi_async.dataset import Handle
from odibi_async.errors import GraphError, NotPortable, OptionError, OutputError, RemoteTraceback
from odibi_async.events import StepRetrying, StepStarted
from odibi_async.executors.dask import DaskExecutor
from odibi_async.testing import Recorder
from tests.clusters import Cluster

PLACES = ["loop", "thread", "process", "dask"]
ELSEWHERE = ["process", "dask"]
ABLE_TO_BLOCK = ["thread", "process", "dask"]
REQUEST: ContextVar[str] = ContextVar("REQUEST", default="none")
log = logging.getLogger("tests.executors")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def address(place: str, request: pytest.FixtureRequest) -> str:
    """Where the cluster is; it is there only where one is asked for."""
    if place != "dask":
        return ""
    found: Cluster = request.getfixturevalue("cluster")
    found.heal()
    return found.address


@pytest.fixture
async def runner(address: str) -> AsyncIterator[Runner]:
    """A runner with an executor of each kind."""
    executors = {"dask": DaskExecutor(address)} if address else {}
    async with Runner(executors=executors, limits=Limits(processes=2)) as runner:
        yield runner


def frame_of(rows: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "n": np.arange(rows),
            "x": np.arange(rows) / 7,
            "text": [f"row {n % 100}" for n in range(rows)],
            "maybe": pd.array([None, 1, 2, 3] * (rows // 4), dtype="Int64"),
            "kind": pd.Categorical(["a", "b"] * (rows // 2)),
            "at": pd.date_range("2013-01-01", periods=rows, freq="min", tz="UTC"),
        },
        index=pd.Index(np.arange(rows) * 2, name="key"),
    )


@dataclass
class Unloadable:
    """What can be pickled, and raises when it is loaded: another error in this process than its class would say."""

    call: Any
    argument: Any

    def __reduce__(self) -> Any:
        return self.call, (self.argument,)


class Odd(Exception):
    """Takes other arguments than it is made from, so that it does not survive pickling."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


async def failure_of(runner: Runner, *steps: Any, **options: Any) -> Any:
    with pytest.raises(RunError) as caught:
        await runner.run(list(steps), **options)
    [failure] = caught.value.failures.values()
    return failure.error


async def test_a_step_gives_its_value_to_the_next_one(runner: Runner, place: str):
    def double(n: int, *, by: int = 2) -> int:
        return n * by

    def more(double: int) -> int:
        return double + 1

    steps = [step(double, run_on=place, params={"by": 3}), step(more, run_on=place), lambda_of("more")]
    result = await runner.run(steps, {"n": 7})
    assert (result["double"], result["more"], result["last"]) == (21, 22, 22)
    assert [each.status for each in result.steps.values()] == [Status.SUCCEEDED] * 3


def lambda_of(dataset: str) -> Any:
    return step(lambda value: value, name="last", inputs={"value": dataset})


@pytest.mark.parametrize("rows", [0, 4, 40_000])
async def test_frames_come_as_they_are(runner: Runner, place: str, rows: int):
    frame = frame_of(rows)

    def same(frame: pd.DataFrame) -> pd.DataFrame:
        assert list(frame.columns) == ["n", "x", "text", "maybe", "kind", "at"]
        return frame

    result = await runner.run(
        [step(same, run_on=place), step(same, name="again", run_on=place, inputs={"frame": "same"})], {"frame": frame}
    )
    pd.testing.assert_frame_equal(result["same"], frame)
    pd.testing.assert_frame_equal(result["again"], frame)
    assert result.steps["same"].rows in (rows, None)


async def test_series_arrays_tables_and_what_holds_them_come_as_they_are(runner: Runner, place: str):
    def make() -> dict[str, Any]:
        big = np.arange(50_000, dtype="int32")
        return {"array": big, "series": pd.Series(big, name="s"), "list": [pa.table({"a": big}), {"x": (1, None)}]}

    def check(make: dict[str, Any]) -> list[Any]:
        big = np.arange(50_000, dtype="int32")
        np.testing.assert_array_equal(make["array"], big)
        pd.testing.assert_series_equal(make["series"], pd.Series(big, name="s"))
        assert make["list"][0].equals(pa.table({"a": big}))
        return [make["array"].dtype.name, make["list"][1]]

    result = await runner.run([step(make, run_on=place), step(check, run_on=place)])
    assert result["check"] == ["int32", {"x": (1, None)}]
    assert result["make"]["list"][0].num_rows == 50_000


async def test_what_a_step_does_to_a_frame_nobody_else_sees(runner: Runner, place: str):
    def spoil(frame: pd.DataFrame) -> int:
        frame["n"] = -1
        frame.loc[:, "x"] = 0.5
        return int(frame["n"].sum())

    steps = [
        step(lambda: frame_of(20_000), name="frame", run_on=place),
        step(spoil, run_on=place),
        step(lambda frame: int(frame["n"].sum()), name="sum", run_on=place, after=["spoil"]),
    ]
    result = await runner.run(steps)
    assert result["spoil"] == -20_000
    assert result["sum"] == result["frame"]["n"].sum() == sum(range(20_000))


@pytest.mark.parametrize("place", ["loop", "process", "dask"], indirect=True)
async def test_coroutine_functions_run_there_too(runner: Runner, place: str):
    async def later(n: int) -> int:
        await asyncio.sleep(0)
        return n + 1

    assert (await runner.run([step(later, run_on=place)], {"n": 1}))["later"] == 2


async def test_several_outputs_are_several_datasets(runner: Runner, place: str):
    def split(n: int) -> tuple[list[int], pd.DataFrame]:
        return [n], frame_of(n)

    steps = [step(split, outputs=("ns", "frame"), run_on=place), step(lambda ns, frame: (ns, len(frame)), name="both")]
    assert (await runner.run(steps, {"n": 20_000}))["both"] == ([20_000], 20_000)


async def test_what_does_not_fit_the_outputs_is_told(runner: Runner, place: str):
    error = await failure_of(runner, step(lambda: (1, 2, 3), name="s", outputs=("a", "b"), run_on=place))
    assert isinstance(error, OutputError)
    assert "declares 2 outputs" in str(error)


async def test_what_can_be_read_once_is_refused(runner: Runner, place: str):
    error = await failure_of(runner, step(lambda: (n for n in "ab"), name="s", run_on=place))
    assert isinstance(error, OutputError)


async def test_an_error_is_the_one_that_was_raised(runner: Runner, place: str):
    def fail() -> None:
        raise ValueError("no good")

    error = await failure_of(runner, step(fail, run_on=place))
    assert type(error) is ValueError
    assert error.args == ("no good",)
    if place in ELSEWHERE:
        assert isinstance(error.__cause__, RemoteTraceback)
        assert "in fail" in str(error.__cause__)


async def test_an_error_that_cannot_travel_is_told_by_its_name(runner: Runner, place: str):
    def fail() -> None:
        raise Odd(1, 2)

    error = await failure_of(runner, step(fail, run_on=place))
    assert "1 and 2" in str(error)


@pytest.mark.parametrize("place", ABLE_TO_BLOCK, indirect=True)
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
async def test_what_is_meant_for_the_process_is_the_failure_of_the_step(
    runner: Runner, place: str, kind: type[BaseException]
):
    def leave() -> None:
        raise kind("bye")

    error = await failure_of(runner, step(leave, run_on=place))
    assert type(error) is kind
    assert (await runner.run([step(lambda: 1, name="one", run_on=place)]))["one"] == 1


async def test_a_failed_step_is_called_again(runner: Runner, place: str, tmp_path: Path, heard: Recorder):
    def flaky(path: str) -> str:
        with open(path, "a", encoding="ascii") as file:
            file.write("x")
        if os.path.getsize(path) < 3:
            raise OSError("not yet")
        return "at last"

    again = Retry(attempts=3, wait=0)
    with_path = {"path": str(tmp_path / "tries")}
    run_on = "thread" if place == "loop" else place
    result = await runner.run([step(flaky, run_on=run_on, retry=again, params=with_path)], observers=[heard])
    assert result["flaky"] == "at last"
    assert result.steps["flaky"].attempts == 3
    assert [event.attempt for event in heard.of(StepRetrying)] == [1, 2]


async def test_mapped_steps_take_each_element_there(runner: Runner, place: str):
    steps = [
        step(lambda ns: [frame_of(n) for n in ns], name="frames", run_on=place),
        step(lambda frame: frame.assign(n=1), name="ones", inputs={"frame": "frames"}, map_over="frame", run_on=place),
        step(
            lambda frame: int(frame["n"].sum()), name="sums", inputs={"frame": "ones"}, map_over="frame", run_on=place
        ),
        step(lambda ones, sums: (len(ones), sum(sums)), name="all", run_on=place),
        step(lambda ones: [len(each) for each in ones], name="here"),
    ]
    result = await runner.run(steps, {"ns": [4, 20_000, 8]})
    assert result["sums"] == result["here"] == [4, 20_000, 8]
    assert result["all"] == (3, 20_012)


async def test_a_predicate_reads_what_was_made_there(runner: Runner, place: str):
    steps = [
        step(lambda: frame_of(20_000), name="frame", run_on=place),
        step(lambda: 1, name="small", when=lambda frame: len(frame) < 10),
        step(lambda: 1, name="large", when=lambda frame: len(frame) > 10, run_on=place),
    ]
    result = await runner.run(steps)
    assert (result.steps["small"].status, result["large"]) == (Status.SKIPPED, 1)


async def test_targets_come_back_and_all_else_is_dropped(runner: Runner, place: str):
    steps = [
        step(lambda: frame_of(20_000), name="frame", run_on=place),
        step(lambda frame: len(frame), name="count", run_on=place),
    ]
    result = await runner.run(steps, targets=["count"])
    assert dict(result.outputs) == {"count": 20_000}


async def test_context_variables_are_those_of_the_run(runner: Runner, place: str):
    own: ContextVar[int] = ContextVar("own")
    REQUEST.set("abc")
    own.set(3)

    def seen() -> tuple[str, int]:
        answer = REQUEST.get(), own.get()
        REQUEST.set("changed")
        return answer

    steps = [step(seen, run_on=place), step(seen, name="again", run_on=place, after=["seen"])]
    result = await runner.run(steps)
    assert result["seen"] == result["again"] == ("abc", 3)
    assert REQUEST.get() == "abc"


@pytest.mark.parametrize("place", ABLE_TO_BLOCK, indirect=True)
async def test_log_records_reach_the_handlers_here(runner: Runner, place: str, caplog: pytest.LogCaptureFixture):
    def talk(n: int) -> int:
        log.warning("the number is %d", n, extra={"odd": threading.Lock()})
        try:
            raise ValueError("within")
        except ValueError:
            log.exception("and an error")
        return n

    await runner.run([step(talk, run_on=place)], {"n": 7})
    for _ in range(100):  # what a cluster's worker tells comes by another way than its results
        ours = [record for record in caplog.records if record.name == "tests.executors"]
        if len(ours) > 1:
            break
        await asyncio.sleep(0.02)
    assert [record.getMessage() for record in ours] == ["the number is 7", "and an error"]
    assert ours[0].funcName == "talk"
    assert "ValueError: within" in caplog.text


@pytest.mark.parametrize("place", ELSEWHERE, indirect=True)
async def test_what_cannot_travel_is_told(runner: Runner, place: str):
    error = await failure_of(runner, step(lambda lock: 1, name="s", run_on=place), inputs={"lock": threading.Lock()})
    assert isinstance(error, NotPortable)
    assert "cannot pickle" in str(error)
    error = await failure_of(runner, step(threading.Lock, name="s", run_on=place))
    assert isinstance(error, NotPortable)
    assert "what it returned" in str(error)
    assert (await runner.run([step(lambda: 1, name="one", run_on=place)]))["one"] == 1


@pytest.mark.parametrize("place", ELSEWHERE, indirect=True)
@pytest.mark.parametrize(("call", "argument"), [(int, "x"), (sys.exit, 3)])
async def test_a_result_that_cannot_be_loaded_here_is_the_failure_of_its_step(
    runner: Runner, place: str, call: Any, argument: Any
):
    error = await failure_of(runner, step(lambda: Unloadable(call, argument), name="s", run_on=place))
    assert isinstance(error, NotPortable)
    assert "what it returned cannot be loaded here" in str(error)
    assert (await runner.run([step(lambda: 1, name="one", run_on=place)]))["one"] == 1


@pytest.mark.parametrize("place", ELSEWHERE, indirect=True)
async def test_a_log_message_that_does_not_fit_its_arguments_fails_no_step(runner: Runner, place: str):
    def talk() -> int:
        log.warning("the number is %d", "seven")
        return 7

    assert (await runner.run([step(talk, run_on=place)]))["talk"] == 7


@pytest.mark.parametrize("place", ELSEWHERE, indirect=True)
async def test_a_step_whose_time_is_over_is_stopped(runner: Runner, place: str, tmp_path: Path):
    beat = tmp_path / "beat"

    def endless(path: str) -> None:
        while True:
            Path(path).write_text(str(time.monotonic()))
            time.sleep(0.01)

    began = time.monotonic()
    error = await failure_of(runner, step(endless, run_on=place, timeout=0.5), inputs={"path": str(beat)})
    assert isinstance(error, TimeoutError)
    assert time.monotonic() - began < 8
    await quiet(beat)


async def quiet(beat: Path) -> None:
    """Waits until nobody writes to a file any more."""
    for _ in range(50):
        seen = (await asyncio.to_thread(beat.stat)).st_mtime_ns
        await asyncio.sleep(0.2)
        if seen == (await asyncio.to_thread(beat.stat)).st_mtime_ns:
            return
    raise AssertionError("somebody still writes")


@pytest.mark.parametrize("place", ELSEWHERE, indirect=True)
async def test_a_cancelled_run_stops_what_runs_there(runner: Runner, place: str, tmp_path: Path, heard: Recorder):
    beat = tmp_path / "beat"

    def endless(path: str) -> None:
        while True:
            Path(path).write_text(str(time.monotonic()))
            time.sleep(0.01)

    run = await runner.start([step(endless, run_on=place, timeout=60)], {"path": str(beat)}, observers=[heard])
    while not await asyncio.to_thread(beat.exists):
        await asyncio.sleep(0.01)
    await run.cancel()
    assert run.status is Status.CANCELLED
    assert len(heard.of(StepStarted)) == 1
    await quiet(beat)


async def test_what_runs_there_is_cached(runner: Runner, place: str, tmp_path: Path):
    def count(frame: pd.DataFrame, path: str) -> pd.DataFrame:
        return frame.assign(m=1)

    steps = [step(count, run_on=place, cache=True, params={"path": "x"})]
    first = await runner.run(steps, {"frame": frame_of(20_000)}, cache=tmp_path / "cache")
    second = await runner.run(steps, {"frame": frame_of(20_000)}, cache=tmp_path / "cache")
    assert (first.steps["count"].status, second.steps["count"].status) == (Status.SUCCEEDED, Status.CACHED)
    pd.testing.assert_frame_equal(first["count"], second["count"])


async def test_local_steps_between_get_values(runner: Runner, place: str):
    async def between(frame: pd.DataFrame) -> int:
        return len(frame)

    steps = [
        step(lambda: frame_of(20_000), name="frame", run_on=place),
        between,
        step(lambda frame, between: len(frame) - between, name="none", run_on=place),
    ]
    assert (await runner.run(steps))["none"] == 0


@dataclass(frozen=True)
class Point:
    x: int


async def test_classes_of_this_module_are_the_same_there(runner: Runner, place: str):
    def move(point: Point) -> Point:
        assert isinstance(point, Point)
        return Point(point.x + 1)

    assert (await runner.run([step(move, run_on=place)], {"point": Point(1)}))["move"] == Point(2)


async def test_an_executor_that_the_run_does_not_have_is_a_fault_before_anything_runs():
    with pytest.raises(GraphError, match=r"'s' runs on 'grid', which is no executor of this run.*Known: loop, thread"):
        await run_pipeline([step(lambda: 1, name="s", run_on="grid")])
    with pytest.raises(GraphError, match="executors="):
        await run_pipeline([step(lambda: 1, name="s", run_on="dask")])
    with pytest.raises(OptionError, match="a name of your own and an executor"):
        await run_pipeline([lambda_of("x")], {"x": 1}, executors={"loop": object()})  # type: ignore[dict-item]


async def test_what_stays_in_this_process_is_not_read_elsewhere():
    @resource
    def connection():
        yield threading.Lock()

    with pytest.raises(GraphError, match="Step 's' reads the resource 'connection', which stays in this process"):
        await run_pipeline([connection, step(lambda connection: 1, name="s", run_on="process")])
    with pytest.raises(GraphError, match="is a resource, which is open here, so it cannot run on 'process'"):
        await run_pipeline([resource(connection.value, name="c", run_on="process"), step(lambda c: 1, name="s")])
    sql = Step("transform", "q", "sql", "pandas", "SELECT 1 AS n", run_on="process")
    with pytest.raises(GraphError, match="Step 'q' takes the context of an engine, which stays in this process"):
        await run_pipeline([sql])


async def test_secrets_travel_as_secrets(runner: Runner, place: str):
    def use(password: Secret) -> tuple[str, int]:
        return str(password), len(password.reveal())

    result = await runner.run([step(use, run_on=place, params={"password": Secret("hunter2")})])
    assert result["use"] == (str(Secret("hunter2")), 7)


class Mine:
    """An executor that somebody else has written: it calls functions in threads, and keeps what they make to itself."""

    def __init__(self) -> None:
        self.opened = self.fetched = 0

    async def open(self) -> None:
        self.opened += 1

    async def close(self) -> None:
        self.opened -= 1

    def takes(self, handle: Handle) -> bool:
        return isinstance(handle, Kept)

    def submit(self, work: Work) -> asyncio.Task[Any]:
        return asyncio.create_task(self._call(work))

    async def _call(self, work: Work) -> list[Kept]:
        work.on_start()
        args = [each.value if isinstance(each, Kept) else each for each in work.args]
        try:
            made = work.outputs(await asyncio.to_thread(work.fn, *args, **work.kwargs))
        except BaseException as error:
            raise Raised(error) from error
        return [Kept(self, value) for value in made]


class Kept(Handle):
    def __init__(self, executor: Mine, value: Any) -> None:
        self.executor = executor
        self.value = value

    @property
    def rows(self) -> None:
        return None

    async def load(self) -> Any:
        self.executor.fetched += 1
        return self.value


async def test_an_executor_of_your_own_needs_four_methods():
    mine = Mine()
    steps = [
        step(lambda: 1, name="one", run_on="mine"),
        step(lambda one: one + 1, name="two", run_on="mine"),
        step(lambda two: two + 1, name="three"),
    ]
    result = await run_pipeline(steps, targets=["three"], executors={"mine": mine})
    assert (result["three"], mine.fetched, mine.opened) == (3, 1, 0)
    with pytest.raises(RunError, match="ZeroDivisionError"):
        await run_pipeline([step(lambda: 1 / 0, name="s", run_on="mine")], executors={"mine": mine})


async def test_calculations_with_decimals_are_as_exact_as_around_the_run(runner: Runner, place: str):
    with decimal.localcontext() as context:
        context.prec = 5
        result = await runner.run([step(lambda: decimal.Decimal(1) / 3, name="third", run_on=place)])
    assert str(result["third"]) == "0.33333"


async def test_a_default_of_decimals_that_somebody_has_changed_goes_along(
    runner: Runner, place: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(decimal.DefaultContext, "prec", 5)
    with decimal.localcontext(decimal.DefaultContext):
        result = await runner.run([step(lambda: decimal.Decimal(1) / 3, name="third", run_on=place)])
    assert str(result["third"]) == "0.33333"
