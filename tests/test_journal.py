"""Runs with a journal: what is committed is not done again, and what changed is."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from odibi_async import (
    Cache,
    CachePolicy,
    Journal,
    Limits,
    Pipeline,
    RunError,
    Runner,
    Secret,
    current_step,
    resource,
    run_pipeline,
    step,
)
from odibi_async.errors import JournalUnavailable, OptionError, OutsideStep, RunAlive, RunExists, RunUnknown
from odibi_async.events import Event, JournalBypassed, StepFinished, StepStarted
from odibi_async.result import RunResult, Status
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


async def test_without_inputs_a_resumed_run_gets_those_that_it_was_given(tmp_path: Path):
    works = False

    async def doubled(number: int, factor: float) -> float:
        if not works:
            raise Broken
        return number * factor

    given = {"number": 21, "factor": 2.0}
    with pytest.raises(RunError):
        await run_pipeline([doubled], given, run_id="r", journal=tmp_path)
    works = True
    result = await run_pipeline([doubled], run_id="r", resume=True, journal=tmp_path)
    assert result["doubled"] == 42.0


async def test_what_changed_runs_again_and_what_depends_on_it(tmp_path: Path):
    def flow(factor: int) -> list[Any]:
        async def one() -> int:
            calls.append("one")
            return 1

        async def other() -> int:
            calls.append("other")
            return 2

        async def scaled(one: int) -> int:
            calls.append("scaled")
            return one * factor

        async def total(scaled: int, other: int) -> int:
            calls.append("total")
            return scaled + other

        return [one, other, scaled, total]

    await run_pipeline(flow(1), run_id="r", journal=tmp_path)
    calls.clear()
    result = await run_pipeline(flow(10), run_id="r", resume=True, journal=tmp_path)
    assert calls == ["scaled", "total"]
    assert result["total"] == 12


async def test_a_step_that_makes_the_same_as_before_does_not_make_others_run_again(tmp_path: Path):
    def flow(text: str) -> list[Any]:
        async def parity() -> int:
            calls.append(text)
            return len(text) % 2

        async def reader(parity: int) -> int:
            calls.append("reader")
            return parity

        return [parity, reader]

    await run_pipeline(flow("a"), run_id="r", journal=tmp_path)
    calls.clear()
    await run_pipeline(flow("abc"), run_id="r", resume=True, journal=tmp_path)
    assert calls == ["abc"]


@pytest.mark.parametrize("way", ["skipped", "cancelled"])
async def test_a_committed_step_that_a_resumption_did_not_come_to_stays_committed(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DATABASE", "up")

    @resource
    async def connection():
        if os.environ["DATABASE"] == "down":
            raise Broken
        if os.environ["DATABASE"] == "slow":
            await asyncio.sleep(60)
        yield object()

    async def charge(connection: Any) -> None:
        calls.append("charge")

    @step(after=["charge"])
    async def report(connection: Any) -> int:
        if os.environ["DATABASE"] == "up":
            raise Broken
        return 1

    steps = [connection, charge, report]
    with pytest.raises(RunError):
        await run_pipeline(steps, run_id="r", journal=tmp_path)
    monkeypatch.setenv("DATABASE", "down" if way == "skipped" else "slow")
    with pytest.raises(RunError) as caught:
        await run_pipeline(steps, run_id="r", journal=tmp_path, resume=True, timeout=0.2 if way == "cancelled" else 60)
    result: Any = caught.value.result
    assert result.steps["charge"].status == way
    monkeypatch.setenv("DATABASE", "good")
    result = await run_pipeline(steps, run_id="r", journal=tmp_path, resume=True)
    assert result.steps["charge"].status is Status.RESUMED
    assert calls == ["charge"]


async def test_another_input_makes_its_readers_run_again(tmp_path: Path):
    async def doubled(number: int) -> int:
        calls.append("doubled")
        return 2 * number

    await run_pipeline([doubled], {"number": 1}, run_id="r", journal=tmp_path)
    result = await run_pipeline([doubled], {"number": 2}, run_id="r", resume=True, journal=tmp_path)
    assert (calls, result["doubled"]) == (["doubled", "doubled"], 4)


@pytest.mark.parametrize("size", [1, 100_000], ids=["inline", "files"])
async def test_a_mapped_step_is_resumed_element_by_element(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAILS", "3")

    @step(map_over="number")
    def each(number: int) -> bytes:
        calls.append(f"each {number}")
        if os.environ["FAILS"] == str(number):
            raise Broken
        return bytes([number]) * size

    @step(map_over="each")
    async def length(each: bytes) -> int:
        calls.append(f"length {each[0]}")
        return len(each)

    given = {"number": [1, 2, 3, 4]}
    await run_pipeline([each, length], given, run_id="r", journal=tmp_path, on_error="continue")
    calls.clear()
    monkeypatch.setenv("FAILS", "")
    result = await run_pipeline([each, length], run_id="r", resume=True, journal=tmp_path)
    assert calls == ["each 3", "length 3"]
    assert result["each"] == [bytes([number]) * size for number in (1, 2, 3, 4)]
    assert result["length"] == [size] * 4
    calls.clear()
    again = await run_pipeline([each, length], run_id="r", resume=True, journal=tmp_path)
    assert calls == []
    assert {each.status for each in again.steps.values()} == {Status.RESUMED}


async def test_what_cannot_be_stored_runs_again_and_the_journal_says_so(tmp_path: Path, heard: Recorder):
    async def client() -> Any:
        calls.append("client")
        return object()

    async def used(client: Any) -> int:
        calls.append("used")
        return 1

    await run_pipeline([client, used], run_id="r", journal=tmp_path, observers=[heard])
    assert [event.step for event in heard.of(JournalBypassed)] == ["client", "used"]
    assert "runs again" in heard.of(JournalBypassed)[0].reason
    await run_pipeline([client, used], run_id="r", resume=True, journal=tmp_path)
    assert calls == ["client", "used"] * 2
    with Journal(tmp_path) as journal:
        notes = {record.step: record.note for record in await asyncio.to_thread(journal.steps, "r")}
    assert "nothing but itself" in notes["client"]


async def test_readers_of_a_resource_are_resumed_without_asking_what_it_is(tmp_path: Path):
    works = False

    @resource
    async def connection():
        calls.append("opened")
        yield object()

    async def rows(connection: Any) -> list[int]:
        calls.append("rows")
        return [1, 2]

    async def sent(connection: Any, rows: list[int]) -> int:
        if not works:
            raise Broken
        return len(rows)

    with pytest.raises(RunError):
        await run_pipeline([connection, rows, sent], run_id="r", journal=tmp_path)
    calls.clear()
    works = True
    result = await run_pipeline([connection, rows, sent], run_id="r", resume=True, journal=tmp_path)
    assert calls == ["opened"]
    assert result["sent"] == 2


async def test_a_client_that_is_given_from_outside_does_not_keep_its_readers_from_being_resumed(tmp_path: Path):
    async def fetched(client: Any) -> int:
        calls.append("fetched")
        return 1

    given = {"client": object()}
    await run_pipeline([fetched], given, run_id="r", journal=tmp_path)
    await run_pipeline([fetched], {"client": object()}, run_id="r", resume=True, journal=tmp_path)
    assert calls == ["fetched"]


async def test_a_file_that_a_step_names_is_known_by_its_name_and_one_that_it_returns_by_its_content(tmp_path: Path):
    target = tmp_path / "out.txt"

    async def written() -> Path:
        calls.append("written")
        await asyncio.to_thread(target.write_text, "done")
        return target

    await run_pipeline([written], run_id="r", journal=tmp_path / "j")
    await run_pipeline([written], run_id="r", resume=True, journal=tmp_path / "j")
    assert calls == ["written"]
    await asyncio.to_thread(target.write_text, "changed")
    await run_pipeline([written], run_id="r", resume=True, journal=tmp_path / "j")
    assert calls == ["written"] * 2


@pytest.mark.parametrize("change", [lambda path: path.write_text("changed"), Path.unlink], ids=["changed", "gone"])
async def test_of_many_files_that_a_step_returns_each_counts_by_its_content(tmp_path: Path, change: Any):
    @step(params={"folder": tmp_path})
    def written(folder: Path) -> dict[str, list[Path]]:
        calls.append("written")
        paths = [folder / f"part {number}" for number in range(200)]
        for path in paths:
            path.write_text("done")
        return {"paths": paths}

    await run_pipeline([written], run_id="r", journal=tmp_path / "j")
    await run_pipeline([written], run_id="r", resume=True, journal=tmp_path / "j")
    assert calls == ["written"]
    await asyncio.to_thread(change, tmp_path / "part 150")
    await run_pipeline([written], run_id="r", resume=True, journal=tmp_path / "j")
    assert calls == ["written"] * 2


async def test_a_damaged_file_is_replaced_by_the_step_that_runs_again(tmp_path: Path):
    def frame() -> pd.DataFrame:
        calls.append("frame")
        return pd.DataFrame({"a": range(5000)})

    def damage() -> None:
        [file] = (tmp_path / "store" / "blobs").glob("??/*")
        file.write_bytes(b"?" * file.stat().st_size)

    await run_pipeline([frame], run_id="r", journal=tmp_path)
    await asyncio.to_thread(damage)
    for _ in range(2):
        await run_pipeline([frame], run_id="r", resume=True, journal=tmp_path)
    assert calls == ["frame"] * 2


# -- the cache ------------------------------------------------------------------------------------------


async def test_what_the_cache_keeps_is_pinned_while_the_run_may_be_resumed(tmp_path: Path):
    @step(cache=CachePolicy(version=1))
    def frame(number: int) -> pd.DataFrame:
        calls.append("frame")
        return pd.DataFrame({"a": range(number)})

    def kept() -> int:
        cache = Cache(tmp_path / "c")
        for path in (tmp_path / "c" / "blobs").glob("??/*"):
            os.utime(path, (1, 1))  # long ago: nothing but a pin protects it
        cache.clear()
        count = sum(1 for _ in cache.store.blobs())
        cache.close()
        return count

    options: Any = {"run_id": "r", "journal": tmp_path / "j", "cache": tmp_path / "c"}
    await run_pipeline([frame], {"number": 10_000}, **options)
    assert await asyncio.to_thread(kept) == 1
    result = await run_pipeline([frame], resume=True, **options)
    assert calls == ["frame"]
    assert len(result["frame"]) == 10_000
    with Journal(tmp_path / "j") as journal:
        assert await asyncio.to_thread(journal.forget, "r") == ["r"]
    assert await asyncio.to_thread(kept) == 0


async def test_a_cached_step_is_committed_and_then_resumed(tmp_path: Path):
    @step(cache=CachePolicy(version=1))
    def frame(number: int) -> pd.DataFrame:
        calls.append("frame")
        return pd.DataFrame({"a": range(number)})

    await run_pipeline([frame], {"number": 10_000}, cache=tmp_path / "c")
    options: Any = {"run_id": "r", "journal": tmp_path / "j", "cache": tmp_path / "c"}
    result = await run_pipeline([frame], {"number": 10_000}, **options)
    assert result.steps["frame"].status is Status.CACHED
    again = await run_pipeline([frame], resume=True, run_id="r", journal=tmp_path / "j")
    assert again.steps["frame"].status is Status.RESUMED
    assert again["frame"].equals(result["frame"])
    assert calls == ["frame"]


# -- the face ------------------------------------------------------------------------------------------


async def test_a_run_that_is_not_there_and_one_that_is_are_told_of(tmp_path: Path):
    with pytest.raises(RunUnknown, match=r"no run 'r'.* It is empty"):
        await run_pipeline(flow(works=True), run_id="r", resume=True, journal=tmp_path)
    await run_pipeline(flow(works=True), run_id="nightly", journal=tmp_path)
    with pytest.raises(RunExists, match="resume=True"):
        await run_pipeline(flow(works=True), run_id="nightly", journal=tmp_path)
    with pytest.raises(RunUnknown, match="Did you mean 'nightly'"):
        await run_pipeline(flow(works=True), run_id="nightly1", resume=True, journal=tmp_path)
    assert calls == ["number", "frame", "store", "report"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"resume": True, "run_id": "r"}, "journal=DIRECTORY"),
        ({"resume": True, "journal": "j"}, "run_id="),
        ({"run_id": ""}, "not empty"),
        ({"journal": 3}, "a directory or a Journal"),
    ],
)
async def test_options_that_do_not_fit_are_refused(options: Any, says: str):
    with pytest.raises(OptionError, match=says):
        await run_pipeline(flow(works=True), **options)


async def test_a_run_whose_names_cannot_be_written_leaves_other_runs_alone(tmp_path: Path):
    async def one() -> int:
        return 1

    @step(after=[f"\ud800 {number}" for number in range(20)])
    async def last() -> int:
        return 1

    good = [step(one, name=f"good {number}") for number in range(500)]
    odd = [*(step(one, name=f"\ud800 {number}") for number in range(20)), last]
    async with Runner(journal=tmp_path) as runner:
        runs = [runner.run(steps, on_error="continue") for steps in (good, odd, good)]
        first, refused, second = await asyncio.gather(*runs, return_exceptions=True)
    assert isinstance(refused, JournalUnavailable)
    assert "a name cannot be written" in str(refused)
    for result in (first, second):
        assert isinstance(result, RunResult)
        assert result.ok


@pytest.mark.parametrize("place", ["", "no\0name", "postgresql://[db/journal"])
def test_a_journal_that_is_nowhere_is_refused(place: str):
    with pytest.raises(OptionError, match="Journal"):
        Journal(place)


@pytest.mark.parametrize("keep_last", [-1, True, 1.5, "3"])
def test_a_prune_that_makes_no_sense_removes_nothing(tmp_path: Path, keep_last: Any):
    with Journal(tmp_path) as journal:
        assert journal.backend.begin("r", "p", "text") == 1
        with pytest.raises(OptionError, match="keep_last="):
            journal.prune(keep_last)
        assert [run.run_id for run in journal.backend.runs()] == ["r"]
        assert journal.prune(0) == ["r"]


async def test_a_run_that_is_alive_is_not_resumed(tmp_path: Path):
    goes_on = asyncio.Event()

    async def waits() -> int:
        await goes_on.wait()
        return 1

    async with Runner(journal=tmp_path) as runner:
        run = await runner.start([waits], run_id="r")
        async for event in run.events():
            if isinstance(event, StepStarted):
                break
        with pytest.raises(RunAlive, match=r"'r' is still running in process \d+ on"):
            await runner.resume("r", [waits])
        with Journal(tmp_path) as journal:
            assert (await asyncio.to_thread(journal.run, "r")).status is Status.RUNNING
        goes_on.set()
        assert (await run.result()).ok


async def test_a_runner_resumes_by_the_id_alone(tmp_path: Path):
    works = False

    async def doubled(number: int) -> int:
        if not works:
            raise Broken
        return 2 * number

    async with Runner(journal=tmp_path) as runner:
        with pytest.raises(RunError):
            await runner.run(Pipeline([doubled], ["number"], name="twice"), {"number": 4}, run_id="r")
        works = True
        assert (await runner.resume("r"))["doubled"] == 8
    async with Runner(journal=tmp_path) as other:
        with pytest.raises(OptionError, match="pipeline 'twice' yet"):
            await other.resume("r")
        assert (await other.resume("r", [doubled]))["doubled"] == 8


async def test_a_run_whose_results_were_streamed_is_resumed_by_its_id(tmp_path: Path):
    @step(map_over="numbers")
    async def each(numbers: int) -> int:
        return 2 * numbers

    async with Runner(journal=tmp_path) as runner:
        options: Any = {"target": "each", "run_id": "r"}
        made = [number async for number in runner.stream([each], {"numbers": [1, 2]}, **options)]
        async with asyncio.timeout(20):
            result = await runner.resume("r")
    assert made == result["each"] == [2, 4]
    assert result.steps["each"].status is Status.RESUMED


async def test_a_journal_of_an_unknown_format_is_refused(tmp_path: Path):
    import sqlite3

    def spoil() -> None:
        with sqlite3.connect(tmp_path / "journal.db") as file:
            file.execute("UPDATE about SET value = 'odibi_async journal 99' WHERE name = 'format'")
        file.close()

    await run_pipeline(flow(works=True), run_id="r", journal=tmp_path)
    await asyncio.to_thread(spoil)
    with pytest.raises(JournalUnavailable, match="format is 'odibi_async journal 99'"):
        await run_pipeline(flow(works=True), run_id="r", resume=True, journal=tmp_path)


async def test_a_file_of_others_is_refused(tmp_path: Path):
    await asyncio.to_thread((tmp_path / "journal.db").write_text, "what is this " * 1000)
    with pytest.raises(JournalUnavailable, match="not a database"):
        await run_pipeline(flow(works=True), run_id="r", journal=tmp_path)
    assert calls == []


@pytest.mark.foreign_loop  # the observer asks the journal, which blocks
async def test_a_step_has_ended_when_its_row_is_committed(tmp_path: Path, heard: Recorder):
    seen = []

    def look(event: Any) -> None:
        if isinstance(event, StepFinished):
            seen.append((event.step, [record.step for record in journal.steps("r")]))
        elif isinstance(event, StepStarted):
            assert journal.run("r").status is Status.RUNNING

    journal = Journal(tmp_path)
    await asyncio.to_thread(journal.runs)
    await run_pipeline(flow(works=True), run_id="r", journal=tmp_path, observers=[heard])
    await asyncio.to_thread(journal.close)
    for step_name, there in seen:
        assert step_name in there


async def test_attempts_elements_and_runs_share_the_idempotency_key_of_a_step_as_they_should(tmp_path: Path):
    keys: dict[str, list[str]] = {"async": [], "thread": [], "mapped": []}
    fails = True

    async def plain() -> int:
        keys["async"].append(current_step().idempotency_key)
        if fails:
            raise Broken
        return 1

    def blocking() -> int:
        keys["thread"].append(current_step().idempotency_key)
        return 1

    @step(map_over="number")
    def mapped(number: int) -> int:
        about = current_step()
        assert (about.run_id, about.name, about.element) == ("r", "mapped", number)
        keys["mapped"].append(about.idempotency_key)
        return 1

    steps = [plain, blocking, mapped]
    await run_pipeline(steps, {"number": [0, 1]}, run_id="r", journal=tmp_path, on_error="continue")
    fails = False
    await run_pipeline(steps, run_id="r", resume=True, journal=tmp_path)
    assert keys["async"][0] == keys["async"][1]
    assert len({*keys["async"], *keys["thread"], *keys["mapped"]}) == 4
    assert all(len(key) == 32 for each in keys.values() for key in each)


async def test_current_step_works_without_a_journal_and_refuses_outside_of_steps():
    async def named() -> str:
        return current_step().name

    def blocking() -> str:
        return current_step().name

    result = await run_pipeline([named, blocking])
    assert (result["named"], result["blocking"]) == ("named", "blocking")
    with pytest.raises(OutsideStep):
        current_step()


# -- retention and history -----------------------------------------------------------------------------


async def test_the_last_runs_of_each_pipeline_are_kept_by_its_exact_name(tmp_path: Path):
    async def one() -> bytes:
        return bytes(10_000)

    journal = Journal(tmp_path, keep_last=2)
    for name in ("daily", "daily_2"):
        for count in range(4):
            pipeline = Pipeline([one], name=name)
            await pipeline.run(run_id=f"{name}-{count}", journal=journal)
    runs = await asyncio.to_thread(journal.runs)
    assert [run.run_id for run in runs] == ["daily_2-3", "daily_2-2", "daily-3", "daily-2"]
    assert await asyncio.to_thread(journal.prune, 1) == ["daily_2-2", "daily-2"]
    assert len(await asyncio.to_thread(os.listdir, tmp_path / "store" / "pins")) == 2
    await asyncio.to_thread(journal.close)


async def test_what_steps_took_decides_who_is_first_in_the_next_run(tmp_path: Path):
    order: list[str] = []

    def flow(seconds: float) -> Pipeline:
        @step(params={"seconds": seconds})
        async def late(seconds: float) -> int:
            order.append("late")
            await asyncio.sleep(seconds)
            return 1

        async def early() -> int:
            order.append("early")
            return 1

        async def after_early(early: int) -> int:
            return 1

        return Pipeline([early, after_early, late], name="p")

    async with Runner(journal=tmp_path, limits=Limits(concurrency=1)) as runner:
        await runner.run(flow(0.05))
        assert order == ["early", "late"]
        order.clear()
        await runner.run(flow(0.0))
        assert order == ["late", "early"]


async def test_a_cancelled_run_says_so_and_is_resumed(tmp_path: Path):
    goes_on = asyncio.Event()

    async def first() -> int:
        calls.append("first")
        return 1

    async def waits(first: int) -> int:
        await goes_on.wait()
        return first

    async with Runner(journal=tmp_path) as runner:
        run = await runner.start([first, waits], run_id="r")
        async for event in run.events():
            if isinstance(event, StepStarted) and event.step == "waits":
                break
        await run.cancel()
        with Journal(tmp_path) as journal:
            assert (await asyncio.to_thread(journal.run, "r")).status is Status.CANCELLED
        goes_on.set()
        result = await runner.resume("r")
    assert result.ok
    assert calls == ["first"]


async def test_no_secret_is_in_any_file_of_a_journal(tmp_path: Path):
    async def use(token: Any, other: Any) -> int:
        raise Broken(f"{token.reveal()} and {other.reveal()}")

    def written() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    steps = [step(use, params={"token": Secret("hush-hush-1")})]
    with pytest.raises(RunError):
        await run_pipeline(steps, {"other": Secret("hush-hush-2")}, run_id="r", journal=tmp_path)
    assert b"hush" not in await asyncio.to_thread(written)
    with Journal(tmp_path) as journal:
        [record] = await asyncio.to_thread(journal.steps, "r")
    assert record.error.endswith("********** and **********")


async def test_a_slot_goes_to_what_waited_for_the_commit_rather_than_to_what_is_less_urgent(tmp_path: Path):
    begun: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, StepStarted):
            begun.append(event.step)

    def lasting(value: int = 1) -> int:
        time.sleep(0.08)
        return value

    chain = [step(lasting, name="c0"), *(step(lasting, name=f"c{i}", inputs={"value": f"c{i - 1}"}) for i in (1, 2, 3))]
    others = [step(lasting, name=f"other{i}") for i in range(3)]
    async with Runner(limits=Limits(concurrency=1), journal=tmp_path, observers=[hear]) as runner:
        await runner.run([*others, *chain])
    assert begun[:3] == ["c0", "c1", "c2"]  # the last one is as urgent as the others


async def test_a_journal_that_was_moved_knows_what_is_committed(tmp_path: Path):
    called: list[str] = []
    fails = [True]

    def frame(n: int) -> pd.DataFrame:
        called.append("frame")
        return pd.DataFrame({"n": range(n)})

    def rows(frame: pd.DataFrame) -> int:
        called.append("rows")
        if fails[0]:
            raise ValueError
        return len(frame)

    with pytest.raises(RunError):
        await run_pipeline([frame, rows], {"n": 1000}, run_id="r", journal=tmp_path / "old")
    await asyncio.to_thread((tmp_path / "old").rename, tmp_path / "new")
    fails[0] = False
    with Journal(tmp_path / "new") as journal:
        await asyncio.to_thread(journal.prune, 10)  # which removes no file that a run needs
        result = await run_pipeline([frame, rows], run_id="r", resume=True, journal=journal)
    assert (called, result["rows"]) == (["frame", "rows", "rows"], 1000)


async def test_a_new_journal_may_be_opened_by_many_at_once(tmp_path: Path):
    def open_one(folder: Path) -> str | None:
        journal = Journal(folder)
        try:
            return journal.backend.mark("any")
        finally:
            journal.close()

    for turn in range(20):
        opening = [asyncio.to_thread(open_one, tmp_path / str(turn)) for _ in range(8)]
        assert await asyncio.gather(*opening) == [None] * 8


async def test_a_run_whose_name_is_taken_leaves_the_run_of_that_name_alone(tmp_path: Path, heard: Recorder):
    gate = asyncio.Event()

    async def waits() -> int:
        await gate.wait()
        return 1

    async with Runner(journal=tmp_path, observers=[heard]) as runner, Runner(journal=tmp_path) as other:
        first = await runner.start([waits], run_id="one")
        await first.begun()
        for again in (runner, other):
            with pytest.raises(RunExists):
                await again.run([waits], run_id="one", observers=[heard])
        gate.set()
        assert (await first.result())["waits"] == 1
