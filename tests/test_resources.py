"""Resources: open as long as somebody reads them, closed whatever happens, the last opened first."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from odibi_async import Pipeline, Retry, RunError, Status, resource, run_pipeline, step
from odibi_async.errors import GraphError
from odibi_async.events import ResourceOpened
from odibi_async.testing import Recorder


class Log(list[str]):
    """What was opened, used and closed, in order; and resources that write it."""

    def opener(self, name: str, **options: Any) -> Any:
        async def manage() -> AsyncIterator[str]:
            self.append(f"open {name}")
            try:
                yield f"<{name}>"
            finally:
                await asyncio.sleep(0)
                self.append(f"close {name}")

        return resource(manage, name=name, **options)

    def user(self, name: str, *reads: str, **options: Any) -> Any:
        async def use(**resources: str) -> str:
            self.append(f"use {name}")
            return "+".join(resources.values())

        return step(use, name=name, inputs={read: read for read in reads}, **options)


@pytest.fixture
def log() -> Log:
    return Log()


async def test_a_resource_is_open_for_its_readers_only(log: Log, heard: Recorder):
    steps = [
        log.opener("db"),
        log.user("a", "db"),
        log.user("b", "db", "a"),
        log.user("after", "b"),
    ]
    result = await run_pipeline(steps, observers=[heard])
    assert result["b"] == "<db>+<db>"
    assert log.index("close db") == log.index("use b") + 1 or log.index("close db") > log.index("use b")
    assert log[0] == "open db"
    assert "db" not in result.outputs
    assert result.steps["db"].status is Status.SUCCEEDED
    assert heard.story.index("ResourceOpened db") < heard.story.index("StepStarted a")
    assert heard.story.index("StepFinished b") < heard.story.index("StepFinished db")
    assert len(heard.of(ResourceOpened)) == 1


async def test_resources_close_in_reverse_order(log: Log):
    steps = [log.opener("one"), log.opener("two"), log.opener("three"), log.user("all", "one", "two", "three")]
    await run_pipeline(steps)
    assert log == ["open one", "open two", "open three", "use all", "close three", "close two", "close one"]


async def test_a_resource_may_read_another(log: Log):
    async def session(pool: str) -> AsyncIterator[str]:
        log.append(f"open session on {pool}")
        yield "session"
        log.append("close session")

    await run_pipeline([log.opener("pool"), resource(session), log.user("query", "session")])
    assert log == ["open pool", "open session on <pool>", "use query", "close session", "close pool"]


@pytest.mark.parametrize("kind", ["generator", "manager", "object"])
async def test_plain_context_managers_live_in_worker_threads(kind: str):
    log: list[Any] = []

    def generator() -> Iterator[str]:
        log.append(threading.get_ident())
        yield "open"
        log.append(threading.get_ident())

    class Manager:
        def __enter__(self) -> str:
            log.append(threading.get_ident())
            return "open"

        def __exit__(self, *_: object) -> None:
            log.append(threading.get_ident())

    made = {"generator": generator, "manager": contextlib.contextmanager(generator), "object": Manager}[kind]
    result = await run_pipeline([resource(made, name="r"), step(lambda r: r, name="use")])
    assert result["use"] == "open"
    assert len(log) == 2
    assert threading.get_ident() not in log


async def test_resources_close_when_a_reader_fails_and_are_told_of_it(log: Log):
    seen: list[BaseException] = []

    async def transaction() -> AsyncIterator[str]:
        try:
            yield "tx"
        except ValueError as error:
            seen.append(error)
            raise

    def bad(transaction: str, one: str) -> None:
        raise ValueError("bad")

    with pytest.raises(RunError) as caught:
        await run_pipeline([log.opener("one"), log.opener("two"), resource(transaction), bad, log.user("u", "two")])
    assert list(caught.value.failures) == ["bad"]
    assert seen == [caught.value.__cause__]
    assert {"close one", "close two"} <= set(log)


async def test_resources_close_after_the_clean_up_of_cancelled_readers(log: Log):
    begun = asyncio.Event()

    async def use(one: str, two: str) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.001)
            log.append("cleaned")

    task = asyncio.ensure_future(
        run_pipeline([log.opener("one"), log.opener("two"), use, log.user("never", "use", "one")])
    )
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["open one", "open two", "cleaned", "close two", "close one"]


async def test_a_resource_that_cannot_be_opened_fails_and_skips_its_readers():
    async def broken() -> AsyncIterator[None]:
        raise OSError("no route")
        yield

    result = await run_pipeline([resource(broken), step(lambda broken: 1, name="use")], on_error="continue")
    assert isinstance(result.failures["broken"].__cause__, OSError)
    assert result.steps["use"].skipped_because == "broken"


async def test_opening_is_tried_again():
    calls = 0

    @resource(retry=Retry(attempts=3, wait=0))
    async def flaky() -> AsyncIterator[int]:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise OSError("not yet")
        yield calls

    result = await run_pipeline([flaky, step(lambda flaky: flaky, name="use")])
    assert result["use"] == 3
    assert result.steps["flaky"].attempts == 3


async def test_an_error_on_closing_is_a_failure(log: Log):
    async def leaky() -> AsyncIterator[str]:
        yield "open"
        raise OSError("cannot close")

    with pytest.raises(RunError, match="leaky: OSError: cannot close"):
        await run_pipeline([log.opener("one"), resource(leaky), log.user("use", "leaky", "one")])
    assert log[-1] == "close one"


async def test_a_resource_that_nobody_reads_is_closed_at_once(log: Log):
    await run_pipeline([log.opener("one"), step(lambda: 1, name="s")])
    assert log == ["open one", "close one"]


async def test_a_resource_whose_thread_opens_it_though_cancelled_is_closed():
    begun, go = threading.Event(), threading.Event()
    log = []

    def slow() -> Iterator[None]:
        begun.set()
        assert go.wait(10)
        yield
        log.append("closed")

    task = asyncio.ensure_future(run_pipeline([resource(slow), step(lambda slow: 1, name="use")]))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.sleep(0.01)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["closed"]


def test_a_resource_cannot_be_mapped():
    async def db(n: int) -> AsyncIterator[int]:
        yield n

    with pytest.raises(GraphError, match="is a resource, so it cannot map over"):
        Pipeline([resource(db, map_over="n")], inputs=("n",))


async def test_an_async_function_that_returns_a_manager_is_closed_after_readers_that_are_nothing_but_a_call():
    ended: list[str] = []

    class Connection:
        async def __aenter__(self) -> str:
            return "open"

        async def __aexit__(self, *_: object) -> None:
            ended.append("closed")

    @resource
    async def db() -> Connection:
        return Connection()

    async def use(db: str) -> str:
        return db

    async def after(use: str) -> str:
        return use + "!"

    async with asyncio.timeout(10):
        result = await run_pipeline([db, use, after])
    assert result["after"] == "open!"
    assert ended == ["closed"]
