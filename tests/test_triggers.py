"""What says when a pipeline runs, each trigger alone: as an async iterator, and asked for its next time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odibi_async.errors import OptionError
from odibi_async.events import ScheduleEnded, ScheduleTroubled
from odibi_async.schedule import Cron, Every, Firing, OnEvent, OnFiles, Schedule, Schedules, Trigger
from odibi_async.schedule.due import due
from odibi_async.testing import Recorder, virtual_clock

UTC = timezone.utc
NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)
moments = st.datetimes(datetime(1990, 1, 1), datetime(2050, 1, 1), timezones=st.just(UTC))


async def first(count: int, trigger: Trigger, **options: Any) -> list[Firing]:
    found: list[Firing] = []
    stream = trigger.firings(**options)
    async with contextlib.aclosing(stream):
        async for firing in stream:
            found.append(firing)
            if len(found) == count:
                break
    return found


@settings(max_examples=200, deadline=None)
@given(
    after=moments,
    seconds=st.sampled_from([0.001, 0.3, 1 / 3, 1, 7.5, 60, 86_400, 1e8]),
    jitter=st.sampled_from([0, 0.5, 1]),
)
def test_an_interval_s_next_time_is_later_and_none_lies_between(after: datetime, seconds: float, jitter: float):
    trigger = Every(seconds, jitter=seconds * jitter).named("x")
    at = trigger.next(after)
    assert at is not None
    assert after < at <= after + timedelta(seconds=seconds * (1 + jitter)) + timedelta(microseconds=2)
    between = after + (at - after) / 2
    if between > after:
        assert trigger.next(between) == at
    assert trigger.next(at) is not None


def test_an_interval_has_the_same_times_in_every_server():
    assert Every(90).next(NEW_YEAR) == NEW_YEAR + timedelta(seconds=90)
    assert Every(90).next(NEW_YEAR + timedelta(seconds=89.9)) == NEW_YEAR + timedelta(seconds=90)
    assert Every(timedelta(minutes=2)).next(NEW_YEAR) == NEW_YEAR + timedelta(minutes=2)


def test_jitter_differs_from_schedule_to_schedule_and_not_from_server_to_server():
    times = {Every(60, jitter=30).named(f"s{i}").next(NEW_YEAR) for i in range(50)}
    assert len(times) > 45
    assert Every(60, jitter=30).named("a").next(NEW_YEAR) == Every(60, jitter=30).named("a").next(NEW_YEAR)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Every(0),
        lambda: Every(-1),
        lambda: Every(float("nan")),
        lambda: Every(float("inf")),
        lambda: Every("60"),  # type: ignore[arg-type]
        lambda: Every(None),  # type: ignore[arg-type]
        lambda: Every(True),
        lambda: Every(60, jitter=61),
        lambda: Every(60, jitter=-1),
        lambda: OnEvent(""),
        lambda: OnEvent(3),  # type: ignore[arg-type]
        lambda: OnFiles(""),
        lambda: OnFiles(3),  # type: ignore[arg-type]
        lambda: OnFiles("x", settle=-1),
        lambda: OnFiles("x", every=0),
    ],
)
def test_what_is_no_trigger_is_refused(make: Any):
    with pytest.raises(OptionError):
        make()


def test_the_end_of_the_calendar_is_no_error():
    assert Every(1e8).next(datetime.max.replace(tzinfo=UTC)) is None


def test_any_of_several_triggers_comes_next():
    trigger = Cron("0 * * * *") | Every(2400) | OnEvent("x")
    times, at = [], NEW_YEAR
    for _ in range(5):
        at = trigger.next(at)  # type: ignore[assignment]
        times.append(at - NEW_YEAR)
    assert times == [timedelta(minutes=minutes) for minutes in (40, 60, 80, 120, 160)]
    assert trigger.text == "cron 0 * * * * | every 2400 s | event x"
    assert OnEvent("x").next(NEW_YEAR) is None
    assert (OnEvent("x") | OnEvent("y")).next(NEW_YEAR) is None
    with pytest.raises(TypeError):
        trigger | "@daily"  # type: ignore[operator]


def test_times_are_an_async_iterator():
    async def main() -> list[Firing]:
        start = NEW_YEAR.timestamp()
        return await first(3, Cron("*/5 * * * *"), clock=lambda: start + asyncio.get_running_loop().time())

    with virtual_clock() as clock:
        found = clock.run(main())
    assert [firing.at - NEW_YEAR for firing in found] == [timedelta(minutes=5 * n) for n in (1, 2, 3)]
    assert {firing.trigger for firing in found} == {"cron */5 * * * *"}


async def test_a_union_iterates_over_what_any_of_them_fires():
    event, found = OnEvent("x"), []

    async def listen() -> None:
        async for firing in Every(3600) | event:
            found.append(firing)  # noqa: PERF401 (one by one)

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.05)
    event.fire({"n": 1})
    event.fire()
    while len(found) < 2:
        await asyncio.sleep(0)
    listening.cancel()
    await asyncio.wait([listening])
    assert [firing.payload for firing in found] == [{"n": 1}, None]
    event.fire()  # nobody listens any more
    assert not event._listening


async def test_an_error_of_one_of_them_comes_out_of_the_union():
    class Failing(Trigger):
        text = "failing"

        def next(self, after: datetime) -> datetime | None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await first(1, OnEvent("x") | Failing())


async def test_a_trigger_of_one_s_own_fires_a_schedule():
    class Countdown(Trigger):
        text = "countdown"

        def next(self, after: datetime) -> datetime | None:
            return None

        async def firings(self, clock: Any = None) -> AsyncIterator[Firing]:  # type: ignore[override]
            for number in range(3):
                yield Firing(at=NEW_YEAR + timedelta(days=number), trigger=self.text, payload=number)
                await asyncio.sleep(0.01)

    heard, calls = Recorder(), []

    async def told(payload: int) -> None:
        calls.append(payload)

    schedule = Schedule(pipeline=[told], trigger=Countdown(), overlap="queue")
    async with Schedules({"a": schedule}, observers=[heard]):
        await heard.wait_for(ScheduleEnded, run_id="a@20240103T000000Z")
    assert calls == [0, 1, 2]


@settings(max_examples=150, deadline=None)
@given(
    after=st.integers(0, 2_000),
    passed=st.integers(0, 5_000),
    seconds=st.sampled_from([1, 3, 60, 600]),
    missed=st.sampled_from(["skip", "latest", "all"]),
    within=st.sampled_from([0, 100, 3_000, 100_000]),
    grace=st.sampled_from([1, 10, 60]),
)
def test_each_time_that_has_come_fires_or_is_missed(
    after: int, passed: int, seconds: int, missed: Any, within: int, grace: int
):
    start = NEW_YEAR + timedelta(seconds=after)
    now = start + timedelta(seconds=passed)
    limits = {"within": timedelta(seconds=within), "grace": timedelta(seconds=grace)}
    times = [at for n in range(10_000 // seconds) if start < (at := NEW_YEAR + timedelta(seconds=n * seconds)) <= now]
    found = due(Every(seconds), start, now, missed=missed, **limits)
    young = [at for at in times if at > now - max(limits.values())]
    fire = list(found.fire)
    if missed == "all":
        assert fire == (young[-len(fire) :] if fire else [])
        assert min(50, len(young)) <= len(fire) <= 100
    elif missed == "latest":
        assert fire == young[-1:]
    else:
        assert fire == [at for at in young[-1:] if at >= now - limits["grace"]]
    if len(times) < 500:
        assert sorted([*found.missed, *fire]) == times
    assert found.upto == (times[-1] if times else None)


# -- files -----------------------------------------------------------------------------------------------------

FAST = {"settle": 0.05, "every": 0.05}


@pytest.fixture(params=["watchfiles", "scans"])
def told_of_changes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the system tells of changes, or nobody does."""
    if request.param == "scans":
        monkeypatch.setitem(sys.modules, "watchfiles", None)
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def write(path: Path, text: str = "x") -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)


async def written(path: Path, text: str = "x") -> None:
    await asyncio.to_thread(write, path, text)


@pytest.mark.usefixtures("told_of_changes")
async def test_files_that_come_fire_together_when_they_have_stopped_growing(folder: Path):
    trigger = OnFiles(folder / "*.csv", settle=0.3, every=0.05)
    waiting = asyncio.create_task(first(1, trigger))
    for number in range(8):
        await written(folder / "a.csv", "x" * (number + 1))
        await written(folder / f"{number % 2}.csv")
        await written(folder / "ignored.txt")
        await asyncio.sleep(0.05)
        assert not waiting.done()
    (firing,) = await waiting
    assert firing.payload == [str(folder / name) for name in ("0.csv", "1.csv", "a.csv")]
    assert firing.seen is not None
    assert firing.seen[str(folder / "a.csv")][0] == 8


@pytest.mark.usefixtures("told_of_changes")
async def test_a_file_that_changes_or_comes_again_fires_again_and_others_do_not(folder: Path):
    found: list[list[str]] = []

    async def listen() -> None:
        async for firing in OnFiles(folder / "*", **FAST):
            found.append([os.path.basename(path) for path in firing.payload])  # noqa: PERF401 (one by one)

    async def fires(*names: str) -> None:
        async with asyncio.timeout(20):
            while names not in map(tuple, found):
                await asyncio.sleep(0.01)
        found.clear()

    await written(folder / "a")
    listening = asyncio.create_task(listen())
    await fires("a")
    await written(folder / "b")
    await fires("b")
    await written(folder / "a", "longer")
    await fires("a")
    await asyncio.to_thread((folder / "b").unlink)
    await asyncio.sleep(0.2)
    await written(folder / "b")
    await fires("b")
    listening.cancel()
    await asyncio.wait([listening])


async def test_a_folder_that_takes_the_place_of_another_is_heard_of_at_once(folder: Path):
    trigger = OnFiles(folder / "*", settle=0, every=3600)
    waiting = asyncio.create_task(first(1, trigger))
    await asyncio.sleep(0.5)
    await asyncio.to_thread(folder.rename, folder.with_name("old"))
    await asyncio.to_thread(folder.mkdir)
    await asyncio.sleep(1)
    await written(folder / "a")
    async with asyncio.timeout(20):
        [firing] = await waiting
    assert firing.payload == [str(folder / "a")]


def test_a_link_that_leads_nowhere_or_in_a_circle_is_no_file(folder: Path):
    write(folder / "x" / "a.csv")
    for name in ("circle", "nowhere"):
        (folder / name).symlink_to(folder / name.replace("nowhere", "missing"))
    assert OnFiles(folder / "*").scan() == {}
    assert [*OnFiles(folder / "*" / "*.csv").scan()] == [str(folder / "x" / "a.csv")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.csv", {"a.csv"}),
        ("*", {"a.csv", "b.txt"}),
        ("**/*.csv", {"a.csv", "x/c.csv", "x/y/d.csv"}),
        ("**", {"a.csv", "b.txt", "x/c.csv", "x/y/d.csv"}),
        ("x/**/*.csv", {"x/c.csv", "x/y/d.csv"}),
        ("*/*.csv", {"x/c.csv"}),
        ("x/c.csv", {"x/c.csv"}),
        ("[ab].*", {"a.csv", "b.txt"}),
        ("?.csv", {"a.csv"}),
        (".*", {".hidden.csv"}),
        ("none*", set()),
    ],
)
def test_patterns_find_files(folder: Path, pattern: str, expected: set[str]):
    for name in ("a.csv", "b.txt", "x/c.csv", "x/y/d.csv", ".hidden.csv", ".git/z.csv"):
        write(folder / name)
    assert {str(Path(path).relative_to(folder)) for path in OnFiles(folder / pattern).scan()} == expected


def test_a_pattern_is_relative_to_the_current_directory(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    write(folder / "a.csv")
    assert set(OnFiles("*.csv").scan()) == {"a.csv"}
    assert set(OnFiles("a.csv").scan()) == {"a.csv"}


@pytest.mark.usefixtures("told_of_changes")
async def test_a_folder_that_cannot_be_read_is_told_and_not_taken_for_empty(folder: Path):
    heard, calls = Recorder(), []

    async def told(payload: list[str]) -> None:
        calls.append([os.path.basename(path) for path in payload])

    await written(folder / "a")
    schedules = {"a": ([told], OnFiles(folder / "*", **FAST))}
    async with Schedules(schedules, observers=[heard]) as server:
        await heard.wait_for(ScheduleEnded)
        away = folder.with_name("away")
        await asyncio.to_thread(folder.rename, away)
        trouble = await heard.wait_for(ScheduleTroubled)
        assert isinstance(trouble.error, FileNotFoundError)
        assert server.list()[0].state == "waiting"
        heard.clear()
        await asyncio.to_thread(away.rename, folder)
        await written(folder / "b")
        await heard.wait_for(ScheduleEnded)
    assert calls == [["a"], ["b"]]


@pytest.mark.usefixtures("told_of_changes")
async def test_files_that_come_while_a_run_is_going_are_not_lost(folder: Path):
    heard, calls, goes_on = Recorder(), list[list[str]](), asyncio.Event()

    async def told(payload: list[str]) -> None:
        calls.append([os.path.basename(path) for path in payload])
        await goes_on.wait()

    schedules = {"a": ([told], OnFiles(folder / "*", **FAST))}
    async with Schedules(schedules, observers=[heard]):
        await written(folder / "a")
        while not calls:
            await asyncio.sleep(0.01)
        await written(folder / "b")
        await asyncio.sleep(0.3)
        await written(folder / "c")
        await asyncio.sleep(0.3)
        assert calls == [["a"]]
        goes_on.set()
        while sorted(name for call in calls[1:] for name in call) != ["b", "c"]:
            await asyncio.sleep(0.01)


async def test_files_for_which_it_has_fired_do_not_fire_after_a_restart(folder: Path, tmp_path: Path):
    calls: list[list[str]] = []

    async def told(payload: list[str]) -> None:
        calls.append([os.path.basename(path) for path in payload])

    await written(folder / "a")
    for names in (["a"], ["b"], ["c"]):
        heard = Recorder()
        schedules = {"a": ([told], OnFiles(folder / "*", **FAST) | OnFiles(tmp_path / "other*", **FAST))}
        async with Schedules(schedules, journal=tmp_path / "journal", observers=[heard]):
            await written(folder / names[0])
            await heard.wait_for(ScheduleEnded)
    assert calls == [["a"], ["b"], ["c"]]
