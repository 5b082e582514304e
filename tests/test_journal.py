"""Runs with a journal: what is committed is not done again, and what changed is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from odibi_async import Journal, Limits, Pipeline, RunError, Runner, current_step, resource, run_pipeline, step
from odibi_async.errors import JournalUnavailable, OptionError, OutsideStep, RunAlive, RunExists, RunUnknown
from odibi_async.events import JournalBypassed, StepFinished, StepStarted
from odibi_async.result import Status
from odibi_async.testing import Recorder

calls: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_was_called():
    calls.clear()


class Broken(Exception):
    pass


def flow(*, works: bool) -> list[Any]:
    async def number() -> int:
        calls.append("number")
        return 2

    def frame(number: int) -> pd.DataFrame:
        calls.append("frame")
        return pd.DataFrame({"a": range(1000 * number)})

    @step(inputs={"frame": "frame"})
    async def store(frame: pd.DataFrame) -> None:
        calls.append("store")

    @step(after=["store"])
    async def report(frame: pd.DataFrame) -> int:
        calls.append("report")
        if not works:
            raise Broken
        return len(frame)

    return [number, frame, store, report]


async def test_a_failed_run_goes_on_where_it_was(tmp_path: Path):
    with pytest.raises(RunError):
        await run_pipeline(flow(works=False), run_id="r", journal=tmp_path)
    assert calls == ["number", "frame", "store", "report"]
    calls.clear()
    result = await run_pipeline(flow(works=True), run_id="r", resume=True, journal=tmp_path)
    assert calls == ["report"]
    assert result["report"] == 2000
    assert result["frame"].equals(pd.DataFrame({"a": range(2000)}))
    assert [str(each.status) for each in result.steps.values()] == ["resumed", "resumed", "resumed", "succeeded"]


async def test_resuming_a_finished_run_gives_its_result(tmp_path: Path):
    first = await run_pipeline(flow(works=True), run_id="r", journal=tmp_path)
    calls.clear()
    again = await run_pipeline(flow(works=True), run_id="r", resume=True, journal=tmp_path)
    assert calls == []
    assert {each.status for each in again.steps.values()} == {Status.RESUMED}
    assert again["report"] == first["report"]
    assert again["frame"].equals(first["frame"])
