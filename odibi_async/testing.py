"""
For tests of pipelines: hear what a run tells, make steps fail, hang or dawdle, and wait for nothing.

    Recorder                     an observer that keeps the events, and waits for one
    failing, slowed, hanging     a pipeline of which some steps do that
    impatient                    a pipeline that retries at once
    virtual_clock, VirtualLoop   a loop on which an hour of sleep takes no time
    failpoint                    a moment in writing to disk at which a disk is full, or the process dies
    rehearse                     a run, with its events; the pytest fixture `odibi_run` is made from it
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import math
import selectors
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextvars import Context
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple

import anyio
import anyio.from_thread

from odibi_async.errors import GraphError, GraphFault, OptionError, did_you_mean
from odibi_async.events import Event, RunFinished, RunStarted
from odibi_async.failpoints import ARMED, FAILPOINTS
from odibi_async.graph.hints import hints_of
from odibi_async.pipeline import Pipeline, run_pipeline
from odibi_async.result import RunResult
from odibi_async.retry import Retry
from odibi_async.steps import Step, is_async, kind_of_generator

E = TypeVar("E", bound=Event)
T = TypeVar("T")
Args = TypeVarTuple("Args")
AnyStep = Step[..., Any, Any]
GLANCE_SECONDS = 0.002
"""How often a virtual clock looks whether threads are still busy, since one that has just ended tells nobody."""

# -- hearing -----------------------------------------------------------------------------------------------


class Recorder(list[Event]):
    """
    An observer that keeps what it hears: `run_pipeline(steps, observers=[recorder])`. It is a list of events.

    One recorder listens to one run, or to several one after another.
    """

    def __init__(self) -> None:
        super().__init__()
        self._news: list[asyncio.Event] = []

    def __call__(self, event: Event) -> None:
        self.append(event)
        for news in self._news:
            news.set()

    def of(self, kind: type[E], **about: Any) -> list[E]:
        """The events of one kind so far, of those only the ones whose attributes are as said: `step="load"`."""
        return [event for event in self if isinstance(event, kind) and _has(event, about)]

    @property
    def story(self) -> list[str]:
        """`RunStarted`, `StepStarted load`, ...: the kinds of the events, with their steps."""
        return [f"{type(event).__name__} {getattr(event, 'step', '')}".strip() for event in self]

    async def wait_for(self, kind: type[E], **about: Any) -> E:
        """
        The first event of this kind and with these attributes, as soon as it is there: no test has to sleep.

        Raises:
            LookupError: The run ended without it.
        """
        news = asyncio.Event()
        self._news.append(news)
        try:
            while not (found := self.of(kind, **about)):
                if self._is_over:
                    wanted = ", ".join((kind.__name__, *(f"{name}={value!r}" for name, value in about.items())))
                    raise LookupError(f"The run ended without {wanted}. It told: {', '.join(self.story)}.")
                news.clear()
                await news.wait()
        finally:
            self._news.remove(news)
        return found[0]

    @property
    def _is_over(self) -> bool:
        return 0 < len(self.of(RunStarted)) == len(self.of(RunFinished))


def _has(event: Event, about: Mapping[str, Any]) -> bool:
    return all(getattr(event, name) == value for name, value in about.items())


# -- failpoints --------------------------------------------------------------------------------------------


def failing(
    pipeline: Pipeline, errors: Mapping[str, BaseException | type[BaseException]], *, times: int | None = None
) -> Pipeline:
    """
    The same pipeline, of which some steps fail instead of doing their work.

    Args:
        pipeline: What to test.
        errors: Step -> what it raises.
        times: How many calls of each of them fail, counted over all attempts, elements and runs of the
            pipeline that is returned; then the step works. `None` for every call.

    Raises:
        GraphError: A name is no step of the pipeline.
    """
    return _with_failpoints(pipeline, {name: _Fails(error, times) for name, error in errors.items()})


def slowed(pipeline: Pipeline, seconds: Mapping[str, float]) -> Pipeline:
    """
    The same pipeline, of which some steps dawdle before they do their work.

    Args:
        pipeline: What to test.
        seconds: Step -> seconds. They pass on the loop, so on a `VirtualLoop` they take no time; only a
            blocking step with `run_on="loop"` really sleeps.

    Raises:
        GraphError: A name is no step of the pipeline.
    """
    return _with_failpoints(pipeline, {name: _Waits(each) for name, each in seconds.items()})


def hanging(pipeline: Pipeline, *names: str) -> Pipeline:
    """
    The same pipeline, of which these steps never end, until they are cancelled.

    Raises:
        GraphError: A name is no step of the pipeline.
        OptionError: A step is blocking and runs on the loop, so that nobody could cancel it.
    """
    for step in pipeline.steps:
        if step.name in names and step.run_on == "loop" and not is_async(step.value):
            raise OptionError(f"Step {step.name!r} blocks the loop (run_on='loop'): if it hung, so would everything.")
    return _with_failpoints(pipeline, {name: _Waits(None) for name in names})


class _Fails:
    """Raises, so many times."""

    def __init__(self, error: BaseException | type[BaseException], times: int | None) -> None:
        self._error = error
        self._times = math.inf if times is None else times
        self._calls = itertools.count()  # threads may take from it at the same time

    def __call__(self) -> None:
        if next(self._calls) < self._times:
            error = self._error
            raise error if isinstance(error, type) else error.with_traceback(None)

    async def on_loop(self) -> None:
        self()


@dataclass(frozen=True, slots=True)
class _Waits:
    """Lets some seconds pass; `None` for ever."""

    seconds: float | None

    def __call__(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            try:
                anyio.from_thread.run(self._for_thread)
            except concurrent.futures.CancelledError as error:
                raise asyncio.CancelledError(*error.args) from None
        else:
            assert self.seconds is not None
            time.sleep(self.seconds)

    async def on_loop(self) -> None:
        await (asyncio.Event().wait() if self.seconds is None else asyncio.sleep(self.seconds))

    async def _for_thread(self) -> None:
        if anyio.current_effective_deadline() == -math.inf:
            raise asyncio.CancelledError  # the step was, before this task was there to be cancelled with it
        loop = asyncio.get_running_loop()
        with loop.thread_that_waits() if isinstance(loop, VirtualLoop) else contextlib.nullcontext():
            await self.on_loop()


def _with_failpoints(pipeline: Pipeline, failpoints: Mapping[str, _Fails | _Waits]) -> Pipeline:
    names = [step.name for step in pipeline.steps]
    faults = [
        GraphFault("OA403", f"There is no step {name!r} in this pipeline.{did_you_mean(name, names)}")
        for name in failpoints
        if name not in names
    ]
    if faults:
        raise GraphError(faults)

    def rigged(step: AnyStep) -> AnyStep:
        failpoint = failpoints.get(step.name)
        if failpoint is None:
            return step
        return dataclasses.replace(step, value=_behind(failpoint, step.value, is_resource=step.is_resource))

    return _mapped(pipeline, rigged)


def _mapped(pipeline: Pipeline, change: Callable[[AnyStep], AnyStep]) -> Pipeline:
    """The pipeline with each step changed."""
    return Pipeline(map(change, pipeline.steps), pipeline.inputs)


def _behind(failpoint: _Fails | _Waits, fn: Callable[..., Any], *, is_resource: bool) -> Callable[..., Any]:
    """A function of the same kind and signature that passes the failpoint first."""
    wrapper: Callable[..., Any]
    kind = kind_of_generator(fn)
    if is_async(fn):

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            await failpoint.on_loop()
            return await fn(*args, **kwargs)

    elif kind == "async" and not is_resource:

        async def wrapper(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            await failpoint.on_loop()
            async with contextlib.aclosing(fn(*args, **kwargs)) as batches:
                async for batch in batches:
                    yield batch

    elif kind == "async":

        async def wrapper(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            await failpoint.on_loop()
            async with contextlib.asynccontextmanager(fn)(*args, **kwargs) as value:
                yield value

    elif kind == "plain" and not is_resource:

        def wrapper(*args: Any, **kwargs: Any) -> Iterator[Any]:
            failpoint()
            yield from fn(*args, **kwargs)

    elif kind == "plain":

        def wrapper(*args: Any, **kwargs: Any) -> Iterator[Any]:
            failpoint()
            with contextlib.contextmanager(fn)(*args, **kwargs) as value:
                yield value

    else:

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            failpoint()
            return fn(*args, **kwargs)

    about = ("__module__", "__name__", "__qualname__", "__doc__")
    functools.update_wrapper(wrapper, fn, assigned=about, updated=())
    wrapper.__annotations__ = hints_of(fn) or dict(getattr(fn, "__annotations__", None) or {})
    return wrapper


@contextlib.contextmanager
def failpoint(name: str, act: Callable[[], object]) -> Iterator[None]:
    """
    A block in which something happens at a moment in writing to disk, in every thread of this process.

        with failpoint("before commit", lambda: os.kill(os.getpid(), signal.SIGKILL)):
            ...

    Args:
        name: One of `FAILPOINTS`: before and after a dataset's file is written, synced and renamed, and before and
            after rows of a journal are committed.
        act: Called each time, where the writing is done. What it raises, the writing raises: an `OSError`, say.

    Raises:
        OptionError: There is no such moment, or something happens at it already.
    """
    if name not in FAILPOINTS:
        raise OptionError(f"There is no failpoint {name!r}.{did_you_mean(name, FAILPOINTS)} It is one of {FAILPOINTS}.")
    if name in ARMED:
        raise OptionError(f"Something happens {name} already.")
    ARMED[name] = act
    try:
        yield
    finally:
        del ARMED[name]


# -- not waiting -------------------------------------------------------------------------------------------


def impatient(pipeline: Pipeline) -> Pipeline:
    """The same pipeline, whose steps are called again as often as before but at once."""

    def at_once(step: AnyStep) -> AnyStep:
        return step if step.retry is None else dataclasses.replace(step, retry=_at_once(step.retry))

    return _mapped(pipeline, at_once)


def _at_once(retry: Retry) -> Retry:
    return dataclasses.replace(retry, wait=0.0, max_wait=0.0)  # the latter holds for `Retry-After` as well


class VirtualLoop(asyncio.SelectorEventLoop):
    """
    An event loop whose time stands still while there is something to do, and else jumps to the next timer.

    `asyncio.sleep(3600)`, time limits and waits between retries take no time, and always happen in the order of
    their times. The loop's time starts at 0: `asyncio.get_running_loop().time()` tells how much has passed.

    While a worker thread is busy, or a socket or a subprocess is open, the loop really waits, and its time
    passes like real time: who can tell when they will have news. So `time.sleep` in a blocking step takes as
    long as ever. What does not ask the loop knows nothing of its time: `datetime.now`, `time.monotonic`, and
    with them what the engine records (`run_seconds`, the times of events).
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._calls_in_executor = 0
        self._threads_that_wait = 0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Lets time pass at once."""
        self._now += seconds

    @property
    def is_idle(self) -> bool:
        """Whether no thread is at work for this loop."""
        workers = (thread for thread in threading.enumerate() if getattr(thread, "loop", None) is self)
        busy = sum(worker.queue.unfinished_tasks > 0 for worker in workers)  # type: ignore[attr-defined]
        return busy <= self._threads_that_wait and not self._calls_in_executor

    @contextlib.contextmanager
    def thread_that_waits(self) -> Iterator[None]:
        """Meanwhile a worker thread does nothing but wait for the loop."""
        self._threads_that_wait += 1
        try:
            yield
        finally:
            self._threads_that_wait -= 1

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Args], T], *args: *Args) -> asyncio.Future[T]:
        """As ever; but the loop knows of it."""
        future = super().run_in_executor(executor, func, *args)
        self._calls_in_executor += 1
        future.add_done_callback(self._executor_is_done, context=Context())
        return future

    def _executor_is_done(self, future: object) -> None:
        self._calls_in_executor -= 1


class _JumpingSelector(selectors.DefaultSelector):
    """Lets the time of its loop pass instead of waiting, where it may."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is not None and not self._something_is_underway():
            ready = super().select(0)  # what a thread told just before it was idle
            if not ready:
                self._loop.advance(timeout)
            return ready
        began = time.monotonic()
        ready = super().select(None if timeout is None else min(timeout, GLANCE_SECONDS))
        self._loop.advance(time.monotonic() - began)
        return ready

    def _something_is_underway(self) -> bool:
        return len(self.get_map()) > 1 or not self._loop.is_idle  # 1: the pipe that threads wake the loop with


@dataclass(frozen=True, slots=True)
class VirtualClock:
    """Runs coroutines one after another on one `VirtualLoop`."""

    _runner: asyncio.Runner

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs it to its end; what it returns."""
        return self._runner.run(coroutine)

    @property
    def time(self) -> float:
        """Seconds that have passed."""
        return self._runner.get_loop().time()


@contextlib.contextmanager
def virtual_clock() -> Iterator[VirtualClock]:
    """
    A clock, for tests that are not async themselves.

        with virtual_clock() as clock:
            clock.run(run_pipeline(steps))
            assert clock.time == 3600
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        yield VirtualClock(runner)


# -- a whole run -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """
    A run that was made for a test.

    Attributes:
        result: What the run did.
        events: What it told.
    """

    result: RunResult
    events: Recorder


async def rehearse(
    steps: Pipeline | Iterable[Any], inputs: Mapping[str, Any] | None = None, **options: Any
) -> Rehearsal:
    """
    Runs steps to their end, without any wait between retries.

    Args:
        steps: As for `run_pipeline`, and so are the others.
        inputs: Dataset -> value.
        **options: `targets`, `on_error`, ...

    Raises:
        RunError: A step failed, unless `on_error="continue"`.
    """
    events = Recorder()
    pipeline = steps if isinstance(steps, Pipeline) else Pipeline(steps, inputs or ())
    if options.get("retry") is not None:
        options["retry"] = _at_once(options["retry"])
    options["observers"] = (events, *options.get("observers", ()))
    result = await run_pipeline(impatient(pipeline), inputs, **options)
    return Rehearsal(result=result, events=events)
