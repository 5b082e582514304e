"""What outlives one run, and the one place where a run is put together."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import importlib
import logging
import os
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypedDict, TypeVar, Unpack

import anyio
import anyio.to_thread

from odibi_async.abc import Observer
from odibi_async.building import Functions, Nodes, Planned, graph_of
from odibi_async.cancellation import CURRENT, waiting
from odibi_async.dataset import KINDS
from odibi_async.engines import ENGINES, create_engine_context
from odibi_async.errors import GraphError, GraphFault, OptionError, RunnerClosed, did_you_mean, with_article
from odibi_async.events import Event
from odibi_async.executors.threads import Threads
from odibi_async.graph.graph import Graph
from odibi_async.limits import Limits, default_threads, usable_cpus
from odibi_async.result import RunResult, Status
from odibi_async.retry import Retry
from odibi_async.run.composition import Inside
from odibi_async.run.execution import Execution
from odibi_async.run.layers import Guest
from odibi_async.run.policies import OnError, Policies
from odibi_async.run.slots import Slots
from odibi_async.steps import Step, is_async

if TYPE_CHECKING:
    from odibi_async.cache import Cache  # loads what runs without a cache do without
    from odibi_async.cache.for_run import Caches

T = TypeVar("T")
Caching: TypeAlias = "bool | str | os.PathLike[str] | Cache | None"
Steps: TypeAlias = "Planned | Iterable[Any] | str | os.PathLike[str]"
AT_A_TURN = 8
"""How many runs are taken up at a turn of the loop: each takes 0.1 to 0.3 ms to put together."""
_log = logging.getLogger("odibi_async")


class RunOptions(TypedDict, total=False):
    """What says how a run goes; `run_pipeline` tells what each of them means."""

    targets: Iterable[Any] | None
    cache: Caching
    retry: Retry | None
    timeout: float | None
    on_error: OnError
    engine: Any
    functions: Functions | None
    nodes: Nodes | None
    observers: Sequence[Observer]


class Runner:
    """
    What outlives one run: the limits that its runs share, and the observers of all of them.

    `async with Runner(limits=...) as runner`: leaving the block closes it, see `close`. It belongs to the event loop
    that its runs are in; when none is, another loop may use it.

    Args:
        limits: How much may run at a time, over all runs.
        cache: For runs that name no other; see `run_pipeline`.
        observers: They hear the events of every run.
        drain: Seconds that runs have to end by themselves when the block is left, before they are cancelled.
        freeze: Whether what is in memory when the block is entered is hidden from the garbage collector until it is
            left (`gc.freeze`): in a service with much that lives long, full collections are the longest stalls.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        cache: Caching = None,
        observers: Sequence[Observer] = (),
        drain: float = 0.0,
        freeze: bool = False,
    ) -> None:
        if limits is not None and not isinstance(limits, Limits):
            raise OptionError(f"limits={limits!r}: Limits(...) are needed.")
        if not drain >= 0:
            raise OptionError(f"drain={drain!r}: seconds from 0 on are needed.")
        self.limits = limits or Limits()
        self.drain = drain
        self.freeze = freeze
        self._observers = _checked(observers)
        self._caching = _check_cache(cache)
        self._engines = Engines(self.limits)
        self._runs: set[Execution] = set()
        self._idle: asyncio.Event | None = None
        self._is_closed = False
        self._borrowers = 0
        self._home: Home | None = None
        self._caches: Caches | None = None

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

        If the waiting task is cancelled meanwhile, it waits to the end all the same.

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
        await self._release()
        if cancelled is not None:
            raise cancelled

    async def _until_idle(self) -> None:
        while self._runs:
            self._idle = self._idle or asyncio.Event()
            await self._idle.wait()

    async def _release(self) -> None:
        """Closes what was opened for runs."""
        await self._engines.close()
        if self._caches is not None:
            await self._caches.close()

    @contextlib.asynccontextmanager
    async def borrowed(self) -> AsyncIterator[Self]:
        """A use of a runner that nobody owns: after the last one, what it opened is closed."""
        self._borrowers += 1
        try:
            yield self
        finally:
            self._borrowers -= 1
            if not self._borrowers:
                await self._release()

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

    async def start(self, steps: Steps, inputs: Mapping[str, Any] | None = None, **options: Unpack[RunOptions]) -> Run:
        """
        Starts a run in the background; the arguments are those of `run_pipeline`.

        Raises:
            GraphError: The steps do not make a pipeline; nothing was started.
            RunnerClosed: The runner takes no more runs.
        """
        log = EventLog()
        options["observers"] = (*options.get("observers", ()), log)
        execution = await self._prepared(steps, inputs, **options)
        return Run(execution, log, self._living(execution), functools.partial(self._forget, execution))

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
        targets: Iterable[Any] | None = None,
        cache: Caching = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        on_error: OnError = "raise",
        engine: Any = None,
        functions: Functions | None = None,
        nodes: Nodes | None = None,
        observers: Sequence[Observer] = (),
    ) -> Execution:
        policies = Policies.of(retry, timeout, on_error)
        home = self._at_home()
        await home.turns.take()
        if inputs is not None and not isinstance(inputs, Mapping):
            raise OptionError(f"inputs={inputs!r}: a mapping of datasets to values is needed.")
        graph, documented = await _graph_of(steps, inputs, functions, nodes)
        caching = next((each for each in (cache, documented, self._caching) if each is not None), None)
        given = dict(inputs or {})
        _check_given(given)
        selected = graph.select(given, targets)
        self._check_pools(graph)
        _check_engine(engine)
        for name, dataset in graph.engines.items():
            if selected.uses[graph.ids[dataset]]:
                given[dataset] = await self._engines.context(name, engine)
        guests = await self._guests(caching, graph)
        threads = home.threads or await home.workers()
        self._check_open()
        execution = Execution(
            graph,
            selected,
            given,
            run_id=new_run_id(),
            policies=policies,
            threads=threads,
            slots=home.slots,
            observers=(*self._observers, *_checked(observers)),
            guests=guests,
        )
        self._runs.add(execution)
        return execution

    def _check_open(self) -> None:
        if self._is_closed:
            raise RunnerClosed

    def _at_home(self) -> Home:
        """What belongs to the running loop."""
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._home is None or self._home.loop() is not loop:
            if self._runs:
                raise OptionError(
                    "This runner has runs in another event loop: wait until they have ended, or use another Runner."
                )
            self._home = Home(self.limits)
            self._caches = None
        return self._home

    async def _guests(self, caching: Caching, graph: Graph) -> Sequence[Callable[[Inside], Guest]]:
        """What makes the layers of a run: one with this cache, or none."""
        _check_cache(caching)
        if caching is None or caching is False:
            return ()
        if self._caches is None:  # those who have a cache wait 50 ms, once
            await _in_a_thread(importlib.import_module, "odibi_async.cache.layer")
        from odibi_async.cache.for_run import Caches
        from odibi_async.cache.layer import CacheLayer

        self._caches = self._caches or Caches(self.limits.grace)
        return (functools.partial(CacheLayer, self._caches.for_run(caching, graph)),)

    def _check_pools(self, graph: Graph) -> None:
        known = self.limits.pools
        faults = [
            GraphFault(
                "OA214",
                f"Step {step!r} takes a slot of pool {pool!r}, which the limits do not know.{did_you_mean(pool, known)}"
                f" Known pools: {', '.join(sorted(known)) or 'none; give them with Limits(pools={...})'}.",
                step,
                ("pool",),
            )
            for pool, step in graph.pools.items()
            if pool not in known
        ]
        if faults:
            raise GraphError(faults)


class Home:
    """
    What a runner has of one event loop.

    Attributes:
        loop: That loop, while there is one.
        slots: Who may start when not all may.
        threads: The worker threads; `None` before the first run.
        turns: Lets in some runs at a turn of the loop.
    """

    def __init__(self, limits: Limits) -> None:
        self.loop = weakref.ref(asyncio.get_running_loop())  # a loop may keep its runner, which must not keep it
        self.slots = Slots(limits)
        self.threads: Threads | None = None
        self.turns = Turns(AT_A_TURN)
        self._limits = limits
        self._counting: asyncio.Task[int] | None = None

    async def workers(self) -> Threads:
        """The worker threads; the first time, files may be read to find out how many there are to be."""
        if self._counting is None:
            self._counting = asyncio.create_task(self._count())
        count = await asyncio.shield(self._counting)
        self.threads = self.threads or Threads(count, self._limits.grace)
        return self.threads

    async def _count(self) -> int:
        try:
            count = self._limits.threads
            return await _in_a_thread(default_threads) if count is None else count
        finally:
            self._counting = None  # a task keeps its loop


class Turns:
    """Lets in a number of callers at a turn of the loop; the others wait for the next ones, in order."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._left = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Returns when it is the caller's turn, mostly at once."""
        if self._left == self._count:
            asyncio.get_running_loop().call_soon(self._renew)
        if self._left:
            self._left -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def _renew(self) -> None:
        self._left = self._count
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._renew)
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._left -= 1


class Engines:
    """The engines' contexts that a runner makes within its limits when a run needs them, one of a kind."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._contexts: dict[str, Any] = {}
        self._making: dict[str, asyncio.Task[Any]] = {}

    async def context(self, name: str | None, preferred: Any) -> Any:
        """
        The context for steps of one engine.

        Args:
            name: What the steps say; `None` where they leave it to the run.
            preferred: What the run says: the name of an engine, a context, or `None`.
        """
        if preferred is not None and not isinstance(preferred, str) and name in (None, preferred.name):
            return preferred
        if name is None:
            name = preferred or "pandas"
        while name not in self._contexts:
            making = self._making.get(name)
            if making is None:
                making = self._making[name] = asyncio.create_task(self._make(name))
            await asyncio.shield(making)
        return self._contexts[name]

    async def _make(self, name: str) -> None:
        try:
            self._contexts[name] = await _in_a_thread(self._new_context, name)
        finally:
            del self._making[name]

    def _new_context(self, name: str) -> Any:
        limits = self._limits
        threads = limits.threads or usable_cpus()
        return create_engine_context(
            name, threads=threads, memory_limit=limits.memory, temp_directory=limits.temp_directory
        )

    async def close(self) -> None:
        """Closes them; a run that comes later gets others."""
        contexts, self._contexts = self._contexts, {}
        for context in contexts.values():
            with anyio.CancelScope(shield=True):
                await _in_a_thread(context.close)


def _check_given(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        kind = KINDS[type(value)]
        if kind is not None and kind.refused:
            raise OptionError(f"Input {name!r} is {with_article(type(value).__name__)}, {kind.refused}")


def _check_cache(cache: Caching) -> Caching:
    if cache is None or isinstance(cache, bool | str | os.PathLike) or hasattr(cache, "lookup"):
        return cache
    raise OptionError(f"cache={cache!r}: True, False, a directory or a Cache(...) is needed.")


def _check_engine(engine: Any) -> None:
    if isinstance(engine, str):
        if engine not in ENGINES:
            raise OptionError(f"engine={engine!r} is none of {', '.join(ENGINES)}.{did_you_mean(engine, ENGINES)}")
    elif engine is not None and not isinstance(getattr(engine, "name", None), str):
        raise OptionError(f"engine={engine!r} is neither a name nor a context made by create_engine_context().")


async def _graph_of(
    steps: Steps, inputs: Mapping[str, Any] | None, functions: Functions | None, nodes: Nodes | None
) -> tuple[Graph, Caching]:
    """
    The graph of the steps, or of those in a configuration, which is read in a worker thread; and the cache that the
    configuration names.
    """
    if isinstance(steps, Planned):
        if functions is not None or nodes is not None:
            raise OptionError("A Pipeline has its functions and nodes already: give them to Pipeline(...).")
        return steps.graph, None
    if not isinstance(steps, Iterable | str | os.PathLike):
        raise OptionError(f"steps={steps!r}: a list of steps is needed, also for a single one.")
    things, caching = await _in_a_thread(_loaded, steps) if isinstance(steps, str | os.PathLike) else (steps, None)
    return graph_of(things, inputs or (), functions, nodes), caching


def _loaded(path: str | os.PathLike[str]) -> tuple[Sequence[Step[..., Any, Any]], Caching]:
    from odibi_async.config import load_document  # loads pydantic

    document = load_document(path)
    return document.steps, document.cache


async def _in_a_thread(call: Callable[..., T], *args: Any) -> T:
    """Calls what takes long, or imports a lot, beside the steps' own threads."""
    return await anyio.to_thread.run_sync(call, *args, limiter=anyio.CapacityLimiter(1))


def new_run_id() -> str:
    """A name for a run that sorts by time: `20130101-120000-3fa9c2`."""
    return f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{os.urandom(3).hex()}"


def _checked(observers: Iterable[Observer]) -> Sequence[Observer]:
    if not isinstance(observers, Iterable):
        raise OptionError(f"observers={observers!r}: a list of observers is needed, also for a single one.")
    observers = tuple(observers)
    for observer in observers:
        if not callable(observer) or is_async(observer):
            raise OptionError(f"An observer is a plain callable that takes an event; {observer!r} is not.")
    return observers


class EventLog(list[Event]):
    """An observer that keeps the events of a run for those who listen, from the first one on."""

    def __init__(self) -> None:
        super().__init__()
        self._news = asyncio.Event()
        self.is_over = False

    def __call__(self, event: Event) -> None:
        self.append(event)
        self._wake()

    def close(self) -> None:
        self.is_over = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def stream(self) -> AsyncIterator[Event]:
        """Every event, those that come later as they come."""
        heard = 0
        while True:
            while heard < len(self):
                yield self[heard]
                heard += 1
            if self.is_over:
                return
            async with waiting():
                await self._news.wait()


class Run:
    """
    A run in the background, made by `Runner.start`.

    One that fails is logged when nobody has asked for its result by the time it is let go of.

    Attributes:
        id: Its name.
    """

    def __init__(
        self,
        execution: Execution,
        log: EventLog,
        life: Coroutine[Any, Any, RunResult],
        on_over: Callable[[], None],
    ) -> None:
        self.id = execution.run_id
        self._execution = execution
        self._log = log
        self._asked = asked = Asked()

        def over(task: asyncio.Task[RunResult]) -> None:
            life.close()  # its task may have been cancelled before its first turn
            on_over()
            log.close()
            asked.complain(execution, task)

        self._task = asyncio.get_running_loop().create_task(life, name=f"odibi_async run {self.id}")
        self._task.add_done_callback(over)

    @property
    def status(self) -> Status:
        """`running`, or how it ended."""
        if not self._task.done():
            return Status.RUNNING
        if self._task.cancelled():
            return Status.CANCELLED
        return Status.FAILED if self._task.exception() is not None else self._task.result().status

    async def events(self) -> AsyncIterator[Event]:
        """Its events from the first one on, until it is over; any number may listen."""
        async for event in self._log.stream():
            yield event

    async def cancel(self) -> None:
        """Cancels it and waits until every step has ended; does nothing if it is over."""
        self._asked.is_asked = True
        self._execution.cancel()
        async with waiting():
            await asyncio.wait([self._task])

    async def result(self) -> RunResult:
        """
        Waits for its end. Cancelling the waiting task does not cancel the run.

        Raises:
            RunError: A step failed, and `on_error` is `"raise"`.
            DeadlineError: It did not end in its time.
            RunCancelled: It was cancelled.
        """
        self._asked.is_asked = True
        async with waiting():
            await asyncio.wait([self._task])
        if self._task.cancelled():
            raise asyncio.CancelledError(f"run {self.id} was cancelled from outside")
        return self._execution.judged(self._task.result())

    def __del__(self) -> None:
        self._asked.is_gone = True
        if self._task.done():
            self._asked.complain(self._execution, self._task)


class Asked:
    """Whether anybody has asked for the result of a run, or still can."""

    __slots__ = ("is_asked", "is_gone")

    def __init__(self) -> None:
        self.is_asked = False
        self.is_gone = False

    def complain(self, execution: Execution, task: asyncio.Task[RunResult]) -> None:
        """Logs the failure of a run that is over, if nobody will ever ask for it."""
        if self.is_asked or not self.is_gone or task.cancelled():
            return
        error = task.exception()
        if error is None:
            if not execution.is_failure(task.result()):
                return
            error = next((failure.error for failure in task.result().failures.values()), None)
        _log.error("Run %s failed, and nobody asked for its result.", execution.run_id, exc_info=error)


_runners: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Runner] = weakref.WeakKeyDictionary()


def runner_of_loop() -> Runner:
    """The runner that all bare runs of one loop share."""
    loop = asyncio.get_running_loop()
    runner = _runners.get(loop)
    if runner is None:
        runner = _runners[loop] = Runner()
    return runner
