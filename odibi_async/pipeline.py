"""The face: pipelines, and running them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import importlib
import os
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypedDict, TypeVar, Unpack

import anyio
import anyio.to_thread

from odibi_async.abc import NodeType, Observer
from odibi_async.engines import ENGINES, create_engine_context
from odibi_async.errors import DeadlineError, GraphError, GraphFault, OptionError, RunCancelled, RunError, did_you_mean
from odibi_async.events import Event
from odibi_async.executors.threads import Threads
from odibi_async.graph import terms as selection
from odibi_async.graph.graph import Graph, Input
from odibi_async.limits import Limits, default_threads, usable_cpus
from odibi_async.result import RunResult, Status
from odibi_async.retry import Retry
from odibi_async.run.execution import Execution, OnError, Policies
from odibi_async.run.slots import Gate
from odibi_async.steps import Step, is_async

if TYPE_CHECKING:
    from odibi_async.cache import Cache
    from odibi_async.cache.for_run import Caches  # loads what runs without a cache do without

T = TypeVar("T")
Caching: TypeAlias = "bool | str | os.PathLike[str] | Cache | None"
Functions: TypeAlias = Mapping[str, Callable[..., Any]]
Nodes: TypeAlias = Mapping[str, NodeType]
Steps: TypeAlias = "Pipeline | Iterable[Any] | str | os.PathLike[str]"


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


class Pipeline:
    """
    Steps that were checked once and can be run many times, also at the same time.

    Args:
        steps: Steps, plain functions, and other pipelines, in any order.
        inputs: The names of the datasets that are given from outside.
        functions: Name -> function, for configured steps of type function and for their `when`.
        nodes: Layer -> what makes the callables of its configured steps (`odibi_async.abc.NodeType`).

    Raises:
        GraphError: With all the faults that there are, each with what would have been right.
    """

    def __init__(
        self,
        steps: Iterable[Any],
        inputs: Iterable[str] = (),
        *,
        functions: Functions | None = None,
        nodes: Nodes | None = None,
    ) -> None:
        steps, faults = list(_unfolded(steps)), list[GraphFault]()
        if any([isinstance(each, Step) and each.is_configured for each in steps]):  # noqa: C419 (twice as fast)
            from odibi_async.config.nodes import compiled  # 3 ms to import, for those who have a configuration

            steps, faults = compiled(steps, functions, nodes)
        self._graph = Graph(steps, inputs, faults)

    @property
    def steps(self) -> tuple[Step[..., Any, Any], ...]:
        """The steps as they were declared."""
        return self._graph.steps

    @property
    def inputs(self) -> Mapping[str, Input]:
        """What may be given from outside, by name."""
        return self._graph.inputs

    def order(self) -> list[str]:
        """The steps' names in topological order, in that of their declaration where it is free."""
        return [self._graph.nodes[index].name for index in self._graph.order]

    def upstream(self) -> dict[str, list[str]]:
        """The name of each step -> those of the steps that it waits for."""
        return {name: list(step.upstream) for name, step in self._graph.outline.items()}

    def levels(self) -> list[list[str]]:
        """The steps' names by how many steps stand above them on the longest way."""
        levels: list[list[str]] = [[] for _ in range(1 + max(self._graph.levels))]
        for node, level in zip(self._graph.nodes, self._graph.levels, strict=True):
            levels[level].append(node.name)
        return levels

    def select(self, *terms: str, exclude: Sequence[str] = ()) -> Pipeline:
        """
        The part of the pipeline that any of the terms names, as a pipeline of its own.

        What its steps read of the others becomes an input, but for resources, which come along. An `after=` that
        names one of the others is dropped.

        Args:
            *terms: The name of a step, with `*` for any letters; `tag:x`; `layer:x`. A `+` before it takes all
                that it needs too, a `+` behind it all that needs it.
            exclude: Terms for what is left out again, of all that there is when nothing else is said.

        Raises:
            GraphError: A term names nothing, or nothing is left.
        """
        chosen = selection.chosen(self._graph, terms, exclude)
        steps = [self._graph.nodes[index].step for index in chosen]
        return Pipeline(selection.cut_loose(steps), selection.inputs_of(self._graph, chosen))

    def prefixed(self, prefix: str) -> Pipeline:
        """The same pipeline with this text before the names of its steps, its datasets and its inputs."""
        declared = [name for name, entry in self.inputs.items() if entry.required]
        return Pipeline(selection.prefixed(self._graph, prefix), [prefix + name for name in declared])

    def to_mermaid(self) -> str:
        """The graph in the Mermaid language, coloured by layer."""
        return self._graph.to_mermaid()

    def __repr__(self) -> str:
        return f"<Pipeline of {len(self.steps)} steps>"

    async def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        limits: Limits | None = None,
        **options: Unpack[RunOptions],
    ) -> RunResult:
        """Runs the steps; the arguments are those of `run_pipeline`."""
        return await run_pipeline(self, inputs, limits=limits, **options)


class Runner:
    """
    What outlives one run: the limits that its runs share, and the observers of all of them.

    Use it in one event loop: `async with Runner(limits=...) as runner`. Leaving the block cancels the runs that
    were started and are not over, and closes the engines that the runner made.

    Args:
        limits: How much may run at a time, over all runs.
        cache: For runs that name no other; see `run_pipeline`.
        observers: They hear the events of every run.
    """

    def __init__(
        self, *, limits: Limits | None = None, cache: Caching = None, observers: Sequence[Observer] = ()
    ) -> None:
        if limits is not None and not isinstance(limits, Limits):
            raise OptionError(f"limits={limits!r}: Limits(...) are needed.")
        self.limits = limits or Limits()
        self._observers = _checked(observers)
        self._gate = Gate(self.limits)
        self._threads: Threads | None = None
        self._counting_cpus = asyncio.Lock()
        self._runs: set[Run] = set()
        self._engines = Engines(self.limits)
        self._caching = _check_cache(cache)
        self._caches: Caches | None = None
        self._borrowers = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for run in list(self._runs):
            await run.cancel()
        await self._close()

    async def _close(self) -> None:
        await self._engines.close()
        if self._caches is not None:
            await self._caches.close()

    @contextlib.asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[Self]:
        """A use of a runner that nobody owns: after the last one, what it opened is closed."""
        self._borrowers += 1
        try:
            yield self
        finally:
            self._borrowers -= 1
            if not self._borrowers:
                await self._close()

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """The runner's life as an ASGI lifespan: `FastAPI(lifespan=runner.lifespan)`."""
        async with self:
            yield

    async def run(
        self, steps: Steps, inputs: Mapping[str, Any] | None = None, **options: Unpack[RunOptions]
    ) -> RunResult:
        """Runs steps and waits for the end; the arguments are those of `run_pipeline`."""
        execution = await self._prepared(steps, inputs, **options)
        return _judged(execution, await execution.run())

    async def start(self, steps: Steps, inputs: Mapping[str, Any] | None = None, **options: Unpack[RunOptions]) -> Run:
        """
        Starts a run in the background; the arguments are those of `run_pipeline`.

        Raises:
            GraphError: The steps do not make a pipeline; nothing was started.
        """
        log = EventLog()
        options["observers"] = (*options.get("observers", ()), log)
        run = Run(await self._prepared(steps, inputs, **options), log)
        self._runs.add(run)
        run._task.add_done_callback(lambda _: self._runs.discard(run))
        return run

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
        if inputs is not None and not isinstance(inputs, Mapping):
            raise OptionError(f"inputs={inputs!r}: a mapping of datasets to values is needed.")
        pipeline, documented = await _pipeline_of(steps, inputs, functions, nodes)
        caching = next((each for each in (cache, documented, self._caching) if each is not None), None)
        given = dict(inputs or {})
        graph = pipeline._graph
        selected = graph.select(given, targets)
        self._check_pools(graph)
        _check_engine(engine)
        for name, dataset in graph.engines.items():
            if selected.uses[graph.ids[dataset]]:
                given[dataset] = await self._engines.context(name, engine)
        return (await self._kind_of_run(caching, graph))(
            graph,
            selected,
            given,
            run_id=new_run_id(),
            policies=policies,
            threads=self._threads or await self._workers(),
            gate=self._gate,
            observers=(*self._observers, *_checked(observers)),
        )

    async def _kind_of_run(self, caching: Caching, graph: Graph) -> Callable[..., Execution]:
        """What makes a run: one with this cache, or one without."""
        _check_cache(caching)
        if caching is None or caching is False:
            return Execution
        if self._caches is None:  # those who have a cache wait 50 ms, once
            await _in_a_thread(importlib.import_module, "odibi_async.cache.cached_run")
        from odibi_async.cache.cached_run import CachedExecution
        from odibi_async.cache.for_run import Caches

        self._caches = self._caches or Caches(self.limits.grace)
        return functools.partial(CachedExecution, cache=self._caches.for_run(caching, graph))

    def _check_pools(self, graph: Graph) -> None:
        known = self._gate.pools
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

    async def _workers(self) -> Threads:
        async with self._counting_cpus:
            if self._threads is None:
                count = self.limits.threads
                if count is None:
                    count = await anyio.to_thread.run_sync(default_threads, limiter=anyio.CapacityLimiter(1))
                self._threads = Threads(count, self.limits.grace)
        return self._threads


class Engines:
    """The engines' contexts that a runner makes within its limits when a run needs them, one of a kind."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._contexts: dict[str, Any] = {}
        self._lock = asyncio.Lock()

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
        async with self._lock:
            if name not in self._contexts:
                self._contexts[name] = await _in_a_thread(self._new_context, name)
            return self._contexts[name]

    def _new_context(self, name: str) -> Any:
        limits = self._limits
        threads = limits.threads or usable_cpus()
        return create_engine_context(
            name, threads=threads, memory_limit=limits.memory, temp_directory=limits.temp_directory
        )

    async def close(self) -> None:
        contexts, self._contexts = self._contexts, {}
        for context in contexts.values():
            with anyio.CancelScope(shield=True):
                await _in_a_thread(context.close)


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


async def _pipeline_of(
    steps: Steps, inputs: Mapping[str, Any] | None, functions: Functions | None, nodes: Nodes | None
) -> tuple[Pipeline, Caching]:
    """
    The pipeline, made of its steps, or of those in a configuration, which is read in a worker thread; and the cache
    that the configuration names.
    """
    if isinstance(steps, Pipeline):
        if functions is not None or nodes is not None:
            raise OptionError("A Pipeline has its functions and nodes already: give them to Pipeline(...).")
        return steps, None
    if not isinstance(steps, Iterable | str | os.PathLike):
        raise OptionError(f"steps={steps!r}: a list of steps is needed, also for a single one.")
    things, caching = await _in_a_thread(_loaded, steps) if isinstance(steps, str | os.PathLike) else (steps, None)
    return Pipeline(things, inputs or (), functions=functions, nodes=nodes), caching


def _loaded(path: str | os.PathLike[str]) -> tuple[Sequence[Step[..., Any, Any]], Caching]:
    from odibi_async.config import load_document  # loads pydantic

    document = load_document(path)
    return document.steps, document.cache


async def _in_a_thread(call: Callable[..., T], *args: Any) -> T:
    """Calls what takes long, or imports a lot, beside the steps' own threads."""
    return await anyio.to_thread.run_sync(call, *args, limiter=anyio.CapacityLimiter(1))


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
            await self._news.wait()


class Run:
    """
    A run in the background, made by `Runner.start`.

    Attributes:
        id: Its name.
    """

    def __init__(self, execution: Execution, log: EventLog) -> None:
        self.id = execution.run_id
        self._execution = execution
        self._log = log
        self._task = asyncio.get_running_loop().create_task(self._live(), name=f"odibi_async run {self.id}")

    async def _live(self) -> RunResult:
        try:
            return await self._execution.run()
        finally:
            self._log.close()

    @property
    def status(self) -> Status:
        """`running`, or how it ended."""
        if not self._task.done():
            return Status.RUNNING
        return Status.CANCELLED if self._task.cancelled() else self._task.result().status

    async def events(self) -> AsyncIterator[Event]:
        """Its events from the first one on, until it is over; any number may listen."""
        async for event in self._log.stream():
            yield event

    async def cancel(self) -> None:
        """Cancels it and waits until every step has ended; does nothing if it is over."""
        self._execution.cancel()
        await asyncio.wait([self._task])

    async def result(self) -> RunResult:
        """
        Waits for its end. Cancelling the waiting task does not cancel the run.

        Raises:
            RunError: A step failed, and `on_error` is `"raise"`.
            DeadlineError: It did not end in its time.
            RunCancelled: It was cancelled.
        """
        await asyncio.wait([self._task])
        if self._task.cancelled():
            raise asyncio.CancelledError(f"run {self.id} was cancelled from outside")
        return _judged(self._execution, self._task.result())


def _judged(execution: Execution, result: RunResult) -> RunResult:
    """The result, unless it is to be raised."""
    timeout = execution.policies.timeout
    if execution.was_cancelled:
        raise RunCancelled(result.failures, result)
    if execution.deadline_passed and timeout is not None:
        raise DeadlineError(timeout, result.failures, result)
    if result.failures and execution.policies.on_error == "raise":
        raise RunError(result.failures, result)
    return result


async def run_pipeline(
    steps: Steps,
    inputs: Mapping[str, Any] | None = None,
    *,
    targets: Iterable[Any] | None = None,
    cache: Caching = None,
    retry: Retry | None = None,
    timeout: float | None = None,
    on_error: OnError = "raise",
    limits: Limits | None = None,
    engine: Any = None,
    functions: Functions | None = None,
    nodes: Nodes | None = None,
    observers: Sequence[Observer] = (),
) -> RunResult:
    """
    Runs steps in the running loop: each of them the moment its own inputs are there.

    Args:
        steps: A `Pipeline`, steps and functions in any order, or the path of a configuration file.
        inputs: Dataset -> value, for those that are given from outside; may stand in for a step's output.
        targets: The datasets wanted: names, steps or functions. Only what they need runs, and all else is
            dropped after its last reader. `None` keeps and returns every dataset.
        cache: What was computed before from the same content is not computed again: `True` for the user's cache
            directory, another directory, or a `Cache`; `False` for none. `None` for what the configuration says, else
            the runner's.
        retry: For each step that brings no policy of its own, but those of layer publish.
        timeout: Seconds that the whole run may take.
        on_error: `"raise"`: the first failure cancels the rest. `"continue"`: whatever does not need what
            failed is done, and the result tells of the failures.
        limits: How much may run at a time in this run; `None` for limits that all bare runs of the loop share.
        engine: For configured steps that name no engine: `"pandas"`, or a context made by `create_engine_context`,
            which then also serves all steps of its kind.
        functions: Name -> function, for configured steps of type function and for their `when`.
        nodes: Layer -> what makes the callables of its configured steps (`odibi_async.abc.NodeType`).
        observers: Callables that take an event (`odibi_async.events`).

    Raises:
        ConfigError: The configuration file cannot be read, or says what cannot be; nothing has run.
        GraphError: The steps do not make a pipeline; nothing has run.
        RunError: A step failed, and `on_error` is `"raise"`.
        DeadlineError: The run did not end within `timeout`, whatever `on_error` says.
        asyncio.CancelledError: The caller was cancelled; every step has ended before it is raised.
    """
    runner = _runner_of_loop() if limits is None else Runner(limits=limits)
    async with runner._borrowed():
        return await runner.run(
            steps,
            inputs,
            targets=targets,
            cache=cache,
            retry=retry,
            timeout=timeout,
            on_error=on_error,
            engine=engine,
            functions=functions,
            nodes=nodes,
            observers=observers,
        )


def run_pipeline_sync(steps: Steps, inputs: Mapping[str, Any] | None = None, **options: Any) -> RunResult:
    """
    Runs steps and waits for the end, without `await`; the arguments are those of `run_pipeline`.

    Where a loop runs already in this thread, in a notebook say, the run gets a loop of its own in a
    thread of its own, and the calling loop stands still until it is over: prefer `await run_pipeline` there.
    """
    if not _is_in_a_loop():
        return asyncio.run(run_pipeline(steps, inputs, **options))
    import anyio.from_thread  # 7 ms to import, for those without a loop of their own

    context = contextvars.copy_context()
    with anyio.from_thread.start_blocking_portal() as portal:
        run: Callable[[], Any] = functools.partial(run_pipeline, steps, inputs, **options)
        result: RunResult = context.run(portal.start_task_soon, run).result()
        return result


def _is_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def new_run_id() -> str:
    """A name for a run that sorts by time: `20130101-120000-3fa9c2`."""
    return f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{os.urandom(3).hex()}"


def _unfolded(steps: Iterable[Any]) -> Iterable[Any]:
    """The steps, with those of a pipeline in its place."""
    for each in steps:
        if isinstance(each, Pipeline):
            yield from each.steps
        else:
            yield each


def _checked(observers: Iterable[Observer]) -> Sequence[Observer]:
    if not isinstance(observers, Iterable):
        raise OptionError(f"observers={observers!r}: a list of observers is needed, also for a single one.")
    observers = tuple(observers)
    for observer in observers:
        if not callable(observer) or is_async(observer):
            raise OptionError(f"An observer is a plain callable that takes an event; {observer!r} is not.")
    return observers


_runners: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Runner] = weakref.WeakKeyDictionary()


def _runner_of_loop() -> Runner:
    """The runner that all bare runs of one loop share."""
    loop = asyncio.get_running_loop()
    runner = _runners.get(loop)
    if runner is None:
        runner = _runners[loop] = Runner()
    return runner
