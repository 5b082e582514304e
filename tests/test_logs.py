"""A run in the standard library's logging."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

from odibi_async import Retry, RunError, Secret, resource, run_pipeline, step
from odibi_async.events import Event
from odibi_async.observers.logs import JsonFormatter, Logs, StepContext

log = logging.getLogger("tests.logs")


class Lines(logging.Handler):
    """A handler that keeps what it writes."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.addFilter(StepContext())
        self.setFormatter(formatter)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def lines() -> Iterator[Lines]:
    yield from _attached(Lines(logging.Formatter("%(levelname)s %(name)s [%(step)s] %(message)s")))


@pytest.fixture
def objects() -> Iterator[Lines]:
    yield from _attached(Lines(JsonFormatter()))


def _attached(handler: Lines) -> Iterator[Lines]:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    logging.getLogger("asyncio").propagate = False
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)
    logging.getLogger("asyncio").propagate = True


async def test_each_event_is_a_line(lines: Lines):
    async def frame() -> pd.DataFrame:
        return pd.DataFrame({"a": range(1_000)})

    async def fails(frame: pd.DataFrame) -> None:
        raise ValueError("no such\nluck")

    calls = []

    async def flaky() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("once")

    steps = [frame, fails, step(lambda fails: 1, name="skipped")]
    result = await run_pipeline(steps, observers=[Logs()], on_error="continue")
    run = result.run_id
    told = [re.sub(r"\d+(\.\d+)? m?s\b", "...", line) for line in lines.lines]
    assert told == [
        f"INFO odibi_async [] run {run} started: 3 steps",
        "DEBUG odibi_async [frame] frame: started",
        "INFO odibi_async [frame] frame: succeeded after ..., 1,000 rows",
        "DEBUG odibi_async [fails] fails: started",
        "ERROR odibi_async [fails] fails: failed after ...: ValueError: no such",
        "INFO odibi_async [skipped] skipped: skipped because of 'fails'",
        f"ERROR odibi_async [] run {run} failed in ...",
    ]
    lines.lines.clear()
    await run_pipeline([step(flaky, retry=Retry(attempts=2, wait=0.0, jitter=False))], observers=[Logs()])
    assert any("WARNING odibi_async [flaky] flaky: attempt 1 failed, again in" in line for line in lines.lines)


async def test_levels_that_nobody_wants_are_not_logged(lines: Lines):
    logging.getLogger().setLevel(logging.WARNING)
    await run_pipeline([step(lambda: 1, name="s")], observers=[Logs()])
    assert lines.lines == []


async def test_another_logger_can_be_named(lines: Lines):
    await run_pipeline([step(lambda: 1, name="s")], observers=[Logs(logging.getLogger("mine"))])
    assert len([line for line in lines.lines if " mine " in line]) == 4


async def test_json_holds_what_an_event_says_by_name(objects: Lines):
    async def frame() -> pd.DataFrame:
        return pd.DataFrame({"a": [1, 2]})

    result = await run_pipeline([frame], observers=[Logs()])
    started, begun, ended, over = objects.objects
    assert [each["event"] for each in objects.objects] == ["RunStarted", "StepStarted", "StepFinished", "RunFinished"]
    assert {each["run"] for each in objects.objects} == {result.run_id}
    assert started["steps"] == 1
    assert "step" not in started
    assert begun["step"] == "frame"
    assert (ended["step"], ended["status"], ended["rows"], ended["attempts"]) == ("frame", "succeeded", 2, 1)
    assert ended["time"].endswith("+00:00")
    assert (over["status"], over["level"], over["logger"]) == ("succeeded", "INFO", "odibi_async")
    assert "error" not in ended


async def test_what_a_step_logs_itself_carries_its_run_and_its_call(objects: Lines):
    async def plain() -> None:
        log.info("from a coroutine")

    def blocking() -> None:
        log.info("from a thread")

    async def mapped(n: int) -> None:
        await asyncio.create_task(deeper(n))

    async def deeper(n: int) -> None:
        log.info("from element %d", n)

    calls = []

    @step(retry=Retry(attempts=2, wait=0.0, jitter=False))
    def flaky() -> None:
        calls.append(1)
        log.info("from attempt %d", len(calls))
        if len(calls) == 1:
            raise OSError("once")

    @resource
    def opened() -> Iterator[int]:
        log.info("from a resource")
        yield 1

    def reader(opened: int) -> None: ...

    steps = [plain, blocking, step(mapped, map_over="n"), flaky, opened, reader]
    result = await run_pipeline(steps, {"n": [7]}, observers=[Logs()])
    own = {each["message"]: each for each in objects.objects if each["logger"] == "tests.logs"}
    assert {each["run"] for each in own.values()} == {result.run_id}
    assert {message: (each["step"], each["attempt"], each.get("element")) for message, each in own.items()} == {
        "from a coroutine": ("plain", "1", None),
        "from a thread": ("blocking", "1", None),
        "from element 7": ("mapped", "1", "0"),
        "from attempt 1": ("flaky", "1", None),
        "from attempt 2": ("flaky", "2", None),
        "from a resource": ("opened", "1", None),
    }


async def test_runs_at_the_same_time_are_told_apart(objects: Lines):
    async def talks(name: str) -> None:
        await asyncio.sleep(0)
        log.info("this is %s", name)

    names = [f"n{n}" for n in range(20)]
    runs = [run_pipeline([talks], {"name": name}, observers=[Logs()]) for name in names]
    results = await asyncio.gather(*runs)
    own = {each["message"]: each["run"] for each in objects.objects if each["logger"] == "tests.logs"}
    assert own == {f"this is {name}": result.run_id for name, result in zip(names, results, strict=True)}


def test_records_of_nobodys_step_carry_nothing(lines: Lines, objects: Lines):
    log.info("outside")
    assert lines.lines == ["INFO tests.logs [] outside"]
    assert not {"run", "step", "element", "attempt", "event"} & set(objects.objects[0])


def test_json_keeps_errors_and_odd_values_on_one_line(objects: Lines):
    try:
        raise ValueError("a\nb")
    except ValueError:
        log.exception("it\nfailed \udc80", extra={"fields": {"n": float("nan"), 1: object, "long": [1] * 3}})
    [found] = objects.objects
    assert (found["message"], found["1"], found["long"]) == ("it\nfailed \udc80", "<class 'object'>", [1, 1, 1])
    assert found["exception"].endswith("ValueError: a\nb")
    assert len(objects.lines[0].splitlines()) == 1


async def test_secrets_and_broken_lines_do_not_come_into_a_log(lines: Lines, objects: Lines):
    own, given = Secret("p@ss/word 1"), Secret("hunter2")

    def fails(key: Secret, token: Secret) -> None:
        error = (
            f"401 for {key.reveal()} and {token.reveal()} at https://u:p%40ss%2Fword%201@host and ftp://me:other@host"
        )
        raise OSError(error)

    retry = Retry(attempts=2, wait=0.0, on=(OSError,), jitter=False)
    forged = step(fails, name="a\nINFO forged\x1b[31m", params={"key": own}, retry=retry)
    with pytest.raises(RunError):
        await run_pipeline([forged], {"token": given}, observers=[Logs()])
    text = "\n".join(lines.lines + objects.lines)
    assert text.count("401 for **********") >= 4
    for secret in ("p@ss/word 1", "hunter2", "p%40ss", "other"):
        assert secret not in text
    assert not any("\n" in line or "\x1b" in line.split("] ", 1)[1] for line in lines.lines)


async def test_it_forgets_runs_that_are_over_and_ignores_those_whose_beginning_it_missed():
    logs = Logs()
    missed: list[Event] = []
    await run_pipeline([step(lambda: 1, name="s")], observers=[logs, missed.append])
    assert not logs._redactions
    logs(missed[1])


def test_importing_and_observing_configures_no_logging():
    script = """
import asyncio, logging
before = logging.getLogRecordFactory(), logging.getLogger().level, list(logging.getLogger().handlers)
from odibi_async import run_pipeline
from odibi_async.observers.logs import Logs
async def nothing(): ...
asyncio.run(run_pipeline([nothing], observers=[Logs()]))
assert before == (logging.getLogRecordFactory(), logging.getLogger().level, list(logging.getLogger().handlers))
assert not logging.getLogger("odibi_async").handlers
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
