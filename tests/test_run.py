"""The run: steps start when their own inputs are there, datasets travel, failures are told."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import pickle
import threading
import weakref
from typing import Any

import anyio.from_thread
import pandas as pd
import pytest

from odibi_async import Limits, OdibiError, Pipeline, RunError, Runner, Status, StepError, run_pipeline, step
from odibi_async.errors import DatasetMissing, DeadlineError, GraphError, OptionError, OutputError
from odibi_async.testing import Recorder


async def test_async_and_blocking_steps_make_their_datasets():
    @step
    async def orders(url: str) -> list[int]:
        return [len(url), 2]

    @step
    def clean(orders: list[int]) -> list[int]:
        return sorted(orders)

    @step
    async def total(clean: list[int]) -> int:
        return sum(clean)

    result = await run_pipeline([total, clean, orders], {"url": "https://x"})
    assert result["clean"] == [2, 9]
    assert result[total] == 11
    assert result.outputs == {"url": "https://x", "orders": [9, 2], "clean": [2, 9], "total": 11}
    assert result.ok
    assert result.status is Status.SUCCEEDED
    assert [record.status for record in result.steps.values()] == [Status.SUCCEEDED] * 3


async def test_plain_functions_are_accepted_where_steps_are():
    def load() -> int:
        return 1

    async def twice(load: int) -> int:
        return 2 * load

    result = await run_pipeline([load, twice])
    assert (result[load], result[twice]) == (1, 2)


async def test_a_step_starts_before_an_unrelated_slow_one_of_its_level_has_ended():
    released = asyncio.Event()

    async def slow() -> None:
        await released.wait()

    async def quick() -> int:
        return 1

    def below(quick: int) -> int:
        return quick

    async def release(below: int) -> None:
        released.set()  # level by level, this would wait for `slow`, and `slow` for this

    assert (await asyncio.wait_for(run_pipeline([slow, quick, below, release]), 10)).ok


async def test_blocking_steps_overlap_and_the_loop_stays_free():
    meeting = threading.Barrier(3, timeout=10)
    from_loop = threading.Event()

    def left() -> None:
        meeting.wait()

    def middle() -> None:
        meeting.wait()

    def right() -> None:
        meeting.wait()
        assert from_loop.wait(10)

    async def loop_is_free() -> None:
        while meeting.n_waiting:
            await asyncio.sleep(0)
        from_loop.set()

    assert (await run_pipeline([left, middle, right, loop_is_free])).ok


async def test_a_blocking_step_can_call_into_the_loop():
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    def ask(n: int) -> Any:
        return anyio.from_thread.run(double, n), anyio.from_thread.run_sync(threading.get_ident)

    result = await run_pipeline([ask], {"n": 21})
    assert result["ask"] == (42, threading.get_ident())


async def test_a_sync_step_may_ask_for_the_loop():
    result = await run_pipeline([step(threading.get_ident, name="here", run_on="loop")])
    assert result["here"] == threading.get_ident()


seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")


async def test_no_context_variable_and_no_task_is_shared_between_steps():
    tasks = []

    def look(name: str) -> str:
        before = seen.get()
        seen.set(name)
        return before

    async def a() -> str:
        tasks.append(asyncio.current_task())
        return look("a")

    async def b(a: str) -> str:
        tasks.append(asyncio.current_task())
        return look("b")

    def c(b: str) -> str:
        return look("c")

    def d(c: str) -> str:
        return look("d")

    seen.set("the caller's")
    result = await run_pipeline([a, b, c, d])
    assert [result[name] for name in "abcd"] == ["the caller's"] * 4
    assert seen.get() == "the caller's"
    assert len({*tasks, asyncio.current_task()}) == 3
    assert [task.get_name() for task in tasks] == ["a", "b"]


async def test_each_reader_of_a_frame_has_it_to_itself():
    def frame() -> pd.DataFrame:
        return pd.DataFrame({"x": [1, 2]})

    def left(frame: pd.DataFrame) -> int:
        frame["x"] = 0
        frame["y"] = 1
        return int(frame["x"].sum())

    async def right(frame: pd.DataFrame) -> int:
        frame.loc[0, "x"] = 100
        return int(frame["x"].sum())

    def last(frame: pd.DataFrame, left: int, right: int) -> list[str]:
        return list(frame.columns)

    result = await run_pipeline([frame, left, right, last])
    assert (result["left"], result["right"], result["last"]) == (0, 102, ["x"])
    assert result["frame"].equals(pd.DataFrame({"x": [1, 2]}))


async def test_a_given_frame_stays_as_it_was():
    given = pd.DataFrame({"x": [1, 2]})

    def spoil(given: pd.DataFrame) -> None:
        given["x"] = 0

    await run_pipeline([spoil], {"given": given})
    assert given["x"].tolist() == [1, 2]


@pytest.mark.parametrize("value", [{"k": 1}, [1], {1}, bytearray(b"1")])
async def test_each_reader_of_a_plain_container_has_it_to_itself(value: Any):
    def source() -> Any:
        return value

    def left(source: Any) -> None:
        source.clear()

    async def right(source: Any, left: None) -> int:
        return len(source)

    result = await run_pipeline([source, left, right])
    assert result["right"] == 1
    assert len(result["source"]) == 1


# -- targets and inputs ------------------------------------------------------------------------------------


def three() -> list[Any]:
    ran: list[str] = []

    def make(name: str) -> Any:
        def fn(**_: Any) -> str:
            ran.append(name)
            return name

        return fn

    steps = [
        step(make("a"), name="a"),
        step(make("b"), name="b", inputs={"x": "a"}),
        step(make("c"), name="c", inputs={"x": "b"}),
        step(make("other"), name="other"),
    ]
    return [steps, ran]


async def test_only_the_ancestors_of_the_targets_run_and_only_targets_are_returned():
    steps, ran = three()
    result = await run_pipeline(steps, targets=["b"])
    assert ran == ["a", "b"]
    assert dict(result.outputs) == {"b": "b"}
    assert list(result.steps) == ["a", "b"]


async def test_targets_may_be_steps_and_functions():
    def fn() -> int:
        return 1

    steps, _ = three()
    result = await run_pipeline([*steps, fn], targets=[steps[1], fn])
    assert dict(result.outputs) == {"b": "b", "fn": 1}


async def test_a_given_dataset_stands_in_for_a_step():
    steps, ran = three()
    result = await Pipeline(steps).run({"b": "given"}, targets=["c"])
    assert ran == ["c"]
    assert result["c"] == "c"


async def test_a_stand_in_frees_readers_from_waiting_for_a_step_that_runs_all_the_same():
    @step(outputs=("left", "right"))
    async def both() -> Any:
        return 1, 2

    async def use(left: int, right: int) -> int:
        return left + right

    pipeline = Pipeline([both, use])
    result = await pipeline.run({"left": 10})
    assert (result["use"], result["left"]) == (12, 10)
    result = await pipeline.run({"left": 10, "right": 20})
    assert result["use"] == 30
    assert list(result.steps) == ["use"]


async def test_an_unknown_target_or_input_is_refused_before_anything_runs():
    steps, ran = three()
    with pytest.raises(GraphError, match=r"Target 'bb' is not a dataset of this pipeline. Did you mean 'b'?"):
        await run_pipeline(steps, targets=["bb"])
    with pytest.raises(
        GraphError, match=r"Input 'othr' is given, but no step reads it or makes it. Did you mean 'other'"
    ):
        await Pipeline(steps).run({"othr": 1})
    assert not ran


async def test_a_required_input_that_is_not_given_is_refused_unless_no_target_needs_it():
    pipeline = Pipeline([step(lambda url: url, name="load"), step(lambda: 1, name="one")], inputs=("url",))
    with pytest.raises(GraphError, match="Step 'load' reads 'url', which this run was not given"):
        await pipeline.run()
    assert (await pipeline.run(targets=["one"]))["one"] == 1


class Big:
    """Something that can be weakly referenced."""


@pytest.mark.parametrize("place", ["loop", "thread"])
async def test_with_targets_a_dataset_is_dropped_after_its_last_reader(place: Any):
    alive: list[weakref.ref[Big]] = []

    def source() -> Big:
        big = Big()
        alive.append(weakref.ref(big))
        return big

    def first(source: Big) -> int:
        return 1

    def second(source: Big, first: int) -> int:
        return 2

    def after(second: int) -> bool:
        gc.collect()
        return alive[0]() is None

    def unread() -> Big:
        return source()

    steps = [step(fn, run_on=place) for fn in (source, first, second, after)]
    result = await run_pipeline(steps, targets=["after"])
    assert result["after"] is True
    assert (await run_pipeline(steps)).outputs["source"] is alive[-1]()


# -- size --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("place", ["loop", "thread"])
async def test_a_long_chain_runs_whatever_its_order(backwards: bool, place: str):
    async def on_loop(x: int) -> int:
        return x + 1

    def in_thread(x: int) -> int:
        return x + 1

    fn: Any = on_loop if place == "loop" else in_thread
    chain = [step(fn, name=f"n{i}", inputs={"x": f"n{i - 1}" if i else "zero"}) for i in range(20_000)]
    result = await run_pipeline(chain[::-1] if backwards else chain, {"zero": 0}, targets=["n19999"])
    assert result["n19999"] == 20_000


async def test_the_loop_comes_round_while_thousands_of_steps_are_ready():
    async def nothing() -> None: ...

    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    await run_pipeline([step(nothing, name=str(i)) for i in range(5_000)])
    task.cancel()
    assert turns > 15


# -- what a step returns -----------------------------------------------------------------------------------


async def failure_of(*steps: Any) -> StepError:
    with pytest.raises(RunError) as caught:
        await run_pipeline(list(steps))
    [failure] = caught.value.failures.values()
    return failure


@pytest.mark.parametrize("returned", [(1,), (1, 2, 3), 7, [1, 2], {"a": 1}, {"a": 1, "b": 2, "c": 3}, "ab"])
async def test_a_wrong_number_of_outputs_is_a_failure_that_says_so(returned: Any):
    failure = await failure_of(step(lambda: returned, name="s", outputs=("a", "b")))
    assert isinstance(failure.__cause__, OutputError)
    assert "Step 's' declares" in str(failure)


@pytest.mark.parametrize("place", ["loop", "thread"])
async def test_a_step_that_returns_a_coroutine_fails(place: Any):
    async def later() -> int:
        return 1

    failure = await failure_of(step(lambda: later(), name="s", run_on=place))
    assert "returned a coroutine" in str(failure)
    assert "nobody awaits" in str(failure)


# -- failures ----------------------------------------------------------------------------------------------


def boom() -> None:
    raise ValueError("no such thing\nsecond line")


async def test_the_first_failure_cancels_the_rest_and_names_what_was_skipped():
    cleaned = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("endless")

    steps = [
        endless,
        boom,
        step(lambda boom: 1, name="below"),
        step(lambda below: 1, name="further"),
        step(lambda endless: 1, name="apart"),
    ]
    with pytest.raises(RunError) as caught:
        await run_pipeline(steps)
    error = caught.value
    assert str(error) == (
        "1 of 5 steps failed:\n  boom: ValueError: no such thing\n    skipped because of it: below, further"
    )
    assert isinstance(error.__cause__, ValueError)
    assert isinstance(error.failures["boom"].__cause__, ValueError)
    assert cleaned == ["endless"]
    statuses = {name: str(record.status) for name, record in error.result.steps.items()}
    assert statuses == {
        "endless": "cancelled",
        "boom": "failed",
        "below": "skipped",
        "further": "skipped",
        "apart": "cancelled",
    }
    assert error.result.status is Status.FAILED
    assert "boom  " in str(error.result)


async def test_with_continue_strangers_still_run_and_the_result_tells():
    steps = [
        boom,
        step(lambda boom: 1, name="below"),
        step(lambda boom=1: boom, name="with_default"),
        step(lambda: 1, name="stranger"),
        step(lambda stranger: 2, name="strangers_child"),
        step(lambda: 1, name="later", after=["boom"]),
    ]
    result = await run_pipeline(steps, on_error="continue")
    assert {name: str(record.status) for name, record in result.steps.items()} == {
        "boom": "failed",
        "below": "skipped",
        "with_default": "skipped",
        "stranger": "succeeded",
        "strangers_child": "succeeded",
        "later": "skipped",
    }
    assert result.steps["below"].skipped_because == "boom"
    assert not result.ok
    with pytest.raises(RunError, match="1 of 6 steps failed"):
        result.raise_for_failures()


async def test_several_failures_are_all_listed():
    meeting = threading.Barrier(2, timeout=10)

    def one() -> None:
        meeting.wait()
        raise ValueError("first")

    def two() -> None:
        meeting.wait()
        raise KeyError("second")

    with pytest.raises(RunError) as caught:
        await run_pipeline([one, two], on_error="raise")
    assert set(caught.value.failures) == {"one", "two"}
    assert "one: ValueError: first" in str(caught.value)
    assert "two: KeyError: 'second'" in str(caught.value)


async def test_a_failing_run_pickles_with_its_error():
    with pytest.raises(RunError) as caught:
        await run_pipeline([boom])
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert isinstance(again, OdibiError)


async def test_a_cancellation_of_its_own_is_the_steps_failure():
    async def inner() -> None:
        raise asyncio.CancelledError

    failure = await failure_of(inner)
    assert isinstance(failure.__cause__, asyncio.CancelledError)


async def test_an_inner_task_that_was_cancelled_is_the_steps_failure():
    async def outer() -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    assert isinstance((await failure_of(outer)).__cause__, asyncio.CancelledError)


@pytest.mark.parametrize("place", ["thread"])
async def test_a_step_that_exits_is_a_failure(place: Any):
    def leave() -> None:
        raise SystemExit(3)

    assert isinstance((await failure_of(step(leave, run_on=place))).__cause__, SystemExit)


# -- when --------------------------------------------------------------------------------------------------


async def test_branches_part_and_meet_again():
    def branch(taken: str) -> list[Any]:
        return [
            step(lambda: taken, name="which"),
            step(lambda: "L", name="left", when=lambda which: which == "left"),
            step(lambda left: left + "!", name="left_more"),
            step(lambda: "R", name="right", when=lambda which: which == "right"),
            step(lambda left_more=None, right=None: (left_more, right), name="meet"),
        ]

    result = await run_pipeline(branch("left"))
    assert result["meet"] == ("L!", None)
    assert result.steps["right"].skipped_because == "right"
    result = await run_pipeline(branch("right"))
    assert result["meet"] == (None, "R")
    assert str(result.steps["left_more"].status) == "skipped"
    assert result.steps["left_more"].skipped_because == "left"
    assert result.ok
    with pytest.raises(DatasetMissing, match="step 'left_more' was skipped because of 'left'"):
        result["left_more"]


async def test_a_predicate_may_be_async_and_may_fail():
    async def yes(flag: bool) -> bool:
        return flag

    result = await run_pipeline([step(lambda: 1, name="s", when=yes)], {"flag": True})
    assert result["s"] == 1
    failure = await failure_of(step(lambda: 1, name="s", when=lambda: 1 / 0))
    assert isinstance(failure.__cause__, ZeroDivisionError)


async def test_a_predicate_that_cannot_be_bound_is_a_fault():
    with pytest.raises(GraphError, match="reads 'nothing'"):
        Pipeline([step(lambda: 1, name="s", when=lambda nothing: True)])


async def test_after_a_skipped_step_one_that_only_waited_for_it_runs():
    result = await run_pipeline(
        [step(lambda: 1, name="a", when=lambda: False), step(lambda: 2, name="b", after="a")],
    )
    assert result["b"] == 2


async def test_after_waits():
    order: list[str] = []
    steps = [step(lambda n=n: order.append(n), name=n, after=after) for n, after in (("c", "b"), ("b", "a"), ("a", ()))]
    await run_pipeline(steps)
    assert order == ["a", "b", "c"]


# -- arguments and results ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "contine"}, "Did you mean 'continue'"),
        ({"timeout": 0}, "seconds above 0"),
        ({"timeout": float("nan")}, "seconds above 0"),
        ({"observers": [3]}, "An observer is a plain callable"),
        ({"observers": print}, "a list of observers is needed"),
        ({"retry": 3}, r"such as Retry\(attempts=3\)"),
        ({"limits": {"threads": 3}}, r"Limits\(...\) are needed"),
        ({"inputs": "url"}, "a mapping of datasets to values"),
    ],
)
async def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        await run_pipeline([step(lambda: 1, name="s")], **options)


async def test_a_single_function_is_no_list_of_steps():
    with pytest.raises(OptionError, match="a list of steps is needed"):
        await run_pipeline(boom)  # type: ignore[arg-type]


async def test_an_async_observer_is_refused():
    async def observer(event: object) -> None: ...

    with pytest.raises(OptionError, match="plain callable"):
        await run_pipeline([step(lambda: 1, name="s")], observers=[observer])


async def test_a_missing_dataset_says_why():
    result = await run_pipeline(
        [boom, step(lambda boom: 1, name="below"), step(lambda: 1, name="fine")],
        targets=["below", "boom"],
        on_error="continue",
    )
    for name, why in {
        "boom": "step 'boom' failed: ValueError: no such thing",
        "below": "step 'below' was skipped because of 'boom'",
        "fine": "no target needs step 'fine'",
        "belw": "Did you mean 'below'?",
    }.items():
        with pytest.raises(DatasetMissing) as caught:
            result[name]
        assert why in str(caught.value)
        assert isinstance(caught.value, KeyError)


async def test_a_dropped_dataset_says_so():
    steps, _ = three()
    result = await run_pipeline(steps, targets=["c"])
    with pytest.raises(DatasetMissing, match="dropped after its last reader; name it among the targets"):
        result["a"]


async def test_stats_count_what_happened():
    result = await run_pipeline(
        [boom, step(lambda boom: 1, name="below"), step(lambda: pd.DataFrame({"x": [1, 2]}), name="frame")],
        on_error="continue",
    )
    stats = result.stats()
    assert (stats["steps"], stats["succeeded"], stats["failed"], stats["skipped"], stats["rows"]) == (3, 1, 1, 1, 2)
    assert result.steps["frame"].rows == 2
    assert stats["seconds"] > 0


async def test_the_text_of_a_result_is_a_table():
    result = await run_pipeline([step(lambda: pd.DataFrame({"x": range(1500)}), name="frame")])
    assert repr(result).startswith(f"<RunResult {result.run_id}: succeeded in ")
    lines = str(result).splitlines()
    assert lines[0].startswith(f"Run {result.run_id} succeeded in ")
    assert lines[0].endswith("1 step, 1 succeeded")
    assert lines[1].split() == ["step", "status", "began", "took", "rows"]
    assert lines[2].split()[-1] == "1,500"


async def test_a_pipeline_runs_many_times_at_once():
    @step
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    def text(double: int) -> str:
        return str(double)

    pipeline = Pipeline([double, text], inputs=("n",))
    results = await asyncio.gather(*[pipeline.run({"n": n}) for n in range(200)])
    assert [result["text"] for result in results] == [str(2 * n) for n in range(200)]
    assert len({result.run_id for result in results}) == 200


# -- threads -----------------------------------------------------------------------------------------------


async def test_two_threads_that_finish_together_never_lose_a_dataset():
    meeting = threading.Barrier(2, timeout=10)

    def left(n: int) -> int:
        meeting.wait()
        return n

    def right(n: int) -> int:
        meeting.wait()
        return 2 * n

    def both(left: int, right: int) -> int:
        return left + right

    pipeline = Pipeline([left, right, both], inputs=("n",))
    async with Runner(limits=Limits(threads=2)) as runner:
        for n in range(1000):
            assert (await runner.run(pipeline, {"n": n}))["both"] == 3 * n


async def test_blocking_runs_at_once_share_the_default_threads():
    most = 0
    lock = threading.Lock()
    active = 0

    def work(x: int) -> int:
        nonlocal most, active
        with lock:
            active += 1
            most = max(most, active)
        threading.Event().wait(0.001)
        with lock:
            active -= 1
        return x

    pipeline = Pipeline([work, step(lambda work: work, name="again")], inputs=("x",))
    results = await asyncio.gather(*[pipeline.run({"x": n}) for n in range(200)])
    assert [result["again"] for result in results] == list(range(200))
    assert 1 < most <= 32


async def test_a_loop_that_ran_blocking_steps_can_be_collected():
    def run() -> weakref.ref[Any]:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(run_pipeline([step(lambda: 1, name="s")]))
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
        return weakref.ref(loop)

    alive = await asyncio.to_thread(run)
    await asyncio.to_thread(gc.collect)
    assert alive() is None


async def test_no_thread_to_be_had_is_a_failure_and_no_hang(monkeypatch: pytest.MonkeyPatch):
    async def none_left(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("anyio.to_thread.run_sync", none_left)
    with pytest.raises(RunError, match="can't start new thread"):
        await run_pipeline([step(lambda: 1, name="s"), step(lambda: 1, name="t")], limits=Limits(threads=2))


# -- the deadline ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["raise", "continue"])
async def test_the_deadline_raises_whatever_on_error_says(on_error: Any, heard: Recorder):
    async def endless() -> None:
        await asyncio.Event().wait()

    with pytest.raises(DeadlineError, match=r"did not end within 0.05 s: 1 of 3 steps were done") as caught:
        await run_pipeline(
            [endless, step(lambda: 1, name="fine"), step(lambda endless: 1, name="below")],
            timeout=0.05,
            on_error=on_error,
            observers=[heard],
        )
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert isinstance(error, RunError)
    assert {name: str(record.status) for name, record in error.result.steps.items()} == {
        "endless": "cancelled",
        "fine": "succeeded",
        "below": "cancelled",
    }
    assert heard.story[-1] == "RunFinished"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("options", [{"timeout": 5}, {"outputs": ("src", "b")}, {"params": {"x": 1}}])
async def test_readers_are_apart_whatever_policies_the_producer_has(options: dict[str, Any]):
    async def src(x: int = 0) -> Any:
        return ([1], 0) if "outputs" in options else [1]

    async def spoil(src: list[int]) -> None:
        src.append(99)

    async def look(src: list[int], spoil: None) -> list[int]:
        return list(src)

    result = await run_pipeline([step(src, **options), spoil, look])
    assert result["look"] == result["src"] == [1]


async def test_what_is_made_while_pandas_is_being_imported_needs_no_pandas(monkeypatch: pytest.MonkeyPatch):
    import sys
    from types import ModuleType

    monkeypatch.setitem(sys.modules, "pandas", ModuleType("pandas"))  # as a half-made module looks
    assert (await run_pipeline([step(lambda: type("Fresh", (), {})(), name="s")])).ok


async def test_a_failed_producer_of_what_was_given_is_nobodys_blame():
    @step(outputs=("x", "y"))
    async def pair() -> Any:
        raise ValueError

    async def slow() -> int:
        await asyncio.sleep(0.01)
        return 1

    async def reads_given(x: int, slow: int) -> int:
        return x

    async def reads_made(y: int) -> int:
        return y

    pipeline = Pipeline([pair, slow, reads_given, reads_made])
    result = await pipeline.run({"x": 5}, on_error="continue")
    assert result["reads_given"] == 5
    assert result.steps["reads_made"].skipped_because == "pair"


async def test_only_what_a_selected_step_requires_must_be_given():
    pipeline = Pipeline([step(lambda cfg: cfg, name="a"), step(lambda cfg=3: cfg, name="b")], inputs=("cfg",))
    assert (await pipeline.run(targets=["b"]))["b"] == 3


async def test_classes_and_wrappers_can_be_steps():
    import functools

    class Pair:
        def __init__(self, a: int) -> None:
            self.a = a

    def plain(a: int) -> int:
        return a

    @functools.wraps(plain)
    def wrapped(*args: Any) -> int:
        return plain(*args) + 1

    @functools.singledispatch
    def dispatched(a: Any) -> str:
        return "other"

    dispatched.register(int, lambda a: "int")
    result = await run_pipeline([Pair, step(wrapped, name="w"), step(dispatched, name="d")], {"a": 7})
    assert (result["Pair"].a, result["w"], result["d"]) == (7, 8, "int")


async def test_a_predicate_that_returns_a_coroutine_is_a_failure():
    async def no() -> bool:
        return False

    failure = await failure_of(step(lambda: 1, name="s", when=lambda: no()))
    assert "The predicate of step 's' returned a coroutine" in str(failure)


async def test_a_constant_is_new_for_each_run():
    def collect(acc: list[int]) -> list[int]:
        acc.append(1)
        return acc

    pipeline = Pipeline([step(collect, params={"acc": []})])
    assert (await pipeline.run())["collect"] == (await pipeline.run())["collect"] == [1]


async def test_something_that_can_be_awaited_but_is_no_coroutine_can_be_a_dataset():
    class Pool:
        def __await__(self) -> Any:
            yield

    result = await run_pipeline([Pool, step(lambda Pool: type(Pool).__name__, name="s")])
    assert result["s"] == "Pool"
    assert Pool in result


async def test_an_error_that_says_little_is_told_with_its_line() -> None:
    def missing() -> int:
        return {}["column"]  # type: ignore[no-any-return]

    with pytest.raises(RunError, match=r"missing: KeyError: 'column' \(test_run\.py, line \d+\)"):
        await run_pipeline([missing])


async def test_a_printed_result_and_its_error_have_a_line_a_step_whatever_names_and_errors_hold():
    odd = "a\x1b[31m\r\nb\u202ec\x9b"

    def fails() -> None:
        raise ValueError(odd)

    steps = [step(fails, name=odd), step(lambda a: a, name=f"{odd} too", inputs={"a": odd})]
    result = await run_pipeline(steps, on_error="continue")
    assert len(str(result).splitlines()) == 4
    with pytest.raises(RunError) as caught:
        result.raise_for_failures()
    assert len(str(caught.value).splitlines()) == 3
    for text in (str(result), str(caught.value)):
        assert text.replace("\n", "").isprintable()
