"""Disks that fail, journals that are damaged, runs that are cancelled at any moment."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pandas as pd
import pytest

from odibi_async import Journal, Limits, Pipeline, RunError, Runner, resource, run_pipeline, step
from odibi_async.errors import DeadlineError, JournalError, OptionError, RunCancelled, RunUnknown
from odibi_async.failpoints import FAILPOINTS
from odibi_async.result import RunResult, Status
from odibi_async.testing import failpoint

calls: list[str] = []


def flow() -> Pipeline:
    @step(params={"seed": 3})
    def frame(seed: int) -> pd.DataFrame:
        calls.append("frame")
        return pd.DataFrame({"a": range(5000)})

    async def numbers() -> list[int]:
        calls.append("numbers")
        return [1, 2, 3]

    @step(map_over="numbers")
    def text(numbers: int) -> str:
        calls.append(f"text {numbers}")
        return f"{numbers}" * 10_000

    @step(after=["text"])
    async def rows(frame: pd.DataFrame) -> int:
        calls.append("rows")
        return len(frame)

    return Pipeline([frame, numbers, text, rows], name="p")


def check(result: RunResult) -> None:
    assert result["rows"] == 5000
    assert result["text"] == [f"{number}" * 10_000 for number in (1, 2, 3)]
    assert result["frame"].equals(pd.DataFrame({"a": range(5000)}))


class Fails:
    """Raises at the nth call, or from the nth call on."""

    def __init__(self, number: int, *, once: bool, code: int) -> None:
        self.left = number
        self.once = once
        self.code = code

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0 or (self.left < 0 and not self.once):
            raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("once", [True, False], ids=["once", "for good"])
@pytest.mark.parametrize("name", FAILPOINTS)
async def test_a_write_that_fails_leaves_a_run_undisturbed_or_is_one_clear_error(
    tmp_path: Path, name: str, once: bool, code: int
):
    for number in (1, 2, 3, 5):
        calls.clear()
        journal = tmp_path / str(number)
        with failpoint(name, Fails(number, once=once, code=code)):
            try:
                check(await run_pipeline(flow(), run_id="r", journal=journal))
                failed = ""
            except (RunError, JournalError) as error:
                failed = str(error)
        assert os.strerror(code) in (failed or os.strerror(code))
        assert not (failed and once), "a fault of the moment is tried again"
        first = list(calls)
        calls.clear()
        there = await asyncio.to_thread(committed, journal)
        result = await run_pipeline(flow(), run_id="r", resume=there is not None, journal=journal)
        check(result)
        assert not set(calls) & (there or set())
        assert failed or not calls or first == calls == []
        assert not await asyncio.to_thread(os.listdir, journal / "store" / "work")


def committed(directory: Path) -> set[str] | None:
    """What is committed of a run, as it is called in `calls`; `None` where the journal has no run."""
    with Journal(directory) as journal:
        if not journal.runs():
            return None
        steps = [each for each in journal.steps("r") if each.is_committed]
        return {each.step if each.element is None else f"{each.step} {each.element + 1}" for each in steps}


def test_there_is_no_other_failpoint():
    with (
        pytest.raises(OptionError, match=r"no failpoint 'before comit'. Did you mean 'before commit'"),
        failpoint("before comit", bool),
    ):
        pass


async def test_a_journal_that_is_damaged_anywhere_is_a_clear_error_or_a_correct_resume(tmp_path: Path):
    await run_pipeline(flow(), run_id="r", journal=tmp_path / "whole")
    chance, ends = random.Random(7), {"refused": 0, "resumed": 0}
    for number in range(120):
        place = tmp_path / str(number)
        await asyncio.to_thread(shutil.copytree, tmp_path / "whole", place)
        await asyncio.to_thread(damage, place, chance)
        try:
            check(await run_pipeline(flow(), run_id="r", resume=True, journal=place))
            ends["resumed"] += 1
        except JournalError:
            ends["refused"] += 1
        await asyncio.to_thread(shutil.rmtree, place)
    assert min(ends.values()) > 5, ends


def damage(place: Path, chance: random.Random) -> None:
    """Overwrites some bytes of the journal's file or of a dataset, or cuts it short."""
    files = [place / "journal.db"] * 3 + sorted((place / "store" / "blobs").glob("??/*"))
    file = chance.choice(files)
    data = bytearray(file.read_bytes())
    if chance.random() < 0.1:
        del data[chance.randrange(len(data)) :]
    else:
        for _ in range(chance.choice((1, 1, 8, 200))):
            data[chance.randrange(len(data))] = chance.randrange(256)
    file.write_bytes(data)


# -- cancelling ----------------------------------------------------------------------------------------


def slow_flow() -> Pipeline:
    @resource
    async def connection():
        yield 1

    def frame(connection: int) -> pd.DataFrame:
        return pd.DataFrame({"a": range(3000)})

    @step(map_over="numbers")
    async def waits(numbers: int) -> str:
        await asyncio.sleep(0.001 * numbers)
        return f"{numbers}" * 5000

    @step(map_over="numbers", pool="few")
    def blocks(numbers: int) -> int:
        return sum(range(1000 * numbers))

    async def total(frame: pd.DataFrame, waits: list[str], blocks: list[int]) -> int:
        await asyncio.sleep(0.002)
        return len(frame) + len(waits) + len(blocks)

    return Pipeline([connection, frame, waits, blocks, total], ["numbers"], name="slow")


async def natively(run: Callable[[], Any], after: float) -> None:
    task = asyncio.create_task(run())
    await asyncio.sleep(after)
    task.cancel()
    await asyncio.wait([task])


async def twice(run: Callable[[], Any], after: float) -> None:
    task = asyncio.create_task(run())
    await asyncio.sleep(after)
    task.cancel()
    await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])


async def by_a_scope(run: Callable[[], Any], after: float) -> None:
    with anyio.move_on_after(after):
        await run()


async def by_a_deadline(run: Callable[[], Any], after: float) -> None:
    try:
        async with asyncio.timeout(after):
            await run()
    except TimeoutError:
        pass


async def test_a_run_that_is_cancelled_at_any_moment_leaves_nothing_behind_and_is_resumed(tmp_path: Path):
    chance = random.Random(3)
    pipeline, given = slow_flow(), {"numbers": [1, 2, 3, 4, 5, 6]}
    ways = (natively, twice, by_a_scope, by_a_deadline)
    async with Runner(journal=tmp_path, limits=Limits(concurrency=3, threads=2, pools={"few": 1})) as runner:
        await runner.run(pipeline, given, run_id="first")
        files, tasks = await asyncio.to_thread(open_files), asyncio.all_tasks()
        cancelled = 0
        for number in range(200):
            run_id, resume = f"r{number // 4}", number % 4 > 0

            async def run(run_id: str = run_id, resume: bool = resume) -> None:
                nonlocal cancelled
                cancelled += 1
                await runner.run(pipeline, None if resume else given, run_id=run_id, resume=resume)
                cancelled -= 1

            try:
                await ways[number % 3 if number % 7 else 3](run, chance.uniform(0, 0.04))
            except RunUnknown:  # the one before it was cancelled before the run had a row
                cancelled -= 1
            left = [task.get_name() for task in asyncio.all_tasks() - tasks]
            assert set(left) <= {"odibi_async worker"}
        assert cancelled > 50
        assert abs(await asyncio.to_thread(open_files) - files) <= 1
        assert not await asyncio.to_thread(os.listdir, tmp_path / "locks")
        assert not await asyncio.to_thread(os.listdir, tmp_path / "store" / "leases")
        for number in range(0, 50, 10):
            try:
                result = await runner.resume(f"r{number}", pipeline)
            except JournalError:
                continue
            assert result["total"] == 3012
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("odibi_async journal")]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


async def test_a_deadline_and_a_cancelled_run_are_told_as_without_a_journal(tmp_path: Path):
    async def waits() -> None:
        await asyncio.sleep(60)

    with pytest.raises(DeadlineError):
        await run_pipeline([waits], timeout=0.05, run_id="late", journal=tmp_path)
    async with Runner(journal=tmp_path) as runner:
        run = await runner.start([waits], run_id="r")
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result()
    journal = Journal(tmp_path)
    assert (await asyncio.to_thread(journal.run, "late")).status is Status.FAILED
    await asyncio.to_thread(journal.close)
