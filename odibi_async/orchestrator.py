"""
The door that ODIBI CORE had: its orchestrator, over `run_pipeline_sync`.

Code that was written for it runs here; what is different, and better, is in docs/migration.md. New code calls
`run_pipeline`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from odibi_async.abc import Observer
from odibi_async.building import Functions, Nodes
from odibi_async.errors import OptionError
from odibi_async.limits import Limits
from odibi_async.observers.emitter import EventEmitter, Translator
from odibi_async.observers.tracker import Tracker
from odibi_async.pipeline import Pipeline, run_pipeline_sync
from odibi_async.result import RunResult, Status
from odibi_async.retry import Retry
from odibi_async.runner import Caching
from odibi_async.steps import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestrationResult:
    """
    What `Orchestrator.run` gives.

    Attributes:
        run: The result of the run, as `run_pipeline` gives it.
        tracker: The tracker that was given.
        dag_builder: The pipeline: its `order()`, `levels()`, `steps` and `to_mermaid()`.
        parallel: Whether steps could run at the same time.
    """

    run: RunResult
    tracker: Tracker | None
    dag_builder: Pipeline
    parallel: bool

    @property
    def data_map(self) -> Mapping[str, Any]:
        """Every dataset, by its key."""
        return self.run.outputs

    @property
    def _dag_builder(self) -> Pipeline:
        """The name that ODIBI CORE used."""
        return self.dag_builder

    def get_execution_stats(self) -> dict[str, Any]:
        """
        The run in numbers.

        Returns:
            `total_steps`; `total_duration_ms`, from the start of the run to its end; `success_count` and
            `failed_count`; `success_rate`, 0 to 100; `parallel_execution`; and, when that is true, `cache_hits`
            and `cache_hit_rate`, 0 to 1.
        """
        records = self.run.steps.values()
        done = sum(record.is_done for record in records)
        stats = {
            "total_steps": len(records),
            "total_duration_ms": self.run.seconds * 1e3,
            "success_count": done,
            "failed_count": len(self.run.failures),
            "success_rate": 100 * done / len(records),
            "parallel_execution": self.parallel,
        }
        if self.parallel:
            hits = sum(record.status is Status.CACHED for record in records)
            stats |= {"cache_hits": hits, "cache_hit_rate": hits / len(records)}
        return stats


class Orchestrator:
    """
    Runs steps in the way of ODIBI CORE: `Orchestrator(steps, context, tracker, events).run()`.

    Args:
        steps: Steps, plain functions, and pipelines, in any order.
        context: What `create_engine_context` gives; `None` for one that lives as long as the run.
        tracker: Keeps the record of the run; `None` for no record.
        events: Emits what happens; `None` where nobody listens.
        parallel: Whether steps start as soon as their inputs are there. Else one step runs at a time, in
            topological order, and in that of the declaration where it is free.
        max_workers: How many steps may run at a time, when `parallel`.
        use_cache: Whether what was computed before from the same content is taken from the user's cache directory; a
            directory, or a `Cache`, for another place. See docs/caching.md.
        max_retries: How often a step is called in all, until it succeeds; 1 means no retry.
        retry_delay: Seconds before the second call; doubled before each later one, see `Retry`.
        functions: Name -> function, for steps of type function.
        nodes: Layer -> what makes the callables of its steps, for layers other than those of ODIBI CORE.

    Raises:
        OptionError: An argument has a value that it cannot have.
    """

    def __init__(
        self,
        steps: Iterable[Any],
        context: Any = None,
        tracker: Tracker | None = None,
        events: EventEmitter | None = None,
        parallel: bool = True,
        max_workers: int = 4,
        use_cache: Caching = True,
        max_retries: int = 2,
        retry_delay: float = 1.0,
        *,
        functions: Functions | None = None,
        nodes: Nodes | None = None,
    ) -> None:
        if not isinstance(max_retries, int) or max_retries < 1:
            raise OptionError(f"max_retries={max_retries!r}: it counts all calls of a step, so 1 means no retry.")
        self.steps = list(steps)
        self.context = context
        self.tracker = tracker
        self.events = events
        self.parallel = parallel
        self.use_cache = use_cache
        self._limits = Limits(concurrency=max_workers, threads=max_workers) if parallel else Limits(concurrency=1)
        self._retry = Retry(attempts=max_retries, wait=retry_delay, max_wait=max(60.0, retry_delay))
        self._functions = functions
        self._nodes = nodes

    @functools.cached_property
    def _pipeline(self) -> Pipeline:
        return Pipeline(self.steps, functions=self._functions, nodes=self._nodes)

    @property
    def _dag_builder(self) -> Pipeline:
        """The name that ODIBI CORE used."""
        return self._pipeline

    def build_dag(self) -> Pipeline:
        """
        The pipeline, checked; `run` makes it likewise.

        Raises:
            GraphError: With every fault that there is; a `CycleError` where steps wait for each other.
        """
        return self._pipeline

    def detect_cycles(self) -> None:
        """
        Makes sure that no steps wait for each other, as `build_dag` and `run` do.

        Raises:
            CycleError: Some do; it names them.
            GraphError: There are other faults.
        """
        self.build_dag()

    def run(self) -> OrchestrationResult:
        """
        Runs the steps and waits for the end; also where a loop runs already, which stands still meanwhile.

        Raises:
            GraphError: The steps do not make a pipeline; nothing has run.
            RunError: A step failed; the first failure cancels the rest.
        """
        try:
            pipeline = self.build_dag()
            result = run_pipeline_sync(
                pipeline if self.parallel else _one_at_a_time(pipeline),
                retry=self._retry,
                limits=self._limits,
                cache=self.use_cache,
                engine=self.context,
                observers=self._observers(pipeline),
            )
        except BaseException as error:
            if self.events is not None:
                self.events.emit("pipeline_error", error=error)
            raise
        return OrchestrationResult(run=result, tracker=self.tracker, dag_builder=pipeline, parallel=self.parallel)

    def _observers(self, pipeline: Pipeline) -> list[Observer]:
        observers: list[Observer] = [] if self.tracker is None else [self.tracker]
        if self.events is not None:
            declared = {step.name: step for step in (*pipeline.steps, *self.steps) if isinstance(step, Step)}
            observers.append(Translator(self.events, declared))
        return observers


def _one_at_a_time(pipeline: Pipeline) -> Pipeline:
    """The same steps, each of which waits for the one before it in topological order, and so for all before it."""
    steps = {step.name: step for step in pipeline.steps}
    order = pipeline.order()
    chained = [dataclasses.replace(steps[name], after=(before,)) for before, name in itertools.pairwise(order)]
    return Pipeline([steps[order[0]], *chained])
