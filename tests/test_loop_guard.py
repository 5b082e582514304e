"""An async step that holds the event loop is found out, by name and by line."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import re
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from odibi_async import Limits, Pipeline, Retry, Runner, resource, run_pipeline, run_pipeline_sync, step
from odibi_async.errors import OptionError
from odibi_async.events import LoopBlocked
from odibi_async.testing import Recorder, virtual_clock
from tests import shell

HERE = Path(__file__).name
pytestmark = pytest.mark.foreign_loop  # these steps block the loop on purpose


def hold(seconds: float = 0.4) -> int:
    """Holds the loop; the line on which it does."""
    line = line_of_caller() + 1
    time.sleep(seconds)
    return line


def line_of_caller() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def told(heard: Recorder) -> list[tuple[str, str, int]]:
    return [(event.step, Path(event.file).name, event.line) for event in heard.of(LoopBlocked)]


async def test_a_step_that_holds_the_loop_is_told_of_with_its_line_before_its_end(heard: Recorder):
    async def freezes() -> int:
        return hold()

    async def waits() -> None:
        await asyncio.sleep(0.3)

    result = await run_pipeline([freezes, waits], observers=[heard])
    assert told(heard) == [("freezes", HERE, result["freezes"])]
    [blocked] = heard.of(LoopBlocked)
    assert 0.2 < blocked.seconds <= 0.5
    assert heard.story.index("LoopBlocked freezes") < heard.story.index("StepFinished freezes")
    assert [event.seq for event in heard] == list(range(len(heard)))


async def test_a_step_that_goes_on_after_it_is_told_of_at_once(heard: Recorder):
    free = asyncio.Event()

    async def freezes() -> int:
        line = hold()
        await free.wait()
        return line

    running = asyncio.create_task(run_pipeline([freezes], observers=[heard]))
    blocked = await heard.wait_for(LoopBlocked)
    free.set()
    assert blocked.line == (await running)["freezes"]
    assert len(heard.of(LoopBlocked)) == 1


async def in_subtask() -> int:
    return await asyncio.create_task(asyncio.wait_for(_holding(), 10))


async def _holding() -> int:
    return int(time.sleep(0.4) or 1)


async def in_library() -> int:
    return int(subprocess.run([sys.executable, "-c", "import time; time.sleep(0.4)"], check=False).returncode)


async def in_call_that_keeps_the_interpreters_lock() -> int:
    return len(json.dumps(NUMBERS))


NUMBERS = list(range(8_000_000))


async def in_interpreter() -> int:
    return sum(n for n in range(12_000_000))


@pytest.mark.parametrize(
    ("fn", "line"),
    [
        (in_subtask, "return int(time.sleep(0.4) or 1)"),
        (in_library, "return int(subprocess.run("),
        (in_call_that_keeps_the_interpreters_lock, "return len(json.dumps(NUMBERS))"),
        (in_interpreter, "return sum(n for n in"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
async def test_the_line_is_the_users_wherever_the_time_goes(fn: Any, line: str, heard: Recorder):
    await run_pipeline([step(fn, name="s")], observers=[heard])
    assert {each[:2] for each in told(heard)} == {("s", HERE)}
    assert Path(__file__).read_text().splitlines()[told(heard)[0][2] - 1].strip().startswith(line)


@resource
async def opened() -> AsyncIterator[int]:
    yield hold()


async def mapped(n: int) -> int:
    return hold() if n == 1 else n


async def predicate() -> bool:
    return bool(hold())


@pytest.mark.parametrize("concurrency", [None, 4])
@pytest.mark.parametrize(
    "each",
    [
        step(mapped, name="s", map_over="n"),
        step(_holding, name="s", timeout=30),
        step(_holding, name="s", retry=Retry(attempts=2)),
        step(lambda: 1, name="s", when=predicate),
        resource(name="s")(opened.value),
    ],
    ids=["mapped", "timeout", "retry", "predicate", "resource"],
)
async def test_steps_of_each_kind_are_watched(each: Any, concurrency: int | None, heard: Recorder):
    steps = [each, step(lambda s: s, name="reader")] if each.is_resource else [each]
    limits = Limits(concurrency=concurrency)
    await run_pipeline(steps, {"n": [0, 1, 2]} if each.map_over else None, observers=[heard], limits=limits)
    assert [each[:2] for each in told(heard)] == [("s", HERE)]


async def test_a_step_that_holds_the_loop_and_fails_is_told_of(heard: Recorder):
    async def fails() -> None:
        raise ValueError(hold())

    result = await run_pipeline([fails], observers=[heard], on_error="continue")
    assert told(heard) == [("fails", HERE, result.failures["fails"].error.args[0])]


async def test_who_does_not_hold_the_loop_is_not_told_of(heard: Recorder):
    def blocking() -> None:
        time.sleep(0.3)

    async def polite() -> None:
        until = time.perf_counter() + 0.3
        while time.perf_counter() < until:
            sum(range(10_000))
            await asyncio.sleep(0)

    async def patient() -> None:
        await asyncio.sleep(0.3)

    def short() -> Any:
        async def one_of_many() -> None:
            until = time.perf_counter() + 0.002
            while time.perf_counter() < until:
                pass

        return one_of_many

    for steps in ([blocking], [polite], [patient], [step(short(), name=f"s{i}") for i in range(150)]):
        await run_pipeline(steps, observers=[heard])
    assert told(heard) == []


async def test_the_hosts_own_code_is_no_step(heard: Recorder):
    begun = asyncio.Event()

    async def waits() -> None:
        begun.set()
        await asyncio.sleep(0.5)

    running = asyncio.create_task(run_pipeline([waits], observers=[heard]))
    await begun.wait()
    hold(0.3)
    await running
    assert told(heard) == []


async def test_only_the_run_whose_step_it_is_is_told():
    async def freezes() -> None:
        hold()

    async def waits() -> None:
        await asyncio.sleep(0.5)

    mine, others = Recorder(), Recorder()
    async with Runner() as runner:
        runs = [await runner.start([fn], observers=[heard]) for fn, heard in ((waits, others), (freezes, mine))]
        for run in runs:
            await run.result()
    assert [each[0] for each in told(mine)] == ["freezes"]
    assert told(others) == []


def test_loops_in_several_threads_are_watched_at_once():
    def run(heard: Recorder) -> None:
        run_pipeline_sync([step(_holding, name="s")], observers=[heard])

    recorders = [Recorder() for _ in range(4)]
    threads = [threading.Thread(target=run, args=(heard,)) for heard in recorders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[each[:2] for each in told(heard)] for heard in recorders] == [[("s", HERE)]] * 4


def test_loops_of_other_makes_are_watched():
    heard = Recorder()

    async def main() -> None:
        await run_pipeline([step(_holding, name="s"), step(in_subtask, name="t")], observers=[heard])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert [each[:2] for each in told(heard)] == [("s", HERE), ("t", HERE)]


def test_a_virtual_clock_is_no_concern_of_it(heard: Recorder):
    async def sleeps() -> None:
        await asyncio.sleep(3600)

    with virtual_clock() as clock:
        clock.run(run_pipeline([sleeps], observers=[heard]))
        assert clock.time == pytest.approx(3600, abs=1)
    assert told(heard) == []


# -- how long is too long ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "expected"), [(0.05, ["s"]), (1.5, []), (None, [])])
async def test_the_limits_say_how_long_is_too_long(seconds: float | None, expected: list[str], heard: Recorder):
    await run_pipeline([step(_holding, name="s")], observers=[heard], limits=Limits(loop_blocked=seconds))
    assert [each[0] for each in told(heard)] == expected


def test_no_time_at_all_is_refused():
    with pytest.raises(OptionError, match=r"Limits: loop_blocked=0: seconds above 0 are needed\."):
        Limits(loop_blocked=0)


# -- nothing is left ---------------------------------------------------------------------------------------


def guards() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "odibi-async guard"]


def nobody_looks() -> bool:
    for thread in guards():
        thread.join(5)
    return not guards()


def output_of(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


async def test_the_thread_is_there_while_runs_are_observed_and_no_longer(heard: Recorder):
    seen = []

    async def looks() -> None:
        seen.append(len(guards()))

    assert await asyncio.to_thread(nobody_looks)
    await run_pipeline([looks])
    await asyncio.gather(*[run_pipeline([looks], observers=[heard]) for _ in range(20)])
    assert seen == [0] + [1] * 20
    assert await asyncio.to_thread(nobody_looks)


async def test_one_thread_serves_runs_that_follow_each_other(heard: Recorder):
    seen: set[threading.Thread] = set()

    async def looks() -> None:
        seen.update(guards())

    for _ in range(20):
        await run_pipeline([looks], observers=[heard])
    assert len(seen) < 20


async def test_a_failed_and_a_cancelled_run_are_looked_at_no_more(heard: Recorder):
    async def fails() -> None:
        raise ValueError

    async def hangs() -> None:
        await asyncio.sleep(3600)

    async with Runner(observers=[heard]) as runner:
        run = await runner.start([hangs])
        await run.cancel()
        await runner.run([fails], on_error="continue")
    assert await asyncio.to_thread(nobody_looks)


def test_a_loop_that_is_closed_before_its_run_has_ended_is_looked_at_no_more():
    script = """
import asyncio, threading
from odibi_async import run_pipeline

async def hangs():
    loop.stop()
    await loop.create_future()

loop = asyncio.new_event_loop()
task = loop.create_task(run_pipeline([hangs], observers=[lambda event: None]))
loop.run_forever()
[guard] = [thread for thread in threading.enumerate() if thread.name == "odibi-async guard"]
loop.close()
guard.join(5)
print(guard.is_alive())
"""
    assert output_of(script) == "False\n"


async def test_a_run_that_is_over_is_kept_by_nobody(heard: Recorder):
    async def freezes() -> None:
        hold()

    pipeline = Pipeline([freezes])
    result = await pipeline.run(observers=[heard])
    over = weakref.ref(result)
    del result
    heard.clear()
    assert await asyncio.to_thread(nobody_looks)
    gc.collect()
    assert over() is None


def test_a_forked_process_watches_its_own_runs():
    script = """
import asyncio, os, time
from odibi_async import run_pipeline
from odibi_async.events import LoopBlocked

async def freezes():
    time.sleep(0.4)

def blocked():
    told = []
    asyncio.run(run_pipeline([freezes], observers=[told.append]))
    return sum(isinstance(event, LoopBlocked) for event in told)

before = blocked()
pid = os.fork()
if not pid:
    os._exit(10 * before + blocked())
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert output_of(script) == "11\n"


# -- who tells of it ---------------------------------------------------------------------------------------


FREEZING = """
import time
from odibi_async import step

@step
async def freezes():
    time.sleep(0.4)

STEPS = [freezes]
"""


@pytest.mark.parametrize(("flags", "warned"), [((), True), (("--quiet",), False)])
def test_the_command_line_warns_of_it(flags: tuple[str, ...], warned: bool, tmp_path: Path):
    pipeline = tmp_path / "freezing.py"
    pipeline.write_text(FREEZING)
    events = tmp_path / "events.jsonl"
    said = shell.process("run", f"{pipeline}:STEPS", "--events", str(events), *flags)
    assert said.code == 0, said.err
    expected = rf"async step 'freezes' held the event loop for \d+ ms at {re.escape(str(pipeline))}:7; make it a plain"
    assert bool(re.search(expected, said.err)) is warned, said.err
    told = [json.loads(line) for line in events.read_text().splitlines()]
    [blocked] = [event for event in told if event["event"] == "LoopBlocked"]
    assert (blocked["step"], blocked["file"], blocked["line"]) == ("freezes", str(pipeline), 7)
