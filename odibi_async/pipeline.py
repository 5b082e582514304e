"""The face: pipelines, and running them."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, get_args

from odibi_async._run import Execution, OnError, Policies
from odibi_async.abc import Observer
from odibi_async.errors import DeadlineError, OptionError, RunError, did_you_mean
from odibi_async.executors.local import Threads
from odibi_async.graph import Graph, Input
from odibi_async.result import RunResult
from odibi_async.retry import Retry
from odibi_async.steps import Step, is_async

GRACE_SECONDS = 5.0


class Pipeline:
    """
    Steps that were checked once and can be run many times, also at the same time.

    Args:
        steps: Steps or plain functions, in any order.
        inputs: The names of the datasets that are given from outside.

    Raises:
        GraphError: With all the faults that there are, each with what would have been right.
    """

    def __init__(self, steps: Iterable[Any], inputs: Iterable[str] = ()) -> None:
        self._graph = Graph(steps, inputs)

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

    def levels(self) -> list[list[str]]:
        """The steps' names by how many steps stand above them on the longest way."""
        levels: list[list[str]] = [[] for _ in range(1 + max(self._graph.levels))]
        for node, level in zip(self._graph.nodes, self._graph.levels, strict=True):
            levels[level].append(node.name)
        return levels

    def to_mermaid(self) -> str:
        """The graph in the Mermaid language, coloured by layer."""
        return self._graph.to_mermaid()

    def __repr__(self) -> str:
        return f"<Pipeline of {len(self.steps)} steps>"

    async def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        targets: Iterable[Any] | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        on_error: OnError = "raise",
        observers: Sequence[Observer] = (),
    ) -> RunResult:
        """Runs the steps; the arguments are those of `run_pipeline`."""
        given = dict(inputs or {})
        selection = self._graph.select(given, targets)
        execution = Execution(
            self._graph,
            selection,
            given,
            run_id=new_run_id(),
            policies=_policies(retry, timeout, on_error),
            threads=_threads_of_loop(),
            observers=_checked(observers),
        )
        result = await execution.run()
        if execution.deadline_passed and timeout is not None:
            raise DeadlineError(timeout, result.failures, result)
        if result.failures and on_error == "raise":
            raise RunError(result.failures, result)
        return result


async def run_pipeline(
    steps: Pipeline | Iterable[Any],
    inputs: Mapping[str, Any] | None = None,
    *,
    targets: Iterable[Any] | None = None,
    retry: Retry | None = None,
    timeout: float | None = None,
    on_error: OnError = "raise",
    observers: Sequence[Observer] = (),
) -> RunResult:
    """
    Runs steps in the running loop: each of them the moment its own inputs are there.

    Args:
        steps: A `Pipeline`, or steps and functions in any order.
        inputs: Dataset -> value, for those that are given from outside; may stand in for a step's output.
        targets: The datasets wanted: names, steps or functions. Only what they need runs, and all else is
            dropped after its last reader. `None` keeps and returns every dataset.
        retry: For each step that brings no policy of its own, but those of layer publish.
        timeout: Seconds that the whole run may take.
        on_error: `"raise"`: the first failure cancels the rest. `"continue"`: whatever does not need what
            failed is done, and the result tells of the failures.
        observers: Callables that take an event (`odibi_async.events`).

    Raises:
        GraphError: The steps do not make a pipeline; nothing has run.
        RunError: A step failed, and `on_error` is `"raise"`.
        DeadlineError: The run did not end within `timeout`, whatever `on_error` says.
        asyncio.CancelledError: The caller was cancelled; every step has ended before it is raised.
    """
    pipeline = steps if isinstance(steps, Pipeline) else Pipeline(steps, tuple(inputs or ()))
    return await pipeline.run(
        inputs, targets=targets, retry=retry, timeout=timeout, on_error=on_error, observers=observers
    )


def new_run_id() -> str:
    """A name for a run that sorts by time: `20130101-120000-3fa9c2`."""
    return f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{os.urandom(3).hex()}"


def _policies(retry: Retry | None, timeout: float | None, on_error: str) -> Policies:
    if on_error not in (known := get_args(OnError)):
        raise OptionError(f"on_error={on_error!r} is none of {', '.join(known)}.{did_you_mean(on_error, known)}")
    if timeout is not None and not timeout > 0:
        raise OptionError(f"timeout={timeout!r}: seconds above 0 are needed.")
    return Policies(retry=retry, timeout=timeout, on_error=on_error)  # type: ignore[arg-type]


def _checked(observers: Sequence[Observer]) -> Sequence[Observer]:
    for observer in observers:
        if not callable(observer) or is_async(observer):
            raise OptionError(f"An observer is a plain callable that takes an event; {observer!r} is not.")
    return observers


_threads: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Threads] = weakref.WeakKeyDictionary()


def _threads_of_loop() -> Threads:
    """The worker threads that all bare runs of one loop share."""
    loop = asyncio.get_running_loop()
    threads = _threads.get(loop)
    if threads is None:
        threads = _threads[loop] = Threads(min(32, (os.cpu_count() or 1) + 4), GRACE_SECONDS)
    return threads
