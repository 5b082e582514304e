"""The face: pipelines, and running them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, Never, Unpack

from odibi_async.abc import Executor, Observer
from odibi_async.building import Functions, Nodes, Planned, graph_of
from odibi_async.cancellation import CURRENT, on_cancel
from odibi_async.graph import terms as selection
from odibi_async.graph.drawing import boxes, dot, mermaid
from odibi_async.graph.node import Input
from odibi_async.graph.planning import Estimate, estimated
from odibi_async.graph.svg import svg
from odibi_async.limits import Limits
from odibi_async.result import RunResult
from odibi_async.retry import Retry
from odibi_async.run.policies import OnError
from odibi_async.runner import Caching, Runner, RunOptions, Steps, runner_of_loop
from odibi_async.runner.options import Journaling, refuse
from odibi_async.steps import Step

HEARS_SECONDS: Final = 0.1
"""How often a thread that waits for a run looks whether it is to be cancelled."""


class Pipeline(Planned):
    """
    Steps that were checked once and can be run many times, also at the same time.

    Args:
        steps: Steps, plain functions, and other pipelines, in any order.
        inputs: The names of the datasets that are given from outside.
        functions: Name -> function, for configured steps of type function and for their `when`.
        nodes: Layer -> what makes the callables of its configured steps (`odibi_async.abc.NodeType`).
        name: What a journal calls it; the names of its last steps when nothing is said.

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
        name: str = "",
    ) -> None:
        super().__init__(graph_of(steps, inputs, functions, nodes), name)

    @property
    def steps(self) -> tuple[Step[..., Any, Any], ...]:
        """The steps as they were declared."""
        return self.graph.steps

    @property
    def inputs(self) -> Mapping[str, Input]:
        """What may be given from outside, by name."""
        return self.graph.inputs

    def order(self) -> list[str]:
        """The steps' names in topological order, in that of their declaration where it is free."""
        return [self.graph.nodes[index].name for index in self.graph.order]

    def upstream(self) -> dict[str, list[str]]:
        """The name of each step -> those of the steps that it waits for."""
        return {name: list(step.upstream) for name, step in self.graph.outline.items()}

    def levels(self) -> list[list[str]]:
        """The steps' names by how many steps stand above them on the longest way."""
        levels: list[list[str]] = [[] for _ in range(1 + max(self.graph.levels))]
        for node, level in zip(self.graph.nodes, self.graph.levels, strict=True):
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
        chosen = selection.chosen(self.graph, terms, exclude)
        steps = [self.graph.nodes[index].step for index in chosen]
        part = Pipeline(selection.cut_loose(steps), selection.inputs_of(self.graph, chosen), name=self.name)
        part.source = self.source
        return part

    def prefixed(self, prefix: str) -> Pipeline:
        """The same pipeline with this text before the names of its steps, its datasets and its inputs."""
        declared = [name for name, entry in self.inputs.items() if entry.required]
        return Pipeline(selection.prefixed(self.graph, prefix), [prefix + name for name in declared])

    def to_mermaid(self) -> str:
        """The graph in the Mermaid language, one fill a layer."""
        return mermaid(self.graph.nodes, self.graph.upstream)

    def to_dot(self) -> str:
        """The graph in the DOT language of Graphviz, one fill a layer."""
        return dot(self.graph.nodes, self.graph.upstream)

    def to_svg(self) -> str:
        """
        The graph as an SVG document, from left to right, one fill a layer.

        Of more than 150 steps, those of one layer that stand close to each other are one box.
        """
        return svg(boxes(self.graph.nodes), self.graph.upstream)

    def _repr_html_(self) -> str:
        """What a notebook shows: the drawing."""
        return self.to_svg()

    def estimate(
        self,
        history: RunResult | Mapping[str, float | Sequence[float]],
        *,
        workers: int,
        sizes: Mapping[str, int] | None = None,
    ) -> Estimate:
        """
        How long a run would take with so many workers, by simulating it.

        Args:
            history: An earlier run, or step -> seconds; of a mapped step, the seconds of each element.
            workers: How many steps and elements run at a time.
            sizes: Dataset -> bytes, to find out what is held and moved.

        Raises:
            OptionError: The history lacks a step.
        """
        if isinstance(history, RunResult):
            history = {name: record.run_seconds for name, record in history.steps.items()}
        return estimated(self.graph, history, workers, sizes or {})

    def __repr__(self) -> str:
        return f"<Pipeline of {len(self.steps)} steps>"

    async def stream(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        target: Any,
        limits: Limits | None = None,
        **options: Unpack[RunOptions],
    ) -> AsyncGenerator[Any, None]:
        """
        Runs the steps and yields what a target makes while it is made, as `Runner.stream` does.

            async for batch in pipeline.stream({"path": "orders.csv"}, target="clean"):
                ...

        The other arguments are those of `run_pipeline`.
        """
        runner = runner_of_loop() if limits is None else Runner(limits=limits)
        streamed = runner.stream(self, inputs, target=target, **options)
        async with runner.borrowed(), contextlib.aclosing(streamed) as made:
            async for each in made:
                yield each

    async def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        limits: Limits | None = None,
        **options: Unpack[RunOptions],
    ) -> RunResult:
        """Runs the steps; the arguments are those of `run_pipeline`."""
        running = run_pipeline(self, inputs, limits=limits, **options)
        del inputs, options  # a frame of a traceback is to keep no data
        return await running


_AS_INPUT: Final = " What comes from outside is given as the second argument: run_pipeline(steps, {'path': ...})."


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
    run_id: str | None = None,
    resume: bool = False,
    journal: Journaling = None,
    executors: Mapping[str, Executor] | None = None,
    **unknown: Never,
) -> RunResult:
    """
    Runs steps in the running loop: each of them the moment its own inputs are there.

    Args:
        steps: A `Pipeline`, steps and functions in any order, or the path of a configuration file.
        inputs: Dataset -> value, for those that are given from outside; may stand in for a step's output.
        targets: The datasets wanted: names, steps or functions. Only what they need runs, and all else is
            dropped after its last reader. `None` keeps and returns every dataset.
        cache: What was computed before from the same content is not computed again: `True` for the user's cache, a
            directory, a `Cache`; `False` for none. `None` for what the configuration says, else the runner's.
        retry: For each step that brings no policy of its own, but those of layer publish.
        timeout: Seconds that the whole run may take.
        on_error: `"raise"`: the first failure cancels the rest. `"continue"`: whatever does not need what
            failed is done, and the result holds the failures.
        limits: How much may run at a time in this run; `None` for limits that all bare runs of the loop share.
        engine: For configured steps that name no engine: `"pandas"`, or a context made by `create_engine_context`,
            which then also serves all steps of its kind.
        functions: Name -> function, for configured steps of type function and for their `when`.
        nodes: Layer -> what makes the callables of its configured steps (`odibi_async.abc.NodeType`).
        observers: Callables that take an event (`odibi_async.events`).
        run_id: The run's name; `None` for one that sorts by time.
        resume: Whether the journal has a run of this name, which is to go on where it was. Without `inputs`, it gets
            those that it was given when it began.
        journal: What each step makes is recorded here: a directory, or a `Journal`.
        executors: Name -> executor, for steps whose `run_on` says the name: `{"dask": DaskExecutor(...)}`.
        **unknown: There is no other option; what comes closest is named.

    Raises:
        TypeError: There is an option that is none.
        ConfigError: The configuration file cannot be read, or says what cannot be; nothing has run.
        GraphError: The steps do not make a pipeline; nothing has run.
        RunError: A step failed, and `on_error` is `"raise"`.
        JournalError: The journal does not know the run that is to be resumed, or has one of this name already, or the
            run is running elsewhere, or the journal cannot be used; nothing has run.
        DeadlineError: The run did not end within `timeout`, whatever `on_error` says.
        asyncio.CancelledError: The caller was cancelled; every step has ended before it is raised.
    """
    if "IPython" in sys.modules and CURRENT.get() is None:
        from odibi_async.observers.notebook import live

        shown = live()
        if shown and isinstance(observers, Iterable):
            observers = (*observers, *shown)
    refuse("run_pipeline", unknown, (*RunOptions.__annotations__, "limits"), _AS_INPUT)
    runner = runner_of_loop() if limits is None else Runner(limits=limits)
    async with runner.borrowed():
        running = runner.run(
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
            run_id=run_id,
            resume=resume,
            journal=journal,
            executors=executors or {},
        )
        del steps, inputs  # a frame of a traceback is to keep no data
        return await running


def run_pipeline_sync(steps: Steps, inputs: Mapping[str, Any] | None = None, **options: Any) -> RunResult:
    """
    Runs steps and waits for the end, without `await`; the arguments are those of `run_pipeline`.

    Where a loop runs already in this thread, in a notebook say, the run gets a loop of its own in a
    thread of its own, and the calling loop stands still until it is over: prefer `await run_pipeline` there.
    The cancellation of a blocking step that calls this cancels the run.
    """
    run: Callable[[], Any] = functools.partial(_cancellable, steps, inputs, options)
    try:
        task = asyncio.current_task()
    except RuntimeError:
        result: RunResult = asyncio.run(run())
        return result
    import anyio.from_thread  # 7 ms to import, for those without a loop of their own

    context = contextvars.copy_context()
    with anyio.from_thread.start_blocking_portal() as portal:
        return _awaited(context.run(portal.start_task_soon, run), task)


async def _cancellable(steps: Steps, inputs: Mapping[str, Any] | None, options: Mapping[str, Any]) -> RunResult:
    """Runs steps, as a part of the blocking step that this was called from, if it was."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    is_told = False

    def cancel() -> None:  # called again and again, but clean-ups are not to be cut
        nonlocal is_told
        if not is_told:
            is_told = True
            loop.call_soon_threadsafe(task.cancel)

    with on_cancel(cancel):
        return await run_pipeline(steps, inputs, **options)


def _awaited(future: Future[RunResult], task: asyncio.Task[Any] | None) -> RunResult:
    """
    The result of a run in another thread.

    The first Ctrl-C only asks the waiting task to cancel itself, which it cannot hear while its loop stands still.
    """
    before = 0 if task is None else task.cancelling()
    while True:
        try:
            return future.result(timeout=HEARS_SECONDS)
        except TimeoutError:
            if future.done():  # it is the run's own
                raise
            if task is not None and task.cancelling() > before:
                future.cancel()
                raise asyncio.CancelledError from None
