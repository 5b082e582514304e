"""What a run knows: the table of its datasets, who still waits for what, and how each step ended."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, NamedTuple

from odibi_async.dataset import ABSENT, KINDS, Handle, engine_of
from odibi_async.errors import StepError
from odibi_async.graph.graph import Graph
from odibi_async.graph.node import NOTHING, Node
from odibi_async.graph.select import Selection
from odibi_async.lazy import LazyMapping
from odibi_async.quick import quick
from odibi_async.result import Status, StepResult
from odibi_async.run.course import Course

step_result = quick(StepResult)
Brief = tuple[float, float, float]
"""The record of a step that was called once and made one value without rows: when it was ready, started, and ended."""


class Blame(NamedTuple):
    """Whom a skipped step has to thank: a step that failed, or one whose `when` was false."""

    step: str
    failed: bool


class RunState:
    """
    The data of one run.

    What threads change as well (`values`, `uses`, `unmet`) is changed under the lock; all else is the loop's alone.

    Attributes:
        values: The datasets, by their places; `ABSENT` for those that are not there.
        uses: How many readers of each dataset have not ended.
        unmet: How many steps each step still waits for.
        left: How many steps have no record yet.
        records: How each step ended, in brief where that says it all; `record` gives it whole.
        failures: The errors of the steps that failed.
        partial: What those elements of a failed mapped step made that did not fail.
        blame: Why steps that wait for a step are skipped.
        given: The datasets that came from outside.
        copies: Whether any value may be one of which each reader gets a copy.
        streaming: The steps whose readers get elements or batches as they are made, and have been started for that.
        has_handles: Whether any value may be a handle of one that is not in memory.
        fresh: The frames of steps whose end is not told yet, for observers; `None` where nobody listens.
        seconds: How long steps took in earlier runs, by name.
    """

    def __init__(
        self,
        graph: Graph,
        selection: Selection,
        given: Mapping[str, Any],
        epoch: float,
        seconds: Mapping[str, float] = NOTHING,
    ) -> None:
        self.graph = graph
        self.selection = selection
        self.lock = threading.Lock()
        self.values = [ABSENT] * len(graph.datasets)
        for name, value in given.items():
            self.values[graph.ids[name]] = value
        self.given = frozenset(graph.ids[name] for name in given) if given else frozenset()
        self.uses = list(selection.uses) if selection.kept is not None else []
        self.unmet = list(selection.unmet)
        self.left = len(selection.nodes)
        self.records: list[StepResult | Brief | None] = [None] * len(graph.nodes)
        self.failures: dict[str, StepError] = {}
        self.partial: dict[str, Mapping[int, Any]] = {}
        self.blame: dict[int, Blame] = {}
        self.copies = bool(given)
        self.streaming: set[int] = set()
        self.has_handles = False
        self.fresh: dict[int, Any] | None = None
        self.seconds = seconds
        self._epoch = epoch

    @functools.cached_property
    def priorities(self) -> Sequence[float]:
        """How urgent each step is: how many steps, or where that is known how many seconds, stand below it."""
        return self.graph.heights_in(self.seconds) if self.seconds else self.graph.heights

    # -- done ------------------------------------------------------------------------------------------

    def settle(self, node: Node, made: Sequence[Any]) -> list[int]:
        """
        Puts what a step made into the table, drops what nobody reads any more, and tells which steps have all
        that they wait for now. From any thread.
        """
        with self.lock:
            return self.settle_locked(node, made)

    def settle_locked(self, node: Node, made: Sequence[Any]) -> list[int]:
        """The same for who holds the lock already."""
        kept, values = self.selection.kept, self.values
        if not self.copies and any([KINDS[type(value)] is not None for value in made]):  # noqa: C419 (twice as fast)
            self.copies = True
        for dataset, value in zip(node.outputs, made, strict=False):
            if (kept is None or self.uses[dataset] or dataset in kept) and dataset not in self.given:
                values[dataset] = value
        if kept is not None:
            if self.fresh is not None:
                self.fresh.update((d, value) for d, value in zip(node.outputs, made, strict=False) if engine_of(value))
            self.drop(node, kept)
        return self.released(node)

    def drop(self, node: Node, kept: frozenset[int]) -> None:
        """Drops what this step was the last to read. Under the lock, if threads are about."""
        uses = self.uses
        for dataset in node.reads:
            uses[dataset] -= 1
            if not uses[dataset] and dataset not in kept:
                self.values[dataset] = ABSENT

    def released(self, node: Node) -> list[int]:
        """Counts down for those that wait for a step; those that wait for nobody any more. Under the lock."""
        streamed = self.graph.streams.get(node.index, ()) if node.index in self.streaming else ()
        unmet, ready = self.unmet, []
        for other in self.selection.downstream[node.index]:
            if other in streamed:
                continue  # released when the first element was started
            unmet[other] -= 1
            if not unmet[other]:
                ready.append(other)
        return ready

    def stream(self, node: Node) -> list[int]:
        """The steps that take the elements or batches of this one as they are made, and wait for nobody else."""
        ready = []
        with self.lock:
            self.streaming.add(node.index)
            for other in self.graph.streams.get(node.index, ()):
                if other in self.selection.downstream[node.index]:
                    self.unmet[other] -= 1
                    if not self.unmet[other]:
                        ready.append(other)
        return ready

    # -- records ---------------------------------------------------------------------------------------

    def record(self, node: Node) -> StepResult | None:
        """How a step ended."""
        return None if self.records[node.index] is None else self.whole(node)

    def whole(self, node: Node) -> StepResult:
        """How a step ended that has ended."""
        record: Any = self.records[node.index]
        if type(record) is tuple:
            record = self.records[node.index] = _whole(node.name, record, self._epoch)
        ended: StepResult = record
        return ended

    def book(self, node: Node, record: StepResult) -> None:
        """Notes how a step ended."""
        self.records[node.index] = record
        self.left -= 1

    def success(self, node: Node, made: Sequence[Any], course: Course) -> StepResult:
        """The record of a step that was called, or found. From any thread."""
        rows = None
        if len(made) == 1:
            value = made[0]
            kind = KINDS[type(value)]
            if kind is not None and kind.rows is not None:
                rows = kind.rows(value)
            elif self.has_handles and isinstance(value, Handle):
                rows = value.rows
        if course.found is not None:
            return StepResult(name=node.name, status=course.found, rows=rows, cache=course.use)
        took, queued = perf_counter() - course.started, course.started - course.ready
        at = course.started + self._epoch
        return step_result(
            node.name, Status.SUCCEEDED, course.attempts, queued, took, at, None, None, rows, course.use, None, None
        )

    def failure(self, node: Node, course: Course, error: BaseException, element: int | None) -> StepResult:
        """The record of a step that failed, with its error among the run's failures."""
        self.failures[node.name] = StepError(node.name, error, element, course.note)
        self.blame[node.index] = Blame(node.name, failed=True)
        return self._unfinished(node, course, Status.FAILED, error, element)

    def cancellation(self, node: Node, course: Course) -> StepResult:
        """The record of a step that was cancelled after it was started."""
        return self._unfinished(node, course, Status.CANCELLED)

    def skip(self, node: Node, blame: Blame) -> StepResult:
        """The record of a step that is not to run."""
        self.blame[node.index] = blame
        return StepResult(name=node.name, status=Status.SKIPPED, skipped_because=blame.step)

    def never_ran(self, node: Node) -> StepResult:
        """The record of a step that never became ready before the run was stopped."""
        blames = (self.blame.get(other) for other in self.selection.upstream[node.index])
        blame = next((blame for blame in blames if blame is not None and blame.failed), None)
        return StepResult(name=node.name, status=Status.CANCELLED) if blame is None else self.skip(node, blame)

    def _unfinished(
        self,
        node: Node,
        course: Course,
        status: Status,
        error: BaseException | None = None,
        element: int | None = None,
    ) -> StepResult:
        began = course.started
        return StepResult(
            name=node.name,
            status=status,
            attempts=course.attempts,
            queue_seconds=began - course.ready if began else 0.0,
            run_seconds=perf_counter() - began if began else 0.0,
            at=began + self._epoch if began else None,
            error=error,
            cache=course.use,
            element=element,
        )

    def blame_for(self, node: Node) -> Blame | None:
        """
        Why a step cannot run though all that it waited for has ended: something failed above it, or what it
        needs was not made. A parameter with a default does without what a false `when` kept from being made.
        """
        needed = None
        for other in self.selection.upstream[node.index]:
            blame = self.blame.get(other)
            if blame is None:
                continue
            if blame.failed:
                return blame
            if any(self.graph.producers[d] == other and self.values[d] is ABSENT for d in node.needs):
                needed = needed or blame
        return needed

    def unrecorded(self) -> Iterator[Node]:
        """The steps that have no record."""
        records, nodes = self.records, self.graph.nodes
        return iter([nodes[index] for index in self.selection.nodes if records[index] is None])

    # -- over ------------------------------------------------------------------------------------------

    def outputs(self) -> Mapping[str, Any]:
        """The datasets that the caller gets."""
        kept, values, names = self.selection.kept, self.values, self.graph.datasets
        hidden = self.graph.hidden
        if self.has_handles:
            values = [ABSENT if isinstance(value, Handle) else value for value in values]
        if kept is not None:
            return {names[place]: values[place] for place in sorted(kept) if values[place] is not ABSENT}
        if hidden:
            values = [ABSENT if place in hidden else value for place, value in enumerate(values)]
        return LazyMapping(functools.partial(_there, names, list(values)))

    def steps(self) -> Mapping[str, StepResult]:
        """The records, in topological order."""
        nodes = self.graph.nodes
        return LazyMapping(
            functools.partial(_all_whole, [nodes[index] for index in self.selection.nodes], self.records, self._epoch)
        )

    def told(self, node: Node) -> None:
        """The end of a step was told: its frames need not be kept for that any more."""
        fresh = self.fresh or {}
        for dataset in node.outputs:
            fresh.pop(dataset, None)

    def peek(self) -> Callable[[str], Any]:
        """What gives a dataset by its name, as it is at that moment, and keeps nothing of the run alive."""
        return functools.partial(_peeked, weakref.ref(self))

    def let_go(self) -> None:
        """Forgets all data: whoever still has this object, in a frame of a traceback say, keeps none of it."""
        self.values.clear()
        self.fresh = None
        self.records = []
        self.failures = {}
        self.partial = {}


def _peeked(state: weakref.ref[RunState], dataset: str) -> Any:
    run = state()
    place = None if run is None else run.graph.ids.get(dataset)
    if run is None or place is None or place >= len(run.values):
        return ABSENT
    return run.fresh.get(place, run.values[place]) if run.fresh is not None else run.values[place]


def _whole(name: str, brief: Brief, epoch: float) -> StepResult:
    """A record that was kept in brief."""
    ready, started, ended = brief
    return step_result(
        name, Status.SUCCEEDED, 1, started - ready, ended - started, started + epoch, None, None, None, None, None, None
    )


def _all_whole(
    nodes: Sequence[Node], records: Sequence[StepResult | Brief | None], epoch: float
) -> dict[str, StepResult]:
    """The records of steps, by name."""
    whole: dict[str, Any] = {}
    for node in nodes:
        record = records[node.index]
        if type(record) is tuple:
            record = _whole(node.name, record, epoch)
        if record is not None:
            whole[node.name] = record
    return whole


def _there(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """The datasets that were made, by name."""
    return {name: value for name, value in zip(names, values, strict=True) if value is not ABSENT}
