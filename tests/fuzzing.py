"""
Random pipelines, run and cancelled at random, and what must hold whatever happens.

    python -m tests.fuzzing --minutes 10 --seed 20261127     # or --cases 5000

A case follows from its number alone, so a failure is repeated with `--seed N --cases 1`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import anyio.from_thread

from odibi_async import Limits, Retry, RunError, Runner, RunResult, Status, resource, step
from odibi_async.events import Event, RunFinished, RunStarted, StepFinished, StepStarted

WATCHDOG = 30.0
"""Seconds after which a run counts as hanging."""
GRACE = 0.2


@dataclass(frozen=True)
class Frozen(Exception):
    """An exception that takes neither notes nor attributes."""

    number: int


class Own(BaseException):
    """An exception of the user's that is no `Exception`."""


ERRORS: tuple[Callable[[], BaseException], ...] = (
    lambda: OSError("disk"),
    lambda: ValueError("bad"),
    lambda: Frozen(1),
    lambda: Own("own"),
    asyncio.CancelledError,
    lambda: ExceptionGroup("several", [OSError("a"), ValueError("b")]),
)


class World:
    """What the functions of a case tell of themselves."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.faults: list[str] = []
        self.is_stopped = False
        self.entered: Counter[str] = Counter()
        self.exited: Counter[str] = Counter()
        self.readers: Counter[str] = Counter()
        self._inside: Counter[str | None] = Counter()
        self._beyond: set[tuple[str, int]] = set()
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def call(self, name: str, pool: str | None, reads: Sequence[str] = (), *, blocking: bool = False) -> Iterator[None]:
        """The body of a step, during which it counts against the limits."""
        is_inner = "." in name  # a run of its own, which hears of it when its step does
        if self.is_stopped and not blocking and not is_inner:
            self.faults.append(f"{name} began after the run was stopped")
        self._count(name, pool, blocking, 1)
        with self.lock:
            self.readers.update(reads)
        try:
            yield
        finally:
            with self.lock:
                self.readers.subtract(reads)
                self._beyond.discard(_caller(name))
            self._count(name, pool, blocking, -1)

    @contextlib.contextmanager
    def aside(self, name: str, pool: str | None, *, blocking: bool = False) -> Iterator[None]:
        """A step that waits for a run that it has started."""
        self._count(name, pool, blocking, -1)
        try:
            yield
        except asyncio.CancelledError:
            with self.lock:  # what it takes again when it is cancelled may be more than there is
                self._add(pool, blocking, 1)
                self._beyond.add(_caller(name))
            raise
        except BaseException:
            self._count(name, pool, blocking, 1)
            raise
        self._count(name, pool, blocking, 1)

    def _add(self, pool: str | None, blocking: bool, by: int) -> None:
        self._inside["all"] += by
        if pool is not None:
            self._inside[f"pool {pool}"] += by
        if blocking:
            self._inside["threads"] += by

    def _count(self, name: str, pool: str | None, blocking: bool, by: int) -> None:
        with self.lock:
            self._add(pool, blocking, by)
            if by < 0 or self.is_stopped:
                return
            for what, most in (
                ("all", self.limits.concurrency),
                ("threads", self.limits.threads),
                (f"pool {pool}", self.limits.pools.get(pool or "")),
            ):
                if most is not None and self._inside[what] > most + len(self._beyond):
                    self.faults.append(f"{name}: {self._inside[what]} at once in {what}, of {most}")


def _caller(name: str) -> tuple[str, int]:
    """One call of a step, of which several may be under way: the task, or the thread, that it is in."""
    try:
        return name, id(asyncio.current_task())
    except RuntimeError:
        return name, threading.get_ident()


class Case:
    """One random pipeline, and how it is run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = rng = random.Random(seed)
        pools = {"p": rng.randint(1, 2), "q": rng.randint(1, 2)}
        self.limits = Limits(
            concurrency=rng.choice([None, None, 1, 2, 3]),
            threads=rng.choice([1, 2, 3, 6]),
            pools=pools,
            grace=GRACE,
        )
        self.world = World(self.limits)
        self.reads: dict[str, list[str]] = {}
        self.mapped: dict[str, str] = {}
        self.resources: list[str] = []
        self.streams: dict[str, int] = {}
        self.partial: set[str] = set()
        self.on_error = rng.choice(["raise", "continue"])
        self.cancel_by = rng.choice([None, None, "task", "run", "deadline", "twice"])
        self.cancel_after = rng.choice([0.0, 0.0, 0.001, 0.003, 0.01])
        self.has_cache = rng.random() < 0.15
        self.retry = Retry(attempts=2, wait=0.0) if rng.random() < 0.3 else None
        self.steps = [self._step(f"s{index}") for index in range(rng.randint(1, 12))]
        self.targets = rng.sample([s.name for s in self.steps], 1) if rng.random() < 0.2 else None

    # -- the steps -------------------------------------------------------------------------------------

    def _step(self, name: str) -> Any:
        rng, others = self.rng, list(self.reads)
        reads = rng.sample(others, min(len(others), rng.choice([0, 0, 1, 1, 2, 3])))
        options: dict[str, Any] = {"name": name, "inputs": {f"a{i}": read for i, read in enumerate(reads)}}
        if rng.random() < 0.12:
            return self._resource(name, options)
        if rng.random() < 0.2:
            options["pool"] = rng.choice(["p", "q"])
        if rng.random() < 0.25:
            return self._stream(name, reads, options)
        if rng.random() < 0.25:
            options["retry"] = Retry(attempts=3, wait=rng.choice([0.0, 0.002]), on=self._retried())
        if rng.random() < 0.15:
            options["timeout"] = rng.choice([0.005, 5])
        if rng.random() < 0.1:
            options["when"] = self._predicate()
        if others and rng.random() < 0.1:
            options["after"] = (rng.choice(others),)
        listed = [read for read in reads if read in self.mapped or read.endswith("list")]
        if listed:
            options["map_over"] = next(key for key, read in options["inputs"].items() if read == listed[0])
            self.mapped[name] = listed[0]
        streamed = [key for key, read in options["inputs"].items() if read in self.streams]
        if streamed and not listed and rng.random() < 0.2:
            options["map_over"] = streamed[0]
            self.mapped[name] = options["inputs"][streamed[0]]
            self.streams[name] = self.streams[self.mapped[name]]
        fn = self._function(name, reads, options)
        self.reads[name] = reads
        return step(fn, **options)

    def _retried(self) -> Any:
        if self.rng.random() < 0.3:
            error = self.rng.choice([KeyError("predicate"), Own("predicate")])

            def broken(_: Exception) -> bool:
                raise error

            return broken
        return (OSError, ValueError)

    def _predicate(self) -> Callable[[], bool]:
        answer = self.rng.choice([True, False, None])

        def when() -> bool:
            if answer is None:
                raise ValueError("predicate")
            return answer

        return when

    def _function(self, name: str, reads: list[str], options: dict[str, Any]) -> Callable[..., Any]:
        """A function that works, fails, waits, cleans up or starts another run."""
        rng, world, pool = self.rng, self.world, options.get("pool")
        error = rng.choice(ERRORS) if rng.random() < 0.15 else None
        fails = rng.choice([1, 2, 99]) if error is not None else 0
        waits = rng.choice([0.0, 0.0, 0.001, 0.004])
        turns = rng.choice([0, 0, 1, 3])
        grudge = rng.random() < 0.1
        nested = rng.choice([None] * 6 + ["run"])
        makes_list = name.endswith(("3", "7")) and name not in self.mapped
        counts: Counter[Any] = Counter()
        open_ones = [read for read in reads if read in self.resources]

        def made(values: dict[str, Any]) -> Any:
            counts[str(values)] += 1
            if counts[str(values)] <= fails:
                assert error is not None
                raise error()
            return [1, 2, 3] if makes_list else value_of(name, values)

        if makes_list:
            self.mapped[name] = ""
        take = self._taking(name, rng)

        async def on_loop(**values: Any) -> Any:
            values = {key: await take(value) for key, value in values.items()}
            with world.call(name, pool, open_ones):
                try:
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    if waits:
                        await asyncio.sleep(waits)
                    if nested:
                        with world.aside(name, pool):
                            await self.runner.run(self._inner(name))
                except asyncio.CancelledError:
                    await asyncio.sleep(0)
                    if grudge:
                        raise ValueError("answers a cancellation") from None
                    raise
                return made(values)

        def in_thread(**values: Any) -> Any:
            values = {key: taken_of(value) for key, value in values.items()}
            with world.call(name, pool, open_ones, blocking=True):
                if waits:
                    time.sleep(waits)
                if nested:
                    with world.aside(name, pool, blocking=True):
                        anyio.from_thread.run(self.runner.run, self._inner(name))
                return made(values)

        return self._annotated(rng.choice([on_loop, in_thread]), name, options, AsyncIterator, Iterator)

    def _annotated(self, fn: Any, name: str, options: dict[str, Any], on_loop: Any, in_thread: Any) -> Any:
        """The function, of which some parameters that read streams get batches."""
        kind = on_loop if fn.__name__ == "on_loop" else in_thread
        fn.__annotations__ = {
            key: kind
            for key, read in options["inputs"].items()
            if read in self.streams and options.get("map_over") is None and self.rng.random() < 0.8
        }
        return fn

    def _taking(self, name: str, rng: random.Random) -> Callable[[Any], Any]:
        """Takes all the batches of a stream, or some, in one task or in two."""
        most = rng.choice([None] * 6 + [0, 1, 3])
        if most is not None:
            self.partial.add(name)
        waits = rng.choice([0.0, 0.0, 0.001])

        async def take(value: Any) -> Any:
            if not hasattr(value, "__anext__"):
                return value
            taken: list[Any] = []
            while most is None or len(taken) < most:
                try:
                    taken.append(await anext(value))
                except StopAsyncIteration:
                    break
                if waits:
                    await asyncio.sleep(waits)
            return taken

        return take

    def _stream(self, name: str, reads: list[str], options: dict[str, Any]) -> Any:
        """A step that yields batches, fails at some, waits, and cleans up or refuses to."""
        rng, world, pool = self.rng, self.world, options.get("pool")
        count = rng.choice([0, 1, 3, 9, 30])
        error = rng.choice(ERRORS) if rng.random() < 0.2 else None
        fails_at = rng.choice([0, 1, 5])
        waits = rng.choice([0.0, 0.0, 0.001])
        ends_badly = rng.choice([None] * 8 + ["raises", "waits"])
        open_ones = [read for read in reads if read in self.resources]
        take = self._taking(name, rng)
        if rng.random() < 0.3:
            options["buffer"] = rng.choice([1, 2, 10])
        if rng.random() < 0.2:
            options["retry"] = Retry(attempts=2, wait=0.0)
        if rng.random() < 0.15:
            options["timeout"] = rng.choice([0.005, 5])
        if rng.random() < 0.1:
            options["when"] = self._predicate()
        self.streams[name], self.reads[name] = count, reads

        def made(number: int, values: dict[str, Any]) -> int:
            if error is not None and number == fails_at:
                raise error()
            return value_of(f"{name} {number}", values)

        async def on_loop(**values: Any) -> AsyncIterator[Any]:
            world.readers.update(open_ones)
            try:
                values = {key: await take(value) for key, value in values.items()}
                for number in range(count):
                    with world.call(name, pool):
                        if waits:
                            await asyncio.sleep(waits)
                        batch = made(number, values)
                    yield batch
            finally:
                try:
                    if ends_badly == "waits":
                        await asyncio.sleep(0.001)
                finally:  # on a busy machine it may be cancelled again
                    world.readers.subtract(open_ones)
                if ends_badly == "raises":
                    raise OSError("end")

        def in_thread(**values: Any) -> Iterator[Any]:
            with world.lock:
                world.readers.update(open_ones)
            try:
                values = {key: taken_of(value) for key, value in values.items()}
                for number in range(count):
                    with world.call(name, pool, blocking=True):
                        if waits:
                            time.sleep(waits)
                        batch = made(number, values)
                    yield batch
            finally:
                with world.lock:
                    world.readers.subtract(open_ones)
                if ends_badly == "raises":
                    raise OSError("end")

        fn = self._annotated(rng.choice([on_loop, in_thread]), name, options, AsyncIterator, Iterator)
        return step(fn, **options)

    def _inner(self, name: str) -> list[Any]:
        """The steps of a run inside a step."""
        world = self.world

        async def a() -> int:
            with world.call(f"{name}.a", "p"):
                await asyncio.sleep(0)
                return 1

        def b(a: int) -> int:
            with world.call(f"{name}.b", None, blocking=True):
                return a + 1

        return [step(a, pool="p"), b]

    def _resource(self, name: str, options: dict[str, Any]) -> Any:
        rng, world = self.rng, self.world
        fails = rng.random() < 0.1
        waits = rng.choice([0.0, 0.002])

        def opened(values: dict[str, Any]) -> Any:
            if fails:
                raise OSError("resource")
            world.entered[name] += 1
            return value_of(name, values)

        def closed() -> None:
            world.exited[name] += 1
            if world.readers[name]:
                world.faults.append(f"{name} was exited before its readers had ended")

        async def on_loop(**values: Any) -> AsyncIterator[Any]:
            await asyncio.sleep(waits)
            value = opened(values)
            try:
                yield value
            finally:
                await asyncio.sleep(0)
                closed()

        def in_thread(**values: Any) -> Iterator[Any]:
            time.sleep(waits)
            value = opened(values)
            try:
                yield value
            finally:
                closed()

        self.resources.append(name)
        self.reads[name] = list(options["inputs"].values())
        if rng.random() < 0.2:
            options["timeout"] = rng.choice([0.002, 5])
        return resource(rng.choice([on_loop, in_thread]), **options)

    # -- the run ---------------------------------------------------------------------------------------

    async def check(self, folder: str) -> list[str]:
        """Runs the case, with a folder for its cache; what did not hold."""
        before = asyncio.all_tasks()
        events: list[Event] = []
        with _listening() as logged:
            async with Runner(limits=self.limits, cache=folder if self.has_cache else None) as self.runner:
                try:
                    async with asyncio.timeout(WATCHDOG):
                        result = await self._run(events)
                        await self._full_again()
                except TimeoutError:
                    return [f"it hangs: {[task.get_name() for task in asyncio.all_tasks() - before]}"]
        left = await self._left(before)
        faults = self.world.faults + [f"a task was left: {name}" for name in left]
        faults += [f"logged: {line}" for line in logged]
        faults += [
            f"resource {name}: entered {count} times, exited {self.world.exited[name]}"
            for name, count in self.world.entered.items()
            if self.world.exited[name] != count
        ]
        return faults + _faults_of_events(events) + (self._faults_of(result, events) if result is not None else [])

    async def _left(self, before: set[asyncio.Task[Any]]) -> list[str]:
        """The tasks that are still there when those of worker threads have had a second to end."""
        for _ in range(100):
            left = [task.get_name() for task in asyncio.all_tasks() - before if not task.done()]
            if not left:
                break
            await asyncio.sleep(0.01)
        return left

    async def _run(self, events: list[Event]) -> RunResult | None:
        options: dict[str, Any] = {"on_error": self.on_error, "retry": self.retry, "observers": [events.append]}
        options["targets"] = self.targets
        if self.cancel_by == "deadline":
            options["timeout"] = self.cancel_after + 0.001
        run = await self.runner.start(self.steps, **options)
        waiting = asyncio.ensure_future(run.result())
        if self.cancel_by == "run":
            await asyncio.sleep(self.cancel_after)
            if run.status is Status.RUNNING:
                cancelling = asyncio.ensure_future(run.cancel())
                await asyncio.sleep(0)
                self.world.is_stopped = run.status is Status.RUNNING
                await cancelling
        elif self.cancel_by in ("task", "twice"):
            await asyncio.sleep(self.cancel_after)
            for _ in range(1 if self.cancel_by == "task" else 2):
                run._task.cancel()
                await asyncio.sleep(0.001)
        try:
            return await waiting
        except RunError as error:
            return error.result  # type: ignore[return-value]
        except asyncio.CancelledError:
            return None

    async def _full_again(self) -> None:
        """After the run, the same runner runs as many steps at once as its limits say."""
        self.world.is_stopped = False
        count = min(self.limits.concurrency or 3, 3)
        inside = 0
        full = asyncio.Event()

        async def meet(pool: str | None = None) -> None:
            nonlocal inside
            inside += 1
            if inside == count:
                full.set()
            await full.wait()

        await self.runner.run([step(meet, name=f"meet{i}") for i in range(count)])
        threads = min(self.limits.threads or 1, self.limits.concurrency or 99)
        barrier = threading.Barrier(threads)
        await self.runner.run([step(lambda: barrier.wait(10), name=f"thread{i}") for i in range(threads)])
        for pool, size in self.limits.pools.items():
            count, inside = min(size, self.limits.concurrency or size), 0
            full = asyncio.Event()
            await self.runner.run([step(meet, name=f"{pool}{i}", pool=pool) for i in range(count)])

    def _faults_of(self, result: RunResult, events: list[Event]) -> list[str]:
        finished = Counter(event.step for event in events if isinstance(event, StepFinished))
        [begun] = [event for event in events if isinstance(event, RunStarted)]
        faults = [f"{name}: {finished[name]} StepFinished" for name in begun.steps if finished[name] != 1]
        faults += [f"{name}: no record" for name in begun.steps if name not in result.steps]
        for name, value in result.outputs.items():
            record = result.steps.get(name)
            if record is None or not record.is_done or name in self.resources or self.mapped.get(name) == "":
                continue
            reads = self.reads[name]
            known = {read: self._value(read, result) for read in reads}
            if name in self.partial or any(each is None for each in known.values()):
                continue
            given = {f"a{i}": known[read] for i, read in enumerate(reads)}
            if name in self.streams and name not in self.mapped:
                wanted: Any = [value_of(f"{name} {number}", given) for number in range(self.streams[name])]
            elif name in self.mapped:
                over = f"a{reads.index(self.mapped[name])}"
                wanted = [value_of(name, {**given, over: element}) for element in given[over]]
            else:
                wanted = value_of(name, given)
            if value != wanted:
                faults.append(f"{name} is {value!r}, not {wanted!r}")
        return faults

    def _value(self, name: str, result: RunResult) -> Any:
        """A dataset, if it is known: of batches that passed by, what they must have been."""
        if name in result.outputs:
            return result.outputs[name]
        record = result.steps.get(name)
        if name not in self.streams or name in self.partial or record is None or not record.is_done:
            return None
        known = [self._value(read, result) for read in self.reads[name]]
        if any(each is None for each in known):
            return None
        given = {f"a{i}": value for i, value in enumerate(known)}
        if name in self.mapped:
            over = f"a{self.reads[name].index(self.mapped[name])}"
            return [value_of(name, {**given, over: element}) for element in given[over]]
        return [value_of(f"{name} {number}", given) for number in range(self.streams[name])]


def taken_of(value: Any) -> Any:
    """What a blocking step makes of a parameter: of batches, the list of them."""
    return list(value) if hasattr(value, "__next__") else value


def value_of(name: str, values: dict[str, Any]) -> int:
    """What a step makes of what it reads."""
    return hash((name, *sorted((key, str(value)) for key, value in values.items()))) % 1_000_003


def _faults_of_events(events: list[Event]) -> list[str]:
    faults = []
    if [event.seq for event in events] != list(range(len(events))):
        faults.append(f"seq has gaps: {[event.seq for event in events]}")
    if events and not isinstance(events[0], RunStarted):
        faults.append(f"{events[0]} came first")
    if events and not isinstance(events[-1], RunFinished):
        faults.append(f"{events[-1]} came last")
    started, ended = set(), set()
    for event in events:
        if isinstance(event, StepStarted):
            if event.step in started or event.step in ended:
                faults.append(f"{event.step} started twice, or after its end")
            started.add(event.step)
        elif isinstance(event, StepFinished):
            ended.add(event.step)
    return faults


@contextlib.contextmanager
def _listening() -> Iterator[list[str]]:
    """What is logged meanwhile by the engine and by asyncio."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("odibi_async", "asyncio")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield lines
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def check(seed: int) -> None:
    """Runs one case in a loop of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        faults = asyncio.run(Case(seed).check(folder))
    assert not faults, f"case {seed}:\n" + "\n".join(faults)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=1.0)
    options = parser.parse_args()
    began, seed, failed = time.monotonic(), options.seed, 0
    while seed - options.seed < options.cases if options.cases else time.monotonic() - began < 60 * options.minutes:
        try:
            check(seed)
        except AssertionError as error:
            failed += 1
            print(error, flush=True)
        seed += 1
    print(f"{seed - options.seed} cases, {failed} failed, {time.monotonic() - began:.0f} s")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
