"""
Random pipelines, failures, cancellations and limits, against a small model that evaluates one step after another.

A `Plan` is plain data. `evaluate` says what must become of it when every step is simply called in order; `World`
makes real steps of it and logs each call. Time is virtual: a time limit passes at once.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odibi_async import Limits, Pipeline, Retry, RunError, Runner, RunResult, Status, resource, step
from odibi_async.errors import DeadlineError, RunCancelled
from odibi_async.events import (
    Event,
    ResourceOpened,
    RunFinished,
    RunStarted,
    StepEvent,
    StepFinished,
    StepProgressed,
    StepRetrying,
    StepStarted,
)
from odibi_async.testing import Recorder, _Waits, virtual_clock

MISSING = -1
"""What an optional parameter gets without its dataset."""
LIMIT = 60.0
"""Seconds, of virtual time, that a call may take which hangs."""
DEADLINE = 1000.0
OK, FAILED, SKIPPED, CANCELLED = Status.SUCCEEDED, Status.FAILED, Status.SKIPPED, Status.CANCELLED

# -- what may be asked for ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spec:
    """
    One step. Its datasets are called like it, with `.0` and `.1` when there are two.

    Attributes:
        reads: The datasets of its parameters p0, p1, ...
        optional: Which of the parameters have a default.
        size: Makes a list of so many; `None` for a number.
        mapped: Maps over p0.
        when: `None`, `"yes"`, `"no"`, or the dataset that decides.
        fault: What goes wrong in the first `faults` calls: "raise", "hang", "cancel" (it cancels itself), "forever".
        touchy: Of a mapped step, only elements with this remainder by 2 go wrong; `None` for all.
    """

    name: str
    place: str
    is_resource: bool
    reads: tuple[str, ...]
    optional: tuple[bool, ...]
    outputs: int
    size: int | None
    mapped: bool
    after: tuple[str, ...]
    when: str | None
    when_is_async: bool
    pool: str | None
    attempts: int
    fault: str
    faults: int
    touchy: int | None
    turns: int

    @property
    def datasets(self) -> tuple[str, ...]:
        return (self.name,) if self.outputs == 1 else (f"{self.name}.0", f"{self.name}.1")

    @property
    def all_reads(self) -> tuple[str, ...]:
        return self.reads if self.when in (None, "yes", "no") else (*self.reads, str(self.when))

    @property
    def needs(self) -> tuple[str, ...]:
        needed = tuple(name for name, optional in zip(self.reads, self.optional, strict=True) if not optional)
        return needed if self.when in (None, "yes", "no") else (*needed, str(self.when))

    def faults_of(self, args: tuple[Any, ...]) -> int:
        return self.faults if not self.mapped or self.touchy is None or number(args[0]) % 2 == self.touchy else 0

    def fails(self, args: tuple[Any, ...]) -> bool:
        return self.faults_of(args) >= (1 if self.fault == "cancel" else self.attempts) or (
            self.fault == "forever" and self.faults_of(args) > 0
        )

    def value(self, args: tuple[Any, ...]) -> Any:
        """What a call returns: one value a dataset."""
        made = []
        for output in range(self.outputs):
            if self.size is None:
                made.append(number(self.name, output, args))
            else:
                made.append([number(self.name, output, args, i) for i in range(self.size)])
        return made


def number(*things: Any) -> int:
    return zlib.crc32(repr(things).encode())


@dataclass(frozen=True)
class Plan:
    """
    A pipeline and how it is run.

    Attributes:
        cancel_at: The number of the event at which it is cancelled.
        cancel_by: "task": the task that awaits it; "twice": again at the next event but one; "run": `Run.cancel`.
    """

    specs: tuple[Spec, ...]
    given: tuple[tuple[str, Any], ...]
    targets: tuple[str, ...] | None
    on_error: str
    concurrency: int | None
    threads: int
    pool: int
    cancel_at: int | None
    cancel_by: str
    has_deadline: bool

    def producer(self, dataset: str) -> Spec | None:
        return next((spec for spec in self.specs if dataset in spec.datasets), None)

    def upstream(self, spec: Spec) -> set[str]:
        given = dict(self.given)
        makers = [self.producer(dataset) for dataset in spec.all_reads if dataset not in given]
        return {maker.name for maker in makers if maker is not None} | set(spec.after)

    def above(self, spec: Spec) -> set[str]:
        """All that it waits for, directly or not."""
        names = self.upstream(spec)
        return names.union(*(self.above(other) for other in self.specs if other.name in names))

    def streams_from(self, spec: Spec) -> Spec | None:
        """The mapped step whose elements it takes as they are made."""
        if not spec.mapped or spec.reads[0] in dict(self.given) or spec.all_reads.count(spec.reads[0]) > 1:
            return None
        maker = self.producer(spec.reads[0])
        return maker if maker and maker.mapped and maker.outputs == 1 and maker.name not in spec.after else None

    def selected(self) -> set[str]:
        given = dict(self.given)
        if self.targets is None:
            ahead = [spec.name for spec in self.specs if not set(spec.datasets) <= given.keys()]
        else:
            makers = [self.producer(dataset) for dataset in self.targets if dataset not in given]
            ahead = [maker.name for maker in makers if maker is not None]
        by_name = {spec.name: spec for spec in self.specs}
        chosen: set[str] = set()
        while ahead:
            name = ahead.pop()
            if name not in chosen:
                chosen.add(name)
                ahead.extend(self.upstream(by_name[name]))
        return chosen


@dataclass
class Names:
    """The datasets that there are so far, by what they hold; and those whose making may fail halfway."""

    numbers: list[str] = field(default_factory=lambda: ["x"])
    lists: list[str] = field(default_factory=lambda: ["xs"])
    resources: set[str] = field(default_factory=set)

    def add(self, spec: Spec) -> None:
        (self.lists if spec.mapped or spec.size is not None else self.numbers).extend(spec.datasets)
        self.resources |= {spec.name} if spec.is_resource else set()


@dataclass(frozen=True)
class Mood:
    """
    What the steps of one plan are like.

    Attributes:
        kinds: "async", "thread", "loop" (blocking, on the loop), "resource".
        fancy: Whether they are more than functions and edges, which the engine runs in a faster way.
        trouble: In how many of six steps something goes wrong.
        has_deadline: Whether some may never end.
    """

    kinds: tuple[str, ...]
    fancy: bool
    trouble: int
    has_deadline: bool


def one_in(draw: st.DrawFn, count: int) -> bool:
    return draw(st.integers(1, count)) == 1


def draw_spec(draw: st.DrawFn, mood: Mood, before: list[Spec], names: Names) -> Spec:
    kind = draw(st.sampled_from(mood.kinds))
    is_resource = kind == "resource"
    place = draw(st.sampled_from(["async", "thread"])) if is_resource else kind
    may_be_fancy = mood.fancy and not is_resource
    mapped = may_be_fancy and one_in(draw, 3)
    reads = draw(st.lists(st.sampled_from(names.numbers + names.lists), max_size=3, unique=True))
    if mapped:
        over = draw(st.sampled_from(names.lists[-4:]))
        reads = [over, *(name for name in reads if name != over or one_in(draw, 4))][:3]
    needed = [i == 0 and mapped for i in range(len(reads))]
    optional = [
        mood.fancy and name not in ("x", "xs") and not need and one_in(draw, 3)
        for name, need in zip(reads, needed, strict=True)
    ]
    when = None
    if mood.fancy and one_in(draw, 4):
        deciders = [name for name in names.numbers if name not in names.resources]
        when = draw(st.sampled_from(["yes", "no", *deciders]))
    fault = draw_fault(draw, mood, place, is_resource)
    return Spec(
        name=f"s{len(before)}",
        place=place,
        is_resource=is_resource,
        reads=tuple(reads),
        optional=tuple(optional),
        outputs=2 if may_be_fancy and one_in(draw, 5) else 1,
        size=draw(st.sampled_from([None, None, 3, 1] if mapped else [None, None, 3, 1, 0])) if may_be_fancy else None,
        mapped=mapped,
        after=(draw(st.sampled_from(before)).name,) if mood.fancy and before and one_in(draw, 2) else (),
        when=when,
        when_is_async=when is not None and draw(st.booleans()),
        pool="p" if may_be_fancy and one_in(draw, 4) else None,
        attempts=draw(st.integers(1, 3)) if fault else 1,
        fault=fault or "raise",
        faults=draw(st.integers(1, 3)) if fault else 0,
        touchy=draw(st.sampled_from([None, 0, 1])) if mapped else None,
        turns=draw(st.integers(0, 2)),
    )


def draw_fault(draw: st.DrawFn, mood: Mood, place: str, is_resource: bool) -> str | None:
    fault = None
    if draw(st.integers(0, 5)) < mood.trouble:
        fault = draw(st.sampled_from(["raise", "raise", "hang", "cancel"]))
    if mood.has_deadline and not is_resource and one_in(draw, 4):
        fault = "forever"
    can_hang = place in ("async", "thread")
    return "raise" if fault in ("hang", "forever") and not can_hang else fault


@st.composite
def plans(draw: st.DrawFn, most: int = 8, *, cancelled: bool = False) -> Plan:
    mood = Mood(
        kinds=draw(st.sampled_from([("async",), ("async", "thread"), ("async", "thread", "loop", "resource")])),
        fancy=draw(st.booleans()),
        trouble=draw(st.integers(0, 3)),
        has_deadline=one_in(draw, 8),
    )
    specs: list[Spec] = []
    names = Names()
    for _ in range(draw(st.integers(1, most))):
        spec = draw_spec(draw, mood, specs, names)
        specs.append(spec)
        names.add(spec)
    made = [dataset for spec in specs if not spec.is_resource for dataset in spec.datasets]
    given = draw_given(draw, specs, names, made if mood.fancy else [])
    targets = draw(st.lists(st.sampled_from(made), min_size=1, max_size=2)) if made and draw(st.booleans()) else None
    return Plan(
        specs=tuple(specs),
        given=given,
        targets=None if targets is None else tuple(targets),
        on_error=draw(st.sampled_from(["raise", "continue"])),
        concurrency=draw(st.sampled_from([None, None, 1, 2, 3])),
        threads=draw(st.integers(1, 3)),
        pool=draw(st.integers(1, 2)),
        cancel_at=draw(st.integers(0, 3 * len(specs))) if cancelled else None,
        cancel_by=draw(st.sampled_from(["task", "twice", "run"])),
        has_deadline=mood.has_deadline,
    )


def draw_given(draw: st.DrawFn, specs: list[Spec], names: Names, made: list[str]) -> tuple[tuple[str, Any], ...]:
    """What is read from outside, and values that stand in for what steps make."""
    read = {dataset for spec in specs for dataset in spec.all_reads}
    given: dict[str, Any] = {name: value for name, value in (("x", 7), ("xs", [11, 12, 13])) if name in read}
    for name in draw(st.lists(st.sampled_from(made), max_size=2, unique=True)) if made else ():
        given[name] = [21, 22] if name in names.lists else 5
    return tuple(given.items())


# -- what must become of it --------------------------------------------------------------------------------


@dataclass
class Expected:
    """
    What a step comes to when nothing is cancelled.

    Attributes:
        status: How it ends.
        because: Whom it may name when it is skipped.
        calls: The arguments of each call that is to happen, and how often.
        may_begin: Whether it may be called though it is skipped: its elements come while the list fails.
    """

    status: Status
    because: set[str] = field(default_factory=set)
    calls: dict[str, int] = field(default_factory=dict)
    may_begin: bool = False


def evaluate(plan: Plan) -> tuple[dict[str, Expected], dict[str, Any]]:
    """Each selected step's end, and each dataset, when the steps are called one after another."""
    values: dict[str, Any] = dict(plan.given)
    ends: dict[str, Expected] = {}
    chosen = plan.selected()
    for spec in plan.specs:
        if spec.name in chosen:
            ends[spec.name] = end = evaluate_step(plan, spec, ends, values)
            if end.status is OK:
                for dataset, value in made_by(spec, values).items():
                    values.setdefault(dataset, value)
    return ends, values


def evaluate_step(plan: Plan, spec: Spec, ends: dict[str, Expected], values: dict[str, Any]) -> Expected:
    above = {name: ends[name] for name in plan.upstream(spec)}
    failed = {name for name, end in above.items() if end.status is FAILED}
    skipped = [end for end in above.values() if end.status is SKIPPED and is_failure(end, ends)]
    failed |= {root for end in skipped for root in end.because}
    if failed:
        source = plan.streams_from(spec)
        begins = source is not None and (ends[source.name].status is FAILED or ends[source.name].may_begin)
        itself = {spec.name} if begins and (spec.faults or spec.when) else set()
        return Expected(SKIPPED, failed | itself, may_begin=begins)
    lost = {name for dataset in spec.needs if dataset not in values for name in [producer_name(plan, dataset)]}
    if lost:
        return Expected(SKIPPED, {root for name in lost for root in ends[name].because})
    if spec.when is not None and not decides(spec.when, values.get(spec.when)):
        return Expected(SKIPPED, {spec.name})
    calls = {repr(args): min(spec.faults_of(args) + 1, attempts(spec)) for args in calls_of(spec, values)}
    fails = any(spec.fails(args) for args in calls_of(spec, values))
    return Expected(FAILED if fails else OK, calls=calls)


def is_failure(end: Expected, ends: dict[str, Expected]) -> bool:
    return any(ends[name].status is FAILED for name in end.because if name in ends)


def attempts(spec: Spec) -> int:
    return 1 if spec.fault in ("cancel", "forever") else spec.attempts


def producer_name(plan: Plan, dataset: str) -> str:
    maker = plan.producer(dataset)
    assert maker is not None
    return maker.name


def decides(when: str, value: Any) -> bool:
    return when == "yes" or (when != "no" and number(value) % 3 > 0)


def calls_of(spec: Spec, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    args = [values.get(name, MISSING) for name in spec.reads]
    return [(element, *args[1:]) for element in args[0]] if spec.mapped else [tuple(args)]


def made_by(spec: Spec, values: dict[str, Any]) -> dict[str, Any]:
    made = [spec.value(args) for args in calls_of(spec, values)]
    if not spec.mapped:
        return dict(zip(spec.datasets, made[0], strict=True))
    return {name: [each[output] for each in made] for output, name in enumerate(spec.datasets)}


# -- real steps --------------------------------------------------------------------------------------------


class World:
    """Makes the steps of a plan, and logs what is called: appending to a list is atomic, so no lock is needed."""

    def __init__(self, plan: Plan) -> None:
        self.log: list[tuple[str, Spec, str]] = []
        self._count: dict[tuple[str, str], Iterator[int]] = defaultdict(itertools.count)
        self.pipeline = Pipeline([self._step(spec) for spec in plan.specs], dict(plan.given))

    def _step(self, spec: Spec) -> Any:
        options: dict[str, Any] = {
            "name": spec.name,
            "inputs": {f"p{i}": name for i, name in enumerate(spec.reads)},
            "after": spec.after,
            "retry": Retry(attempts=spec.attempts, wait=0) if spec.attempts > 1 else None,
            "timeout": LIMIT if spec.faults and spec.fault == "hang" else None,
        }
        if spec.when is not None:
            options["when"] = self._predicate(spec)
            if spec.when not in ("yes", "no"):
                options["inputs"]["decider"] = spec.when
        if spec.is_resource:
            return resource(self._manager(spec), **options)
        if spec.outputs == 2:
            options["outputs"] = spec.datasets
        if spec.place == "loop":
            options["run_on"] = "loop"
        if spec.mapped:
            options["map_over"] = "p0"
        return step(self._function(spec), pool=spec.pool, **options)

    def _function(self, spec: Spec) -> Callable[..., Any]:
        """A function with the parameters that the plan says: written out, as people write them."""
        head = ", ".join(
            f"p{i}={MISSING}" if optional else f"p{i}"
            for i, optional in sorted(enumerate(spec.optional), key=lambda each: (each[1], each[0]))
        )
        args = "".join(f"p{i}, " for i in range(len(spec.reads)))
        word, wait = ("async ", "await ") if spec.place == "async" else ("", "")
        scope: dict[str, Any] = {"call": self._on_loop if spec.place == "async" else self._blocking, "spec": spec}
        scope |= {"close": self._close, "a_close": self._a_close}
        if spec.is_resource:
            close = "await a_close(spec)" if word else "close(spec)"
            body = f"value = {wait}call(spec, ({args}))\n try:\n  yield value\n finally:\n  {close}"
        else:
            body = f"return {wait}call(spec, ({args}))"
        exec(f"{word}def fn({head}):\n {body}", scope)
        fn: Callable[..., Any] = scope["fn"]
        return fn

    _manager = _function

    def _predicate(self, spec: Spec) -> Callable[..., Any]:
        when = str(spec.when)
        if when in ("yes", "no"):
            return lambda: when == "yes"
        if not spec.when_is_async:
            return lambda decider: decides(when, decider)

        async def asks(decider: Any) -> bool:
            await asyncio.sleep(0)
            return decides(when, decider)

        return asks

    async def _on_loop(self, spec: Spec, args: tuple[Any, ...]) -> Any:
        key = repr(args)
        self.log.append(("in", spec, key))
        try:
            for _ in range(spec.turns):
                await asyncio.sleep(0)
            if self._goes_wrong(spec, args, key):
                await asyncio.Event().wait()
            return self._value(spec, args)
        finally:
            self.log.append(("out", spec, key))

    def _blocking(self, spec: Spec, args: tuple[Any, ...]) -> Any:
        key = repr(args)
        self.log.append(("in", spec, key))
        try:
            if spec.place == "thread":
                time.sleep(0.0001 * spec.turns)
            if self._goes_wrong(spec, args, key):
                _Waits(None)()
            return self._value(spec, args)
        finally:
            self.log.append(("out", spec, key))

    def _goes_wrong(self, spec: Spec, args: tuple[Any, ...], key: str) -> bool:
        """Raises, or says that the call is to hang."""
        if next(self._count[spec.name, key]) >= spec.faults_of(args):
            return False
        if spec.fault == "raise":
            raise OSError(spec.name)
        if spec.fault == "cancel":
            raise asyncio.CancelledError(spec.name)
        return True

    def _value(self, spec: Spec, args: tuple[Any, ...]) -> Any:
        made = spec.value(args)
        for arg in args:
            if isinstance(arg, list):
                arg.append("what I do to my copy, nobody else sees")
        if spec.is_resource:
            self.log.append(("open", spec, ""))
        return tuple(made) if spec.outputs == 2 else made[0]

    def _close(self, spec: Spec) -> None:
        self.log.append(("close", spec, ""))

    async def _a_close(self, spec: Spec) -> None:
        await asyncio.sleep(0)
        self.log.append(("close", spec, ""))

    def most(self, counts: Callable[[Spec], bool]) -> int:
        """How many of these calls were under way at a time."""
        steps = [(what == "in") - (what == "out") for what, spec, _ in self.log if counts(spec)]
        return max(itertools.accumulate(steps), default=0)


# -- running it --------------------------------------------------------------------------------------------


@dataclass
class Story:
    """One run of a plan, over and looked at."""

    plan: Plan
    world: World
    events: Recorder
    result: RunResult
    raised: BaseException | None


async def live(plan: Plan) -> Story:
    world, events = World(plan), Recorder()
    limits = Limits(concurrency=plan.concurrency, threads=plan.threads, pools={"p": plan.pool})
    cancelling: list[asyncio.Task[None]] = []
    runner = Runner(limits=limits)
    options: dict[str, Any] = {"targets": plan.targets, "on_error": plan.on_error}
    options["timeout"] = DEADLINE if plan.has_deadline else None

    def cancel(event: Event) -> None:
        events(event)
        if plan.cancel_at is None or event.seq not in (plan.cancel_at, plan.cancel_at + 2):
            return
        if plan.cancel_by == "run":
            cancelling.append(asyncio.ensure_future(handle.cancel()))
        elif plan.cancel_by == "twice" or event.seq == plan.cancel_at:
            waiting.cancel()

    if plan.cancel_by == "run":
        handle = await runner.start(world.pipeline, dict(plan.given), observers=[cancel], **options)
        waiting = asyncio.ensure_future(handle.result())
    else:
        run = runner.run(world.pipeline, dict(plan.given), observers=[cancel], **options)
        waiting = asyncio.ensure_future(run)
    await asyncio.wait([waiting])
    if cancelling:
        await asyncio.wait(cancelling)
    raised = asyncio.CancelledError() if waiting.cancelled() else waiting.exception()
    finished = events[-1]
    assert isinstance(finished, RunFinished)
    assert raised is not None or waiting.result() is finished.result
    await nothing_is_left(runner)
    return Story(plan, world, events, finished.result, raised)


async def nothing_is_left(runner: Runner) -> None:
    """No task; and each slot is there to be taken again, once."""
    for _ in range(2000):
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if not left:
            break
        await asyncio.sleep(0.001)
    assert not left, left
    limits = runner.limits
    assert limits.threads is not None
    if limits.concurrency is not None:
        assert await most_at_once(runner, limits.concurrency, None) == limits.concurrency
    assert await most_at_once(runner, min(limits.pools["p"], limits.concurrency or 9), "p") <= limits.pools["p"]
    if limits.concurrency is None or limits.concurrency >= limits.threads:
        await meet_in_threads(runner, limits.threads)


async def most_at_once(runner: Runner, count: int, pool: str | None) -> int:
    """Runs twice as many steps as there are slots, none of which ends before all slots are taken."""
    active = most = 0
    all_taken = asyncio.Event()

    async def meet() -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        if active == count:
            all_taken.set()
        await all_taken.wait()
        await asyncio.sleep(0)
        active -= 1

    await runner.run([step(meet, name=str(i), pool=pool) for i in range(2 * count)], timeout=10)
    return most


async def meet_in_threads(runner: Runner, count: int) -> None:
    """Runs as many blocking steps as there are threads, none of which ends before all run."""
    barrier = threading.Barrier(count)
    await runner.run([step(lambda: barrier.wait(10), name=str(i)) for i in range(count)])


# -- what must hold ----------------------------------------------------------------------------------------


def check(story: Story) -> None:
    expected, values = evaluate(story.plan)
    check_statuses(story, expected)
    check_events(story)
    check_calls(story, expected)
    check_resources(story)
    check_values(story, values)
    check_limits(story)


def check_statuses(story: Story, expected: dict[str, Expected]) -> None:
    plan, result, raised = story.plan, story.result, story.raised
    records = result.steps
    assert records.keys() == expected.keys()
    failed = {name for name, record in records.items() if record.status is FAILED}
    assert result.failures.keys() == failed
    hanging = [spec.name for spec in plan.specs if spec.fault == "forever"]
    never_ends = any(expected[name].status is FAILED for name in hanging if name in expected)
    interrupted = plan.cancel_at is not None or never_ends or (plan.on_error == "raise" and bool(failed))
    for spec in plan.specs:
        if spec.name in expected:
            check_status(spec, expected[spec.name], records, plan.above(spec), interrupted)
    if plan.cancel_at is not None:
        assert raised is None or isinstance(raised, asyncio.CancelledError | RunError)
    elif isinstance(raised, DeadlineError) or (never_ends and plan.on_error == "continue"):
        assert isinstance(raised, DeadlineError)
        assert never_ends
        assert result.status is FAILED
    elif failed and plan.on_error == "raise":
        assert type(raised) is RunError
        assert raised.failures.keys() == failed
    else:
        assert raised is None
        assert result.status is (FAILED if failed else OK)
    if isinstance(raised, RunCancelled):
        assert result.status is CANCELLED


def check_status(spec: Spec, end: Expected, records: Any, above: set[str], interrupted: bool) -> None:
    record = records[spec.name]
    allowed = {end.status}
    if end.may_begin and spec.faults:
        allowed.add(FAILED)
    if interrupted:
        allowed |= {CANCELLED, FAILED} if spec.faults else {CANCELLED}  # a failed attempt is then the last
    if spec.fault == "forever" and end.status is FAILED:
        allowed = {CANCELLED}
    because = set(end.because)
    if interrupted:  # a step above, which would have had another attempt, may have failed
        because |= {name for name in above if records[name].status is FAILED}
        allowed |= {SKIPPED} if because else set()
    if spec.mapped:  # one that takes elements as they are made may be ready before the step that makes them has failed
        because |= {records[name].skipped_because for name in above if records[name].status is SKIPPED}
    assert record.status in allowed, (record, end)
    if record.status is SKIPPED:
        assert record.skipped_because in because
        assert records[record.skipped_because].status in (FAILED, SKIPPED)
        assert record.error is None
    if record.status is FAILED:
        error = {"raise": OSError, "hang": TimeoutError, "cancel": asyncio.CancelledError}[spec.fault]
        assert type(record.error) is error
        assert spec.mapped or record.attempts == attempts(spec) or (interrupted and record.attempts < attempts(spec))
    if record.status is OK:
        assert record.attempts == (1 if spec.mapped else spec.faults + 1)
        assert record.error is None


def check_events(story: Story) -> None:
    plan, events, records = story.plan, story.events, story.result.steps
    assert [event.seq for event in events] == list(range(len(events)))
    assert type(events[0]) is RunStarted
    assert type(events[-1]) is RunFinished
    assert len(events.of(RunStarted)) == len(events.of(RunFinished)) == 1
    assert Counter(event.step for event in events.of(StepFinished)) == dict.fromkeys(records, 1)
    assert all(event.result is records[event.step] for event in events.of(StepFinished))
    started = {event.step: event.seq for event in events.of(StepStarted)}
    assert len(started) == len(events.of(StepStarted))
    finished = {event.step: event.seq for event in events.of(StepFinished)}
    there = finished | {event.step: event.seq for event in events.of(ResourceOpened)}
    for spec in plan.specs:
        if spec.name not in records:
            continue
        record = records[spec.name]
        if record.status is OK:
            assert spec.name in started
        told = [event.seq for event in events if isinstance(event, StepEvent) and event.step == spec.name]
        assert told[-1] == finished[spec.name]
        assert told[0] == started.get(spec.name, finished[spec.name])
        if spec.name not in started:
            continue
        source = plan.streams_from(spec)
        for name in plan.upstream(spec):
            if source is None or name != source.name:
                assert there[name] < started[spec.name], (name, spec.name, events.story)
            else:
                assert started[name] < started[spec.name]
        retries = [event for event in events.of(StepRetrying) if event.step == spec.name]
        if not spec.mapped and record.status in (OK, FAILED):
            assert [event.attempt for event in retries] == list(range(1, record.attempts))
        if spec.mapped:
            done = [event.done for event in events.of(StepProgressed) if event.step == spec.name]
            assert done == list(range(1, len(done) + 1))


def check_calls(story: Story, expected: dict[str, Expected]) -> None:
    """Each call is one that was to happen, with the right arguments, and as often as it was to."""
    records = story.result.steps
    calls: dict[str, Counter[str]] = defaultdict(Counter)
    under_way: set[tuple[str, str]] = set()
    for what, spec, key in story.world.log:
        if what == "in":
            assert (spec.name, key) not in under_way
            under_way.add((spec.name, key))
            calls[spec.name][key] += 1
        elif what == "out":
            under_way.remove((spec.name, key))
    assert not under_way
    for spec in story.plan.specs:
        if spec.name not in expected:
            assert not calls[spec.name]
            continue
        end, made = expected[spec.name], calls[spec.name]
        if records[spec.name].status is OK:
            assert made == end.calls
        elif not end.may_begin:
            assert all(count <= end.calls.get(key, 0) for key, count in made.items()), (spec.name, made, end)
        if records[spec.name].status is FAILED and not spec.mapped:
            assert sum(made.values()) == records[spec.name].attempts


def check_resources(story: Story) -> None:
    """Each resource that was opened is closed, once, and all that its readers do lies between the two."""
    log = story.world.log
    for spec in story.plan.specs:
        opened, closed = (
            [at for at, entry in enumerate(log) if entry[:2] == (what, spec)] for what in ("open", "close")
        )
        assert len(opened) == len(closed) <= 1
        readers = [reader for reader in story.plan.specs if spec.is_resource and spec.name in reader.reads]
        life = [at for at, (_, reader, _) in enumerate(log) if reader in readers]
        assert not life or not opened or opened[0] < life[0] <= life[-1] < closed[0]


def check_values(story: Story, values: dict[str, Any]) -> None:
    plan, records = story.plan, story.result.steps
    wanted = [dataset for spec in plan.specs if not spec.is_resource for dataset in spec.datasets]
    wanted += [name for name, _ in plan.given if name not in wanted]
    if plan.targets is not None:
        wanted = list(plan.targets)
    there = {}
    for dataset in wanted:
        maker = plan.producer(dataset)
        if dataset in dict(plan.given) or (maker and maker.name in records and records[maker.name].status is OK):
            there[dataset] = values[dataset]
    assert dict(story.result.outputs) == there


def check_limits(story: Story) -> None:
    plan, world = story.plan, story.world
    if plan.concurrency is not None:
        assert world.most(lambda spec: not spec.is_resource) <= plan.concurrency
    assert world.most(lambda spec: spec.place == "thread") <= plan.threads
    assert world.most(lambda spec: spec.pool == "p") <= plan.pool


def run_and_check(plan: Plan) -> None:
    with virtual_clock() as clock:
        story = clock.run(live(plan))
    check(story)


QUICK = settings(
    deadline=None, derandomize=True, database=None, max_examples=450, suppress_health_check=list(HealthCheck)
)
LONG = settings(QUICK, max_examples=5_000, derandomize=False)


@QUICK
@given(plans())
def test_a_run_does_what_calling_the_steps_in_order_would_do(plan: Plan):
    run_and_check(plan)


@QUICK
@given(plans(cancelled=True))
def test_a_run_that_is_cancelled_at_any_event_leaves_nothing_behind(plan: Plan):
    run_and_check(plan)


@pytest.mark.slow
@LONG
@given(plans(most=12))
def test_many_runs_do_what_calling_the_steps_in_order_would_do(plan: Plan):
    run_and_check(plan)


@pytest.mark.slow
@LONG
@given(plans(most=12, cancelled=True))
def test_many_cancelled_runs_leave_nothing_behind(plan: Plan):
    run_and_check(plan)
