"""What outlives one run."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import os
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import datetime, timezone
from types import TracebackType
from typing import TYPE_CHECKING, Any, Never, Self, Unpack

import anyio

from odibi_async.abc import Executor, Observer
from odibi_async.building import Planned
from odibi_async.cancellation import CURRENT, waiting
from odibi_async.durations import seconds_of
from odibi_async.errors import OptionError, RunError, RunnerClosed
from odibi_async.limits import Limits
from odibi_async.result import RunResult
from odibi_async.retry import Retry
from odibi_async.run.execution import Execution
from odibi_async.run.policies import OnError, Policies
from odibi_async.runner.background import EventLog, Log, Run, ended
from odibi_async.runner.caching import Remembering
from odibi_async.runner.home import Home
from odibi_async.runner.options import (
    Caching,
    Journaling,
    RunOptions,
    Steps,
    check_run_id,
    checked,
    refuse,
)
from odibi_async.runner.outlet import Outlet, tapped
from odibi_async.runner.plans import plan
from odibi_async.runner.preparation import Asked, Preparation
from odibi_async.runner.recording import Recording
from odibi_async.steps import name_of

if TYPE_CHECKING:
    from odibi_async.journal import Journal


class Runner:
    """
    What outlives one run: the limits that its runs share, and the observers of all of them.

    `async with Runner(limits=...) as runner`: leaving the block closes it, see `close`. It belongs to the event loop
    that its runs are in; when none is, another loop may use it.

    Args:
        limits: How much may run at a time, over all runs.
        cache: For runs that name no other; see `run_pipeline`.
        journal: For runs that name no other; see `run_pipeline`.
        observers: They hear the events of every run.
        executors: Name -> executor, for steps whose `run_on` says the name: `{"dask": DaskExecutor(...)}`. The runner
            opens them before the first run that needs them, and closes them.
        drain: Seconds that runs have to end by themselves when the block is left, before they are cancelled.
        freeze: Whether what is in memory when the block is entered is hidden from the garbage collector until it is
            left (`gc.freeze`): in a service with much that lives long, full collections are the longest stalls.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        cache: Caching = None,
        journal: Journaling = None,
        observers: Sequence[Observer] = (),
        executors: Mapping[str, Executor] | None = None,
        drain: float = 0.0,
        freeze: bool = False,
        **unknown: Never,
    ) -> None:
        refuse("A Runner", unknown, inspect.signature(Runner).parameters if unknown else ())
        if limits is not None and not isinstance(limits, Limits):
            raise OptionError(f"limits={limits!r}: Limits(...) are needed.")
        self.limits = limits or Limits()
        self.drain: float = seconds_of("drain", drain)
        self.freeze = freeze
        self._observers = checked(observers)
        self._recording = Recording(journal, self.limits.grace)
        self._preparation = Preparation(
            self.limits, self._observers, Remembering(cache, self.limits.grace), self._recording, executors or {}
        )
        self._runs: set[Execution] = set()
        self._idle: asyncio.Event | None = None
        self._is_closed = False
        self._borrowers = 0

    # -- its life --------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._is_closed = False
        if self.freeze:
            gc.collect()
            gc.freeze()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.close(self.drain if error is None else 0.0)
        finally:
            if self.freeze:
                gc.unfreeze()

    async def close(self, drain: float = 0.0) -> None:
        """
        Takes no more runs, cancels those that are not over, all at once, and waits until they have ended.

        If the waiting task is cancelled meanwhile, it still waits for the end.

        Args:
            drain: Seconds that they have to end by themselves before that.
        """
        self._is_closed = True
        cancelled: asyncio.CancelledError | None = None
        try:
            if self._runs and drain:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(drain):
                        await self._until_idle()
        except asyncio.CancelledError as error:
            cancelled = error
        for run in list(self._runs):
            run.cancel()
        with anyio.CancelScope(shield=True):
            while self._runs:
                try:
                    await self._until_idle()
                except asyncio.CancelledError as error:
                    cancelled = cancelled or error
        await self._preparation.close()
        if cancelled is not None:
            raise cancelled

    async def _until_idle(self) -> None:
        while self._runs:
            self._idle = self._idle or asyncio.Event()
            await self._idle.wait()

    @contextlib.asynccontextmanager
    async def borrowed(self) -> AsyncIterator[Self]:
        """A use of a runner that nobody owns: after the last one, what it opened is closed."""
        self._borrowers += 1
        try:
            yield self
        finally:
            self._borrowers -= 1
            if not self._borrowers:
                await self._preparation.close()

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """The runner's life as an ASGI lifespan: `FastAPI(lifespan=runner.lifespan)`."""
        async with self:
            yield

    # -- runs ------------------------------------------------------------------------------------------

    async def run(
        self, steps: Steps, inputs: Mapping[str, Any] | None = None, **options: Unpack[RunOptions]
    ) -> RunResult:
        """
        Runs steps and waits for the end; the arguments are those of `run_pipeline`.

        A step that waits so for another run holds neither its slot nor its thread meanwhile.

        Raises:
            RunnerClosed: The runner takes no more runs.
        """
        preparing = self._prepared(steps, inputs, **options)
        del steps, inputs, options  # a frame of a traceback is to keep no data
        execution = await preparing
        if CURRENT.get() is None:
            result = await self._living(execution)
        else:
            async with waiting():
                result = await self._living(execution)
        return execution.judged(result)

    async def resume(
        self,
        run_id: str,
        steps: Steps | None = None,
        inputs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> RunResult:
        """
        Resumes a run and waits for the end: steps that are committed are not called again.

        Args:
            run_id: The run.
            steps: Its steps. `None` for those of the pipeline of this name that this runner has run last, or for the
                configuration that the run was read from.
            inputs: Dataset -> value; `None` for what the run was given when it began.
            **options: As for `run_pipeline`.

        Raises:
            JournalError: The journal does not know the run, or it is running elsewhere; nothing has run.
        """
        journal = options.get("journal", self._recording.own)
        check_run_id(run_id, True, journal)
        if steps is None:
            steps = await self._recording.steps_of(run_id, journal)
        return await self.run(steps, inputs, **{**options, "run_id": run_id, "resume": True})

    async def story(
        self, run_id: str, path: str | os.PathLike[str] | None = None, *, journal: Journaling = None
    ) -> str:
        """
        Writes the story of any run that the journal knows, whoever ran it.

        Args:
            run_id: The run.
            path: The page; `None` for `story_<run_id>.html`.
            journal: The journal; `None` for the runner's own.

        Returns:
            The path in full.

        Raises:
            JournalError: The journal does not know the run, or cannot be read.
            OptionError: There is no journal.
        """
        asked = self._recording.asked(journal)
        check_run_id(run_id, True, asked)
        return await self._recording.story(run_id, asked, path)

    @property
    def has_journal(self) -> bool:
        """Whether its runs are recorded, unless they say otherwise."""
        return self._recording.own is not None

    async def journal(self, asked: Journaling = None) -> Journal | None:
        """A journal as the runs of this runner use it; `None` for the runner's own, where it has one."""
        asked = self._recording.asked(asked)
        if asked is None:
            return None
        self._at_home()
        return await self._recording.journal(asked)

    @property
    def observers(self) -> Sequence[Observer]:
        """Who hears the events of every run."""
        return self._observers

    async def start(
        self,
        steps: Steps,
        inputs: Mapping[str, Any] | None = None,
        *,
        log: Log | None = None,
        **options: Unpack[RunOptions],
    ) -> Run:
        """
        Starts a run in the background; the other arguments are those of `run_pipeline`.

        Args:
            steps: As for `run_pipeline`.
            inputs: As for `run_pipeline`.
            log: Keeps its events; `None` for a log that keeps all of them.
            **options: As for `run_pipeline`.

        Raises:
            GraphError: The steps do not make a pipeline; nothing was started.
            RunnerClosed: The runner takes no more runs.
        """
        log = EventLog() if log is None else log
        options["observers"] = (*options.get("observers", ()), log)
        execution = await self._prepared(steps, inputs, **options)
        return Run(execution, log, self._living(execution), functools.partial(self._forget, execution))

    async def stream(
        self, steps: Steps, inputs: Mapping[str, Any] | None = None, *, target: Any, **options: Unpack[RunOptions]
    ) -> AsyncGenerator[Any, None]:
        """
        Runs steps and yields what a target makes while it is made: the batches of a streaming step, the elements of a
        mapped one, the value of any other.

        The run waits for the loop that takes them. Leaving the loop cancels the run: at once when that is done with
        `async with contextlib.aclosing(runner.stream(...)) as batches`, else when the generator is let go of.

        Args:
            steps: As for `run_pipeline`.
            inputs: As for `run_pipeline`.
            target: The dataset: a name, a step or a function.
            **options: As for `run_pipeline`, but for `targets`.

        Raises:
            RunError: A step failed; what was made before was yielded.
            RunnerClosed: The runner takes no more runs.
        """
        outlet = Outlet()
        refuse("stream", [name for name in ("targets",) if name in options], ("target",), " There is one target=.")
        plans = await plan(steps, inputs, options.pop("functions", None), options.pop("nodes", None))
        if options.get("cache") is None and plans.caching is not None:
            options["cache"] = plans.caching
        pipeline, tap = tapped(Planned(plans.graph, plans.name, plans.planned.source), name_of(target), outlet)
        options["targets"] = [tap]
        execution = await self._prepared(pipeline, inputs, **options)
        self._recording.remember(plans.name, plans.planned)  # to be resumed without what hands it to this loop
        run = asyncio.get_running_loop().create_task(
            self._living(execution), name=f"odibi_async run {execution.run_id}"
        )
        run.add_done_callback(lambda _: outlet.close())
        try:
            async for made in outlet:
                yield made
            result = execution.judged(run.result())
            if not result.steps[tap].is_done:
                raise RunError(result.failures, result)
        finally:
            await ended(run, execution)
            self._forget(execution)

    async def _living(self, execution: Execution) -> RunResult:
        """The life of a run, during which the runner knows of it."""
        try:
            return await execution.run()
        finally:
            self._forget(execution)

    def _forget(self, execution: Execution) -> None:
        self._runs.discard(execution)
        if not self._runs and self._idle is not None:
            self._idle.set()
            self._idle = None

    async def _prepared(
        self,
        steps: Steps,
        inputs: Mapping[str, Any] | None,
        *,
        retry: Retry | None = None,
        timeout: float | None = None,
        on_error: OnError = "raise",
        run_id: str | None = None,
        resume: bool = False,
        journal: Journaling = None,
        **options: Any,
    ) -> Execution:
        known = RunOptions.__annotations__
        refuse("A run", [name for name in options if name not in known], known)
        policies = Policies.of(retry, timeout, on_error)
        journal = self._recording.asked(journal)
        check_run_id(run_id, resume, journal)
        asked = Asked(new_run_id() if run_id is None else run_id, resume, journal)
        home = self._at_home()
        await home.turns.take()
        execution = await self._preparation.execution(home, steps, inputs, asked, policies, **options)
        self._check_open()
        self._runs.add(execution)
        return execution

    def _check_open(self) -> None:
        if self._is_closed:
            raise RunnerClosed

    def _at_home(self) -> Home:
        """What belongs to the running loop."""
        self._check_open()
        return self._preparation.home(is_busy=bool(self._runs))


def new_run_id() -> str:
    """A name for a run that sorts by time: `20130101-120000-3fa9c2`."""
    return f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{os.urandom(3).hex()}"


_runners: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Runner] = weakref.WeakKeyDictionary()


def runner_of_loop() -> Runner:
    """The runner that all bare runs of one loop share."""
    loop = asyncio.get_running_loop()
    runner = _runners.get(loop)
    if runner is None:
        runner = _runners[loop] = Runner()
    return runner
