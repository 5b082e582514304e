"""A server of schedules, alone: on a virtual clock where time is what is tested, else on a real one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from datetime import datetime, timezone
from typing import Any

import pytest

from odibi_async import Pipeline, Runner, step
from odibi_async.errors import GraphError, JournalUnavailable, OptionError, ScheduleError, ScheduleUnknown
from odibi_async.events import (
    Event,
    ScheduleEnded,
    ScheduleFired,
    ScheduleMissed,
    ScheduleSkipped,
    SchedulesLed,
    ScheduleStopped,
    ScheduleTroubled,
)
from odibi_async.result import Status
from odibi_async.schedule import Cron, Every, OnEvent, Schedule, Schedules, Trigger, serve
from odibi_async.testing import Recorder, virtual_clock

UTC = timezone.utc
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


class Wall:
    """A clock on the wall: it goes with the loop's time, and can be set."""

    def __init__(self, start: datetime = NOON) -> None:
        self.start = start.timestamp()

    def __call__(self) -> float:
        return self.start + asyncio.get_running_loop().time()

    def set(self, seconds: float) -> None:
        self.start += seconds

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self(), UTC)


class Log(list[datetime]):
    """A step that notes for which times it was called."""

    def __init__(self, seconds: float = 0.0, error: BaseException | None = None) -> None:
        super().__init__()
        self._seconds = seconds
        self._error = error
        self.ended = 0

    def steps(self) -> list[Any]:
        async def noted(scheduled_at: datetime) -> None:
            self.append(scheduled_at)
            await asyncio.sleep(self._seconds)
            self.ended += 1
            if self._error is not None:
                raise self._error

        return [step(noted, name="noted")]


def at(*times: str) -> list[datetime]:
    return [datetime.fromisoformat(f"2024-01-01T{time}+00:00") for time in times]


def virtually(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with virtual_clock() as clock:
        clock.run(make())


def test_a_cron_trigger_fires_at_its_times_and_never_before():
    log, heard, wall = Log(), Recorder(), Wall()

    async def main() -> None:
        async with Schedules({"a": (log.steps(), Cron("*/10 * * * *"))}, observers=[heard], clock=wall):
            await asyncio.sleep(1805)

    virtually(main)
    assert log == at("12:10", "12:20", "12:30")
    assert all(0 <= event.late < 0.05 for event in heard.of(ScheduleFired))
    assert [type(event) for event in heard] == [SchedulesLed, *[ScheduleFired, ScheduleEnded] * 3, SchedulesLed]
    assert {event.run_id for event in heard.of(ScheduleFired)} == {
        f"a@20240101T12{minute}00Z" for minute in (10, 20, 30)
    }


def test_two_thirty_fires_once_in_autumn_and_is_not_lost_in_spring():
    trigger = Cron("30 2 * * *", tz="Europe/Berlin")
    for start, expected in (
        (datetime(2024, 10, 26, 23, tzinfo=UTC), datetime(2024, 10, 27, 0, 30, tzinfo=UTC)),
        (datetime(2024, 3, 31, 0, tzinfo=UTC), datetime(2024, 3, 31, 1, 0, tzinfo=UTC)),
    ):
        log, wall = Log(), Wall(start)

        async def main(log: Log = log, wall: Wall = wall) -> None:
            async with Schedules({"a": (log.steps(), trigger)}, clock=wall):
                await asyncio.sleep(4 * 3600)

        virtually(main)
        assert log == [expected]


def test_a_clock_that_is_set_forward_fires_what_it_jumped_over_only_if_told_so():
    logs = {missed: Log() for missed in ("skip", "latest", "all")}
    wall, heard = Wall(), Recorder()
    schedules = {
        missed: Schedule(pipeline=log.steps(), trigger=Cron("*/10 * * * *"), missed=missed)
        for missed, log in logs.items()
    }

    async def main() -> None:
        async with Schedules(schedules, clock=wall, observers=[heard]):
            await asyncio.sleep(300)
            wall.set(3000)  # 12:05 becomes 12:55
            await asyncio.sleep(400)

    virtually(main)
    assert logs["skip"] == at("13:00")
    assert logs["latest"] == at("12:50", "13:00")
    assert logs["all"] == at("12:10", "12:20", "12:30", "12:40", "12:50", "13:00")
    assert {(event.schedule, event.count) for event in heard.of(ScheduleMissed)} == {("skip", 5), ("latest", 4)}


def test_a_clock_that_is_set_back_fires_no_time_twice_and_none_early():
    log, wall, heard = Log(), Wall(), Recorder()

    async def main() -> None:
        async with Schedules({"a": (log.steps(), Cron("*/10 * * * *"))}, clock=wall, observers=[heard]):
            await asyncio.sleep(1230)  # 12:20:30
            wall.set(-1200)  # 12:00:30
            await asyncio.sleep(1800)

    virtually(main)
    assert log == at("12:10", "12:20", "12:30")
    assert all(event.late >= 0 for event in heard.of(ScheduleFired))


def test_an_interval_goes_on_when_the_clock_is_set_back_and_cron_times_wait():
    logs, heard, wall = {"every": Log(), "cron": Log(), "both": Log()}, Recorder(), Wall()
    schedules = {
        "every": (logs["every"].steps(), Every(600)),
        "cron": (logs["cron"].steps(), Cron("*/10 * * * *")),
        "both": (logs["both"].steps(), Cron("*/10 * * * *") | Every(600)),
    }

    async def main() -> None:
        async with Schedules(schedules, clock=wall, observers=[heard]) as server:
            await asyncio.sleep(1830)  # 12:30:30
            wall.set(-3600)  # 11:30:30
            await asyncio.sleep(1800)
            assert "the clock was set back" in str(heard.of(ScheduleTroubled, schedule="cron")[0].error)
            await server.resume("cron")
            await asyncio.sleep(600)

    virtually(main)
    assert logs["every"] == at("12:10", "12:20", "12:30", "11:40", "11:50", "12:00", "12:10")
    assert logs["cron"] == at("12:10", "12:20", "12:30", "12:10")
    assert logs["both"] == at("12:10", "12:20", "12:30")
    runs = [event.run_id for event in heard.of(ScheduleFired, schedule="every")]
    assert len(set(runs)) == len(runs)


def test_a_clock_that_goes_slower_than_the_loop_does_not_make_it_fire_early():
    heard = Recorder()

    class Slow(Wall):
        def __call__(self) -> float:
            return self.start + 0.9 * asyncio.get_running_loop().time()

    async def main() -> None:
        schedules = {"a": (Log().steps(), Cron("* * * * *"))}
        async with Schedules(schedules, clock=Slow(), observers=[heard]):
            await asyncio.sleep(600)

    virtually(main)
    assert len(heard.of(ScheduleFired)) == 9
    assert all(event.late >= 0 for event in heard.of(ScheduleFired))


@pytest.mark.parametrize(
    ("overlap", "began", "skipped"),
    [
        ("skip", at("12:01", "12:03", "12:05"), 2),
        ("queue", at("12:01", "12:02", "12:03"), 0),
        ("allow", at("12:01", "12:02", "12:03", "12:04", "12:05"), 0),
    ],
)
def test_a_firing_while_a_run_is_going_is_skipped_queued_or_allowed(overlap: Any, began: list[datetime], skipped: int):
    log, heard, wall = Log(seconds=90), Recorder(), Wall()
    schedule = Schedule(pipeline=log.steps(), trigger=Cron("* * * * *"), overlap=overlap)

    async def main() -> None:
        async with Schedules({"a": schedule}, clock=wall, observers=[heard], drain=0):
            await asyncio.sleep(310)

    virtually(main)
    assert log == began
    assert len(heard.of(ScheduleSkipped)) == skipped


def test_a_queue_has_an_end():
    log, heard, wall = Log(seconds=1e6), Recorder(), Wall()
    schedule = Schedule(pipeline=log.steps(), trigger=Every(1), overlap="queue")

    async def main() -> None:
        async with Schedules({"a": schedule}, clock=wall, observers=[heard], drain=0):
            await asyncio.sleep(120.5)

    virtually(main)
    assert len(heard.of(ScheduleFired)) == 100
    assert heard.of(ScheduleSkipped)[0].reason == "100 others wait already"


def test_a_failing_run_does_not_stop_its_schedule_and_is_told(caplog: pytest.LogCaptureFixture):
    log, heard, wall = Log(error=ValueError("no such table")), Recorder(), Wall()

    async def main() -> None:
        async with Schedules({"a": (log.steps(), Cron("* * * * *"))}, clock=wall, observers=[heard]) as server:
            await asyncio.sleep(130)
            (state,) = server.list()
            assert state.last is not None
            assert state.last.status == "failed"
            assert "no such table" in state.last.error

    with caplog.at_level(logging.ERROR, "odibi_async.schedule"):
        virtually(main)
    assert log == at("12:01", "12:02")
    assert [event.status for event in heard.of(ScheduleEnded)] == [Status.FAILED] * 2
    assert "Schedule a: run a@20240101T120100Z failed" in caplog.text
    assert "no such table" in caplog.text


class Odd(Trigger):
    """A trigger of a user's own that does what it is told when it is asked for the second time."""

    def __init__(self, act: Callable[[datetime], Any]) -> None:
        self._act = act
        self._asked = 0

    @property
    def text(self) -> str:
        return "odd"

    def next(self, after: datetime) -> datetime | None:
        self._asked += 1
        if self._asked > 3:
            found: datetime | None = self._act(after)
            return found
        return Cron("* * * * *").next(after)


def raising(error: BaseException) -> Callable[[datetime], Any]:
    def act(after: datetime) -> Any:
        raise error

    return act


class Odder(BaseException):
    pass


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (raising(ZeroDivisionError("by zero")), "ZeroDivisionError: by zero"),
        (raising(Odder("odd")), "Odder: odd"),
        (raising(asyncio.CancelledError()), "CancelledError"),
        (lambda after: after, "is not later"),
        (lambda after: datetime(2024, 1, 1), "a datetime with a time zone is needed"),
        (lambda after: "tomorrow", "a datetime with a time zone is needed"),
    ],
)
def test_a_trigger_that_fails_stops_its_schedule_with_the_reason_and_no_other(
    act: Callable[[datetime], Any], said: str
):
    odd, sane, heard, wall = Log(), Log(), Recorder(), Wall()
    schedules = {"odd": (odd.steps(), Odd(act)), "sane": (sane.steps(), Cron("* * * * *"))}

    async def main() -> None:
        async with Schedules(schedules, clock=wall, observers=[heard]) as server:
            await asyncio.sleep(305)
            states = {state.name: state for state in server.list()}
            assert states["odd"].state == "stopped"
            assert said in states["odd"].error
            assert states["odd"].next is None
            assert states["sane"].state == "waiting"

    virtually(main)
    assert len(sane) == 5
    assert len(odd) < 5
    (stopped,) = heard.of(ScheduleStopped)
    assert stopped.schedule == "odd"
    assert said in str(stopped.error)


def test_a_trigger_that_failed_goes_on_when_it_is_resumed():
    fails = [True]

    def act(after: datetime) -> Any:
        if fails.pop() if fails else False:
            raise OSError("away")
        return Cron("* * * * *").next(after)

    log, wall = Log(), Wall()

    async def main() -> None:
        async with Schedules({"a": (log.steps(), Odd(act))}, clock=wall) as server:
            await asyncio.sleep(200)
            before = len(log)
            assert server.list()[0].state == "stopped"
            await server.resume("a")
            await asyncio.sleep(130)
            assert len(log) == before + 2

    virtually(main)


def test_an_observer_that_raises_stops_nothing():
    log, heard, wall = Log(), Recorder(), Wall()

    def odd(event: Event) -> None:
        raise Odder

    async def main() -> None:
        async with Schedules({"a": (log.steps(), Cron("* * * * *"))}, clock=wall, observers=[odd, heard]):
            await asyncio.sleep(130)

    virtually(main)
    assert len(log) == 2
    assert len(heard.of(ScheduleFired)) == 2


def test_a_paused_schedule_does_not_fire_and_makes_up_for_nothing():
    log, wall = Log(), Wall()
    schedule = Schedule(pipeline=log.steps(), trigger=Cron("* * * * *"), missed="all")

    async def main() -> None:
        async with Schedules({"a": schedule}, clock=wall) as server:
            await asyncio.sleep(70)
            await server.pause("a")
            (state,) = server.list()
            assert (state.state, state.paused, state.next) == ("paused", True, None)
            assert await server.trigger("a") is None
            await asyncio.sleep(240)
            await server.resume("a")
            assert server.list()[0].next == at("12:06")[0]
            await asyncio.sleep(60)

    virtually(main)
    assert log == at("12:01", "12:06")


def test_a_schedule_fires_by_hand_with_a_payload():
    async def told(payload: Any, scheduled_at: datetime) -> Any:
        heard.append((payload, scheduled_at))

    heard: list[Any] = []
    wall = Wall()

    async def main() -> None:
        async with Schedules({"a": ([told], Cron("@daily"))}, clock=wall) as server:
            await asyncio.sleep(1)
            run_id = await server.trigger("a", {"x": [1]})
            assert run_id is not None
            assert run_id.startswith("a@20240101T120001Z-")
            await asyncio.sleep(1)
            (state,) = server.list()
            assert state.last is not None
            assert (state.last.run_id, state.last.status) == (run_id, "succeeded")
            assert state.next == datetime(2024, 1, 2, tzinfo=UTC)

    virtually(main)
    assert heard == [({"x": [1]}, at("12:00:01")[0])]


def test_events_fire_all_who_wait_for_them_and_a_key_fires_once():
    calls: list[Any] = []

    async def told(payload: Any) -> None:
        calls.append(payload)

    trigger = OnEvent("orders") | Cron("@yearly")

    async def main() -> None:
        schedules = {
            "a": Schedule(pipeline=[told], trigger=trigger, overlap="queue"),
            "b": Schedule(pipeline=[told], trigger=OnEvent("orders"), overlap="allow"),
            "c": ([told], OnEvent("other")),
        }
        async with Schedules(schedules, clock=Wall()) as server:
            assert len(await server.fire("orders", 1)) == 2
            assert await server.fire("orders", 2, key="k") == ["a@k", "b@k"]
            assert await server.fire("orders", 2, key="k") == []
            await asyncio.sleep(1)
            assert await server.fire("orders", 2, key="k") == []
            with pytest.raises(ScheduleError, match=r"No schedule waits for an event 'order'\. Did you mean 'orders'"):
                await server.fire("order")

    virtually(main)
    assert sorted(calls) == [1, 1, 2, 2]


def test_an_event_that_comes_again_does_not_replace_the_payload_of_the_one_that_waits():
    calls: list[Any] = []

    async def told(payload: Any) -> None:
        calls.append(payload)
        await asyncio.sleep(1)

    async def main() -> None:
        schedules = {"a": Schedule(pipeline=[told], trigger=OnEvent("orders"), overlap="queue")}
        async with Schedules(schedules, clock=Wall()) as server:
            fired = [await server.fire("orders", number, key=f"k{number % 2}") for number in range(4)]
            assert fired == [["a@k0"], ["a@k1"], [], []]
            await asyncio.sleep(5)

    virtually(main)
    assert calls == [0, 1]


def test_what_a_run_is_given_may_be_made_from_its_firing():
    calls: list[Any] = []

    async def told(day: str, region: str) -> None:
        calls.append((day, region))

    pipeline = Pipeline([told], inputs=("day", "region"))
    made = Schedule(
        pipeline=pipeline,
        trigger=Cron("@daily"),
        inputs=lambda firing: {"day": f"{firing.at:%d}", "region": "eu"},
        options={"timeout": 60},
    )
    fixed = Schedule(pipeline=[told], trigger=Cron("@daily"), inputs={"day": "x", "region": "us"})
    wall = Wall()

    async def main() -> None:
        async with Schedules({"made": made, "fixed": fixed}, clock=wall):
            await asyncio.sleep(86_400)

    virtually(main)
    assert sorted(calls) == [("02", "eu"), ("x", "us")]


@pytest.mark.parametrize("made", [raising(KeyError("no")), raising(Odder()), lambda firing: 3])
def test_inputs_that_cannot_be_made_fail_that_firing(made: Any):
    heard, wall, log = Recorder(), Wall(), Log()
    schedule = Schedule(pipeline=Pipeline(log.steps(), ("scheduled_at",)), trigger=Every(60), inputs=made)

    async def main() -> None:
        async with Schedules({"a": schedule}, clock=wall, observers=[heard]):
            await asyncio.sleep(130)

    virtually(main)
    assert [event.status for event in heard.of(ScheduleEnded)] == [Status.FAILED] * 2
    assert "The inputs of schedule 'a'" in str(heard.of(ScheduleEnded)[0].error)


def test_stopping_lets_runs_end_and_fires_no_more():
    log, wall = Log(seconds=50), Wall()

    async def main() -> None:
        async with Schedules({"a": (log.steps(), Cron("* * * * *"))}, clock=wall, drain=100) as server:
            await asyncio.sleep(70)
            stopping = asyncio.create_task(server.stop())
            await asyncio.sleep(1)
            with pytest.raises(ScheduleError, match="were stopped"):
                await server.trigger("a")
            await stopping
            await server.wait()
            assert wall() - wall.start == pytest.approx(110, abs=1)

    virtually(main)
    assert (log, log.ended) == (at("12:01"), 1)


@pytest.mark.parametrize("how", ["drain", "again", "cancel"])
def test_stopping_cancels_runs_that_do_not_end_in_time(how: str):
    wall = Wall()
    cleaned = []

    async def slow() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)  # a clean-up may await
            cleaned.append(wall() - wall.start)

    async def main() -> None:
        drain = 20 if how == "drain" else 500
        async with Schedules({"a": ([slow], Cron("* * * * *"))}, clock=wall, drain=drain) as server:
            await asyncio.sleep(70)
            stopping = asyncio.create_task(server.stop())
            await asyncio.sleep(19)
            assert cleaned == []
            if how == "again":
                await server.stop()
            if how == "cancel":
                stopping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await stopping

    virtually(main)
    assert cleaned == [pytest.approx(91, abs=2)]


def test_cancelling_serve_cancels_what_runs():
    log, wall = Log(seconds=1000), Wall()

    async def main() -> None:
        serving = asyncio.create_task(serve({"a": (log.steps(), Cron("* * * * *"))}, signals=False, clock=wall))
        await asyncio.sleep(70)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert wall() - wall.start == pytest.approx(70, abs=2)

    virtually(main)
    assert (log, log.ended) == (at("12:01"), 0)


def test_a_thousand_schedules_at_one_moment_all_fire():
    calls = []

    async def called() -> None:
        calls.append(1)

    pipeline, wall = Pipeline([called]), Wall()

    async def main() -> None:
        schedules = {f"s{i}": (pipeline, Cron("1 12 * * *")) for i in range(1_000)}
        async with Schedules(schedules, clock=wall):
            await asyncio.sleep(120)

    virtually(main)
    assert len(calls) == 1_000


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([1], "a mapping from names"),
        ({"a": 1}, "Schedule 'a' is 1: (pipeline, trigger) is needed"),
        ({"a": ([], "@daily")}, "(pipeline, trigger) is needed"),
        ({"": ([], Cron("@daily"))}, "a text that can be printed and is not empty"),
        ({"a\0": ([], Cron("@daily"))}, "a text that can be printed"),
    ],
)
def test_what_is_no_schedule_is_refused(given: Any, said: str):
    with pytest.raises(OptionError) as raised:
        Schedules(given)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"overlap": "skp"}, "overlap='skp' is none of skip, queue, allow. Did you mean 'skip'?"),
        ({"missed": "some"}, "missed='some' is none of"),
        ({"within": -1}, "within=-1"),
        ({"grace": None}, "grace=None"),
        ({"grace": 0.5}, "grace=0.5: seconds from 1 to 1e+10 are needed"),
        ({"within": float("nan")}, "within=nan"),
        ({"attempts": 0}, "attempts=0"),
        ({"inputs": 3}, "inputs=3"),
        ({"options": {"journal": "x"}}, "'journal' is unknown here"),
        ({"options": {"timout": 1}}, "Did you mean 'timeout'?"),
        ({"trigger": "@daily"}, "a trigger is needed"),
    ],
)
def test_an_option_of_a_schedule_that_cannot_be_is_refused(options: dict[str, Any], said: str):
    with pytest.raises(OptionError) as raised:
        Schedule(**{"pipeline": [], "trigger": Cron("@daily"), **options})
    assert said in str(raised.value)


async def test_an_unknown_schedule_is_refused():
    async with Schedules({"nightly": (Log().steps(), Cron("@daily"))}) as server:
        for ask in (server.pause, server.resume, server.trigger):
            with pytest.raises(ScheduleUnknown, match=r"There is no schedule 'nigthly'\. Did you mean 'nightly'\?"):
                await ask("nigthly")


async def test_a_key_that_cannot_name_a_run_is_refused():
    async with Schedules({"a": (Log().steps(), OnEvent("x"))}) as server:
        for key in ("", "\0", "x" * 201, "\ud800", 3):
            with pytest.raises(OptionError, match="key="):
                await server.fire("x", key=key)  # type: ignore[arg-type]


async def test_schedules_are_served_once():
    server = Schedules({"a": (Log().steps(), OnEvent("x"))})
    async with server:
        with pytest.raises(ScheduleError, match="served already"):
            await server.__aenter__()
    with pytest.raises(ScheduleError, match="make others"):
        async with server:
            pass


def test_a_loop_that_ends_under_a_server_does_not_hang():
    async def main() -> None:
        await Schedules({"a": (Log().steps(), Every(1))}).__aenter__()

    asyncio.run(main())


async def test_steps_that_make_no_pipeline_are_refused_before_anything_fires():
    async def reads(totl: int, scheduled_at: datetime) -> None: ...

    with pytest.raises(GraphError, match="Step 'reads' reads 'totl', which no step produces"):
        async with Schedules({"a": ([reads], Cron("@daily"))}):
            pass


async def test_a_journal_that_cannot_be_used_is_told_at_the_beginning():
    with pytest.raises(JournalUnavailable):
        async with Schedules({"a": (Log().steps(), Cron("@daily"))}, journal="/dev/null/journal"):
            pass


async def test_a_server_in_a_runner_of_others_leaves_it_open():
    heard = Recorder()

    async def one() -> int:
        return 1

    async with Runner() as runner:
        async with Schedules({"a": ([one], OnEvent("x"))}, runner, observers=[heard]) as server:
            await server.fire("x")
            await heard.wait_for(ScheduleEnded)
        assert (await runner.run([one]))["one"] == 1


async def test_on_a_real_clock_it_fires_on_time_and_never_early():
    heard = Recorder()
    schedules = {f"s{i}": (Log().steps(), Every(0.2)) for i in range(20)}
    async with Schedules(schedules, observers=[heard]), asyncio.timeout(30):
        while len(heard.of(ScheduleFired)) < 40:  # twice each, however late they are on a busy machine
            await asyncio.sleep(0.05)
    fired = heard.of(ScheduleFired)
    assert all(event.late >= 0 for event in fired)
    assert len({event.run_id for event in fired}) == len(fired)
