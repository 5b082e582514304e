"""Servers of schedules that share a journal: on SQLite and on PostgreSQL, in one process and in several."""

from __future__ import annotations

import asyncio
import collections
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from odibi_async import Journal, step
from odibi_async.errors import JournalUnavailable
from odibi_async.events import (
    ScheduleEnded,
    ScheduleFired,
    ScheduleMissed,
    SchedulesLed,
    ScheduleStopped,
    ScheduleTroubled,
)
from odibi_async.result import Status
from odibi_async.schedule import Every, OnEvent, Schedule, Schedules
from odibi_async.testing import Recorder
from tests.test_journal_backends import Server
from tests.test_journal_backends import server as server  # the fixture

ROOT = Path(__file__).parents[1]
UTC = timezone.utc
Make = Callable[[], Journal]
_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "postgres"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes journals over the same rows, each with connections of its own, as several processes have."""
    where: Any = tmp_path / "journal"
    if request.param == "postgres":
        where = request.getfixturevalue("server").url()
    made: list[Journal] = []

    def one() -> Journal:
        made.append(Journal(where, store=tmp_path / "store"))
        return made[-1]

    yield one
    for journal in made:
        journal.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Make]:
    made: list[Journal] = []

    def one() -> Journal:
        made.append(Journal(tmp_path / "journal"))
        return made[-1]

    yield one
    for journal in made:
        journal.close()


def noting(calls: list[Any], seconds: float = 0.0) -> list[Any]:
    async def noted(scheduled_at: datetime) -> None:
        await asyncio.sleep(seconds)
        calls.append(scheduled_at)

    return [step(noted, name="noted")]


async def test_of_two_servers_one_fires_and_the_other_takes_over_when_it_stops(make: Make):
    calls: list[Any] = []
    heard = [Recorder(), Recorder()]
    servers = [
        Schedules({"a": (noting(calls), Every(0.1))}, journal=make(), observers=[each], takeover=0.1) for each in heard
    ]
    async with servers[0]:
        await heard[0].wait_for(SchedulesLed)
        async with servers[1]:
            await heard[0].wait_for(ScheduleEnded)
            await asyncio.sleep(0.4)
            assert (servers[0].is_leading, servers[1].is_leading) == (True, False)
            assert not heard[1].of(ScheduleFired)
            await servers[0].stop()
            await heard[1].wait_for(ScheduleFired)
            await asyncio.sleep(0.3)
    fired = [event.run_id for each in heard for event in each.of(ScheduleFired)]
    assert len(set(fired)) == len(fired)
    assert collections.Counter(calls).most_common(1)[0][1] == 1


async def test_two_servers_that_both_believe_that_they_lead_fire_each_time_once(make: Make):
    """Their schedules differ, so their leases do; what they have in common is claimed by one of them each time."""
    calls: list[Any] = []
    heard, common = Recorder(), Schedule(pipeline=noting(calls), trigger=Every(0.05), overlap="allow")
    other = (noting([]), OnEvent("never"))
    one = Schedules({"a": common}, journal=make(), observers=[heard])
    two = Schedules({"a": common, "b": other}, journal=make(), observers=[heard])
    async with one, two:
        await asyncio.sleep(1.5)
        assert one.is_leading
        assert two.is_leading
    assert len(calls) >= 15
    assert collections.Counter(calls).most_common(1)[0][1] == 1
    fired = [event.run_id for event in heard.of(ScheduleFired)]
    assert len(set(fired)) == len(fired)


async def test_what_was_missed_while_no_server_was_there_is_made_up_for(sqlite: Make):
    calls: dict[str, list[Any]] = {"skip": [], "latest": [], "all": []}
    now = [datetime(2024, 1, 1, 12, tzinfo=UTC).timestamp()]
    heard = Recorder()
    schedules = {
        missed: Schedule(
            pipeline=noting(calls[missed]), trigger=Every(600), missed=missed, overlap="queue", within=3600
        )
        for missed in calls
    }
    options: dict[str, Any] = {"observers": [heard], "clock": lambda: now[0]}
    async with Schedules(schedules, journal=sqlite(), **options):
        await heard.wait_for(SchedulesLed)
        now[0] += 600
        for missed in calls:
            await heard.wait_for(ScheduleEnded, schedule=missed)
    now[0] += 7_000  # 14:06:40
    heard.clear()
    async with Schedules(schedules, journal=sqlite(), **options):
        await heard.wait_for(ScheduleEnded, schedule="latest")
        await heard.wait_for(ScheduleMissed, schedule="skip")
        while len(calls["all"]) < 7:
            await asyncio.sleep(0.01)
    hours = {name: [f"{at:%H:%M}" for at in found] for name, found in calls.items()}
    assert hours == {
        "skip": ["12:10"],
        "latest": ["12:10", "14:00"],
        "all": ["12:10", "13:10", "13:20", "13:30", "13:40", "13:50", "14:00"],
    }
    assert {event.schedule: event.count for event in heard.of(ScheduleMissed)} == {"skip": 11, "latest": 10, "all": 5}


async def test_a_run_that_was_cancelled_by_the_stop_goes_on_at_the_next_start(sqlite: Make):
    calls, blocks = [], asyncio.Event()

    async def one() -> int:
        calls.append("one")
        return 1

    async def two(one: int) -> int:
        calls.append("two")
        await blocks.wait()
        return 2

    heard = Recorder()
    schedules = {"a": ([one, two], OnEvent("x"))}
    for _ in range(4):  # a stop is no death, and does not count as an attempt
        async with Schedules(schedules, journal=sqlite(), observers=[heard], drain=0) as server:
            if not calls:
                (run_id,) = await server.fire("x")
            before = calls.count("two")
            while calls.count("two") == before:
                await asyncio.sleep(0.01)
    blocks.set()
    async with Schedules(schedules, journal=sqlite(), observers=[heard]):
        await heard.wait_for(ScheduleEnded, run_id=run_id, status=Status.SUCCEEDED)
    assert calls.count("one") == 1


async def test_a_firing_that_was_claimed_by_a_process_that_is_gone_runs_once(sqlite: Make):
    calls: list[Any] = []

    async def told(payload: Any, scheduled_at: datetime) -> None:
        calls.append((payload, scheduled_at))

    schedules = {"a": Schedule(pipeline=[told], trigger=OnEvent("x"), overlap="queue")}
    first = Schedules(schedules, journal=sqlite(), drain=0)
    async with first:
        first._turns.halt()  # it claims, and dies before it runs anything
        (run_id,) = await first.fire("x", {"rows": [1, 2]})
        first._turns.give_back = lambda standing: asyncio.sleep(0)  # type: ignore[assignment, method-assign]
    heard = Recorder()
    async with Schedules(schedules, journal=sqlite(), observers=[heard]):
        await heard.wait_for(ScheduleEnded, run_id=run_id, status=Status.SUCCEEDED)
    assert [payload for payload, _ in calls] == [{"rows": [1, 2]}]


async def test_a_run_that_takes_its_process_down_is_given_up(sqlite: Make):
    heard, calls = Recorder(), list[Any]()
    schedule = Schedule(pipeline=noting(calls), trigger=OnEvent("x"), attempts=2)
    for number in range(3):
        server = Schedules({"a": schedule}, journal=sqlite(), observers=[heard], drain=0)
        async with server:
            server._turns._run = lambda *_: asyncio.Event().wait()  # type: ignore[assignment, method-assign]
            if not number:
                (run_id,) = await server.fire("x")
            if number < 2:
                while server.list()[0].last is None and server._standings["a"].record.opened[0].attempts <= number:
                    await asyncio.sleep(0.01)
                server._turns.give_back = lambda standing: asyncio.sleep(0)  # type: ignore[assignment, method-assign]
            else:
                ended = await heard.wait_for(ScheduleEnded, run_id=run_id)
    assert ended.status is Status.FAILED
    assert "2 processes died while they ran it" in str(ended.error)
    assert calls == []


async def test_pausing_holds_for_all_servers_and_after_a_restart(sqlite: Make):
    calls: list[Any] = []
    schedules = {"a": (noting(calls), Every(0.05))}
    heard = Recorder()
    async with Schedules(schedules, journal=sqlite(), observers=[heard], takeover=0.1) as leads:
        await heard.wait_for(ScheduleEnded)
        async with Schedules(schedules, journal=sqlite(), takeover=0.1) as follows:
            await follows.pause("a")
            await asyncio.sleep(0.2)
            before = len(calls)
            await asyncio.sleep(0.3)
            assert len(calls) == before
            await follows.resume("a")
            while len(calls) == before:
                await asyncio.sleep(0.01)
            await leads.pause("a")
    async with Schedules(schedules, journal=sqlite()) as again:
        await asyncio.sleep(0.2)
        before = len(calls)
        assert again.list()[0].paused
    assert len(calls) == before


async def test_a_journal_that_is_away_for_a_while_is_told_and_nothing_fires_twice(
    sqlite: Make, monkeypatch: pytest.MonkeyPatch
):
    calls: list[Any] = []
    heard, away = Recorder(), [False]
    journal = sqlite()
    whole = journal.backend.replace_marks

    def replace_marks(changes: Any) -> list[bool]:
        if away[0]:
            raise JournalUnavailable("journal", "the disk is full.")
        return whole(changes)

    monkeypatch.setattr(journal.backend, "replace_marks", replace_marks)
    async with Schedules({"a": (noting(calls), Every(0.1))}, journal=journal, observers=[heard], takeover=0.1):
        await heard.wait_for(ScheduleEnded)
        away[0] = True
        trouble = await heard.wait_for(ScheduleTroubled)
        assert "the disk is full" in str(trouble.error)
        before = len(heard.of(ScheduleFired))
        await asyncio.sleep(0.3)
        away[0] = False
        while len(heard.of(ScheduleFired)) <= before + 2:
            await asyncio.sleep(0.02)
    assert len(set(calls)) == len(calls)


async def test_a_record_that_is_damaged_stops_its_schedule_and_no_other(sqlite: Make):
    heard, calls = Recorder(), list[Any]()
    journal = sqlite()
    await asyncio.to_thread(journal.backend.replace_mark, "schedule a", None, "nonsense")
    schedules = {"a": (noting([]), Every(0.05)), "b": (noting(calls), Every(0.05))}
    async with Schedules(schedules, journal=journal, observers=[heard]) as server:
        stopped = await heard.wait_for(ScheduleStopped)
        assert stopped.schedule == "a"
        assert "not what was written" in str(stopped.error)
        await heard.wait_for(ScheduleEnded, schedule="b")
        assert server.list()[0].state == "stopped"
    assert calls


async def test_a_payload_that_is_no_json_is_given_as_it_is(sqlite: Make):
    heard, calls = Recorder(), list[Any]()

    async def told(payload: Any) -> None:
        calls.append(payload)

    payload = {1: {2}}
    async with Schedules({"a": ([told], OnEvent("x"))}, journal=sqlite(), observers=[heard]) as server:
        await server.fire("x", payload)
        await heard.wait_for(ScheduleEnded, status=Status.SUCCEEDED)
    assert calls == [payload]


async def test_a_hundred_events_at_once_each_run_once(sqlite: Make):
    heard, calls = Recorder(), list[Any]()

    async def told(payload: Any) -> None:
        calls.append(payload)

    schedules = {"a": Schedule(pipeline=[told], trigger=OnEvent("x"), overlap="allow")}
    async with Schedules(schedules, journal=sqlite(), observers=[heard]) as server:
        await asyncio.gather(*(server.fire("x", number % 50, key=str(number % 50)) for number in range(100)))
        while len(heard.of(ScheduleEnded)) < 50:
            await asyncio.sleep(0.02)
    assert sorted(calls) == list(range(50))


def test_a_lock_that_others_have_taken_can_be_let_go_of(server: Server):
    """A connection was lost, and with it a lock; what is left of it does not keep the journal from being used."""
    import psycopg

    journal, url = Journal(server.url()), ""
    backend: Any = journal.backend
    url = backend._url
    hold = backend.hold("lease")
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'odibi%'")
        thief = Journal(url).backend
        while thief.hold("lease") is None:
            time.sleep(0.01)
        with pytest.raises(JournalUnavailable, match="taken over"):
            backend.mark("x")
        hold.release()
        assert backend.mark("x") is None
    thief.close()
    journal.close()


# -- processes that are killed ---------------------------------------------------------------------------------


def started(journal: Path, log: Path, takeover: float = 0.3) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.scheduling", str(journal), str(log), str(takeover)]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True)


def lines(log: Path) -> list[list[str]]:
    return [line.split(maxsplit=2) for line in log.read_text().splitlines()] if log.exists() else []


def wait_for(log: Path, found: Callable[[list[list[str]]], Any], patience: float = 60) -> Any:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if what := found(lines(log)):
            return what
        time.sleep(0.02)
    raise AssertionError(lines(log))


def led(log: Path, number: int) -> int:
    """The process that led as the so-manieth."""
    found: list[list[str]] = wait_for(log, lambda found: [line for line in found if line[1] == "leads"][number:])
    return int(found[0][0])


def goes_on(log: Path) -> None:
    """Two more runs have ended."""
    done = sum(line[1] == "second" for line in lines(log))
    wait_for(log, lambda found: sum(line[1] == "second" for line in found) > done + 1)


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_after_kill_9_of_the_server_that_leads_another_one_goes_on_and_nothing_runs_twice(tmp_path: Path, rounds: int):
    journal, log = tmp_path / "journal", tmp_path / "log"
    processes = {process.pid: process for process in (started(journal, log), started(journal, log))}
    try:
        for number in range(rounds):
            leader = led(log, number)
            goes_on(log)
            time.sleep(0.05 * (number % 6))  # at different moments of a run
            os.kill(leader, signal.SIGKILL)
            processes.pop(leader).wait()
            replacement = started(journal, log)
            processes[replacement.pid] = replacement
        last = led(log, rounds)
        goes_on(log)
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        ended = {pid: process.wait(30) for pid, process in processes.items()}
    assert ended[last] == 0
    found = lines(log)
    seconds = collections.Counter(line[2] for line in found if line[1] == "second")
    times = sorted(datetime.fromisoformat(each) for each in seconds)
    gaps = {later - earlier for earlier, later in itertools.pairwise(times)}
    assert gaps == {timedelta(seconds=0.25)}, gaps  # none is lost
    repeated = [each for each, count in seconds.items() if count > 1]
    assert len(repeated) <= rounds, repeated  # only what was killed between its effect and its commit
    committed = Journal(journal)
    assert {run.status for run in committed.runs()} == {Status.SUCCEEDED}
    assert len(committed.runs()) == len(times)
    committed.close()
