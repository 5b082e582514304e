"""
One run of a graph: ready -> start -> done.

A step starts the moment the last of the steps that it waits for is done. Async steps run each in a task of
their own on the loop. Blocking steps run in worker threads, where a thread that finishes a step itself
releases the steps that waited for it and goes on with one of them. So what both sides change (`_unmet`,
`_uses`, `_values`) is changed under a lock; all else belongs to the loop's thread, and what the loop is to
know of a thread's work comes through the mailbox.

Once the run is to stop, threads no longer settle steps themselves: every end is then handled on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import itertools
import logging
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from time import perf_counter, time
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, get_args

import anyio

from odibi_async.abc import Observer
from odibi_async.dataset import ABSENT, KINDS, reader_copy
from odibi_async.errors import OptionError, StepError, did_you_mean
from odibi_async.events import (
    Event,
    ResourceOpened,
    RunFinished,
    RunStarted,
    StepAbandoned,
    StepFinished,
    StepProgressed,
    StepRetrying,
    StepStarted,
)
from odibi_async.executors.threads import CallJob, Job, Threads
from odibi_async.graph.graph import NOTHING, Call, Graph, Node, Selection
from odibi_async.result import RunResult, Status, StepResult
from odibi_async.retry import Retry
from odibi_async.run.calls import IN_A_STEP, Course, Managed, TimeLimit, outputs_of, refuse_awaitable, try_again
from odibi_async.run.lives.elements import ElementFailed, Elements, UpstreamFailed, listed
from odibi_async.run.quick import quick
from odibi_async.run.slots import Gate

T = TypeVar("T")
OnError = Literal["raise", "continue"]
Task = asyncio.Task
Values: TypeAlias = Sequence[Any] | Mapping[int, Any]
"""Datasets by their places."""
AHEAD = 256
"""How many tasks may wait for their first turn: what the loop does in about two milliseconds."""

EAGERLY = sys.version_info >= (3, 12)
"""Whether a task takes its first turn at once: a step without anything to wait for then never goes through the loop."""
STARTING: Any = type(
    "Starting", (), {"cancel": lambda _: None, "done": lambda _: False, "add_done_callback": lambda *_: None}
)()
"""Stands for the task of a step that is taking its first turn."""

_log = logging.getLogger("odibi_async")
_step_result = quick(StepResult)
_step_started = quick(StepStarted)
_step_finished = quick(StepFinished)
_done = Status.SUCCEEDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """
    How one run treats its steps.

    Attributes:
        retry: For steps that bring no policy of their own; `None` for one attempt.
        timeout: Seconds that the whole run may take; `None` for no limit.
        on_error: `"raise"`: the first failure cancels the rest. `"continue"`: what can be done is done.
    """

    retry: Retry | None = None
    timeout: float | None = None
    on_error: OnError = "raise"

    @classmethod
    def of(cls, retry: Retry | None, timeout: float | None, on_error: OnError) -> Policies:
        """
        The policies that a caller asks for.

        Raises:
            OptionError: One of them has a value that it cannot have.
        """
        if on_error not in (known := get_args(OnError)):
            raise OptionError(f"on_error={on_error!r} is none of {', '.join(known)}.{did_you_mean(on_error, known)}")
        if timeout is not None and not timeout > 0:
            raise OptionError(f"timeout={timeout!r}: seconds above 0 are needed.")
        if retry is not None and not isinstance(retry, Retry):
            raise OptionError(f"retry={retry!r}: a policy is needed, such as Retry(attempts=3).")
        return cls(retry=retry, timeout=timeout, on_error=on_error)


class Blame(NamedTuple):
    """Whom a skipped step has to thank: a step that failed, or one whose `when` was false."""

    step: str
    failed: bool


@dataclass(slots=True)
class Special:
    """
    What only some graphs need.

    Attributes:
        holding: The steps that hold a slot.
        retrying: The steps that a thread has called and that the loop calls again.
        elements: The elements of the mapped steps that run.
        open: The resources that are open, in the order in which they were opened, and what has them closed.
        readers: How many readers of each have not ended.
        is_closing: Whether one of them is being closed.
    """

    holding: set[int] = field(default_factory=set)
    retrying: dict[int, Course] = field(default_factory=dict)
    elements: dict[int, Elements] = field(default_factory=dict)
    open: dict[int, asyncio.Event] = field(default_factory=dict)
    readers: dict[int, int] = field(default_factory=dict)
    is_closing: bool = False


class Execution:
    """One run of a graph, in the loop and the context of the task that creates it."""

    def __init__(
        self,
        graph: Graph,
        selection: Selection,
        given: Mapping[str, Any],
        *,
        run_id: str,
        policies: Policies,
        threads: Threads,
        gate: Gate,
        observers: Sequence[Observer],
    ) -> None:
        self.run_id = run_id
        self.deadline_passed = False
        self.was_cancelled = False
        self._graph = graph
        self._nodes = graph.nodes
        self._selection = selection
        self.policies = policies
        self._threads = threads
        self._gate = gate
        self._observers = list(observers)
        self._epoch = time() - perf_counter()
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._context.run(IN_A_STEP.set, True)
        # shared with worker threads, under the lock
        self._lock = threading.Lock()
        self._unmet = list(selection.unmet)
        self._uses = list(selection.uses)
        self._values = [ABSENT] * len(graph.datasets)
        for name, value in given.items():
            self._values[graph.ids[name]] = value
        self._given = frozenset(graph.ids[name] for name in given)
        self._stopping = False
        # nothing to copy for readers so far, nothing to drop, nobody to lock out, no slots, no end in sight
        self._ordinary = graph.is_simple and selection.kept is None and not given and not gate.limits(None)
        # the loop's own
        self._backlog: deque[tuple[int, float]] = deque()
        self._ahead = 0
        self._running: dict[int, asyncio.Task[None] | Job] = {}
        self._left = len(selection.nodes)
        self._records: list[StepResult | None] = [None] * len(graph.nodes)
        self._failures: dict[str, StepError] = {}
        self._blame: dict[int, Blame] = {}
        self._special = Special()
        self._ended = asyncio.Event()
        self._is_starting = False
        self._watch: asyncio.TimerHandle | None = None
        self._seq = 0

    # -- the caller's side -----------------------------------------------------------------------------

    async def run(self) -> RunResult:
        """
        Runs the steps and waits until the last of them has ended.

        When the calling task is cancelled, every step is, and the cancellation goes on only when all
        of them have ended.
        """
        started = perf_counter()
        names = tuple(self._nodes[index].name for index in self._selection.nodes)
        self._tell(RunStarted, names, self._graph.outline)
        deadline = None
        if self.policies.timeout is not None:
            deadline = self._loop.call_later(self.policies.timeout, self._on_deadline)
        cancelled: asyncio.CancelledError | None = None
        try:
            await self._prepare()
            self._begin()
            await self._ended.wait()
        except asyncio.CancelledError as error:
            cancelled = error
            self.cancel()
            with anyio.CancelScope(shield=True):
                await self._outlast()
        cancelled = await self._dispose() or cancelled
        if deadline is not None:
            deadline.cancel()
        result = self._result(started)
        self._tell(RunFinished, result.status, result)
        self._values, self._failures = [], {}  # an error's traceback may keep this object, but no data
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled
        return result

    async def _prepare(self) -> None:
        """What is to be done before the first step."""

    async def _dispose(self) -> asyncio.CancelledError | None:
        """What is to be done after the last; the cancellation of the waiting task, for it to go on afterwards."""
        return None

    def _begin(self) -> None:
        """Takes up the first steps, unless the run was stopped before."""
        if self._stopping:
            return
        if not self._left:
            self._ended.set()
            return
        self._watch = self._loop.call_later(self._threads.grace, self._look_after)
        self._release([index for index in self._selection.nodes if not self._unmet[index]], perf_counter())

    def cancel(self) -> None:
        """Cancels the run, unless it is over."""
        if not self._ended.is_set():
            self.was_cancelled = True
            self.stop()

    async def _outlast(self) -> None:
        """Waits for the end, whoever cancels the waiting task meanwhile."""
        while not self._ended.is_set():
            try:
                await self._ended.wait()
            except asyncio.CancelledError:
                continue

    def _on_deadline(self) -> None:
        if not self._ended.is_set() and not self._stopping:
            self.deadline_passed = True
            self.stop()

    def _result(self, started: float) -> RunResult:
        graph, kept, values = self._graph, self._selection.kept, self._values
        if self.was_cancelled:
            status = Status.CANCELLED
        else:
            status = Status.FAILED if self._failures or self.deadline_passed else Status.SUCCEEDED
        places = range(len(values)) if kept is None else sorted(kept)
        records = [record for index in self._selection.nodes if (record := self._records[index]) is not None]
        return RunResult(
            run_id=self.run_id,
            status=status,
            steps={record.name: record for record in records},
            outputs={graph.datasets[p]: values[p] for p in places if values[p] is not ABSENT and p not in graph.hidden},
            failures=self._failures,
            started_at=datetime.fromtimestamp(started + self._epoch, timezone.utc),
            seconds=perf_counter() - started,
            producers=graph.makers,
        )

    # -- ready -----------------------------------------------------------------------------------------

    def _release(self, ready: Sequence[int], at: float) -> None:
        """
        Takes up steps whose inputs are all there: behind what threads have still to tell, since one of them may
        have made such an input.
        """
        if len(self._threads.mailbox):
            self._threads.mailbox.post(self._release_now, ready, at, urgent=True)
        else:
            self._release_now(ready, at)

    def _release_now(self, ready: Sequence[int], at: float) -> None:
        if not self._stopping:
            self._backlog.extend((index, at) for index in ready)
            self._start_ready()

    def _start_ready(self) -> None:
        """Starts what is ready, but few enough at a time that the loop comes round every few milliseconds."""
        if self._is_starting:  # a step that is over at once releases others: they join the backlog, no recursion
            return
        self._is_starting = True
        backlog, nodes, left = self._backlog, self._nodes, AHEAD
        while backlog and self._ahead < AHEAD:
            if not left:
                self._loop.call_soon(self._start_ready)
                break
            left -= 1
            index, ready_at = backlog.popleft()
            node = nodes[index]
            if self._ordinary and node.runs_plain and not self._blame:
                self._start_task(node, self._plain_step(node, ready_at))
            elif self._blame and (blame := self._blame_for(node)) is not None:
                self._skip(node, blame)
            elif self._gate.limits(node.pool) and not self._takes_slots_itself(node):
                enter = functools.partial(self._enter, node, ready_at)
                self._gate.enter(self, self._graph.heights[index], node.pool, enter)
            else:
                self._start(node, ready_at)
        self._is_starting = False
        if not self._ordinary:
            self._gate.admit()

    def _takes_slots_itself(self, node: Node) -> bool:
        """Whether a step asks for a slot only when it is to be called, or for one an element, or for none."""
        return node.is_resource or node.maps is not None

    def _enter(self, node: Node, ready_at: float) -> None:
        """Starts a step that was given its slot."""
        self._special.holding.add(node.index)
        self._start(node, ready_at)

    def _start(self, node: Node, ready_at: float) -> None:
        if node.runs_plain:
            self._start_task(node, self._plain_step(node, ready_at))
        elif node.plain and node.in_thread:
            job = StepJob(self, self._graph.heights[node.index], node, ready_at)
            self._running[node.index] = job
            self._threads.put((job,))
        elif node.is_resource:
            self._start_task(node, self._resource(node, Course(ready_at)))
        elif node.maps is not None:
            self._start_task(node, self._mapped_step(node, Course(ready_at)))
        else:
            self._start_task(node, self._step(node, Course(ready_at)))

    def _start_task(self, node: Node, life: Coroutine[Any, Any, None]) -> None:
        self._ahead += 1
        if EAGERLY:
            self._start_eagerly(node, life)
        else:
            self._running[node.index] = Task(life, loop=self._loop, name=node.name, context=self._context.copy())

    def _start_eagerly(self, node: Node, life: Coroutine[Any, Any, None]) -> None:
        self._running[node.index] = STARTING
        task = Task(life, loop=self._loop, name=node.name, context=self._context.copy(), eager_start=True)  # type: ignore[call-arg]
        if self._running.get(node.index) is STARTING:  # else it had nothing to wait for, and is over
            self._running[node.index] = task
            if self._stopping:
                task.cancel()

    # -- the life of a step on the loop ----------------------------------------------------------------

    async def _plain_step(self, node: Node, ready_at: float) -> None:
        """
        The life of an async step that is nothing but a call, in a task of its own.

        Most steps are such, so this is `_step` and what it calls written out flat, which takes a third off what
        the engine adds to asyncio's own cost of a task. Whatever is out of the ordinary goes the common way.
        """
        self._ahead -= 1
        if self._backlog and self._ahead < AHEAD // 2:
            self._start_ready()
        started, values, call = perf_counter(), self._values, node.call
        if self._observers:
            event: Event = _step_started(self.run_id, self._seq, started + self._epoch, node.name)
            self._seq += 1
            for observer in self._observers:
                try:
                    observer(event)
                except BaseException as error:
                    self._drop(observer, error)
        try:
            reads = call.reads
            if not reads:
                value = await call.fn()
            elif not self._ordinary:
                value = await call.fn(*[reader_copy(values[dataset]) for dataset in reads])
            elif len(reads) == 1:
                value = await call.fn(values[reads[0]])
            else:
                value = await call.fn(*[values[dataset] for dataset in reads])
            ordinary = self._ordinary and node.single and KINDS[type(value)] is None
            if not ordinary:
                made = outputs_of(node, value)
                record = self._record(node, made, Course(ready_at, started, 1))
        except BaseException as error:
            await self._after_failure(node, Course(ready_at, started, 1), error)
            return
        if not ordinary:
            self._succeed(node, made, record)
            return
        index, ended, unmet, backlog = node.index, perf_counter(), self._unmet, self._backlog
        values[node.outputs[0]] = value
        at = started + self._epoch
        record = _step_result(node.name, _done, 1, started - ready_at, ended - started, at, None, None, None, None)
        self._records[index] = record
        del self._running[index]
        self._left -= 1
        if self._observers:
            event = _step_finished(self.run_id, self._seq, ended + self._epoch, node.name, _done, record)
            self._seq += 1
            for observer in self._observers:
                try:
                    observer(event)
                except BaseException as error:
                    self._drop(observer, error)
        for other in self._selection.downstream[index]:
            unmet[other] = count = unmet[other] - 1
            if not count:
                child = self._nodes[other]
                if EAGERLY or self._ahead >= AHEAD or self._blame or not child.runs_plain:
                    backlog.append((other, ended))
                else:
                    self._start_task(child, self._plain_step(child, ended))
        if backlog:
            self._start_ready()
        elif not self._left:
            self._end()

    async def _step(self, node: Node, course: Course) -> None:
        """The life of a step, in a task of its own."""
        if not await self._begins(node, course):
            return
        await self._conclude(node, course, self._made(node, course))

    def _made(self, node: Node, course: Course) -> Awaitable[Sequence[Any]]:
        """What a step makes, one value a dataset."""
        return self._attempts(node, course, functools.partial(self._attempt, node, course))

    async def _conclude(self, node: Node, course: Course, attempts: Awaitable[Sequence[Any]]) -> None:
        """Waits for the last attempt of a step and books its end."""
        try:
            made = await attempts
            record = self._record(node, made, course)
        except BaseException as error:
            self._fail(node, course, error)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
        else:
            self._succeed(node, made, record)

    async def _begins(self, node: Node, course: Course) -> bool:
        """The first turn of a step's task: asks its predicate, and tells of the start if that says yes."""
        self._ahead -= 1
        if self._backlog:
            self._start_ready()
        if node.when is not None:
            try:
                values, _ = await self._read(node.when)
                wanted = await self._call(node, node.when, values, in_thread=not node.when.is_async)
                refuse_awaitable(f"The predicate of step {node.name!r}", wanted)
                if self._stopping:
                    raise asyncio.CancelledError
            except BaseException as error:
                self._fail(node, course, error)
                return False
            if not wanted:
                self._skip(node, Blame(node.name, failed=False))
                return False
        if self._is_called_at_once(node):
            self._note_start(node, course)
        return True

    def _is_called_at_once(self, node: Node) -> bool:
        """Whether a step's first attempt begins with its task; it may have to wait for a thread, or to be opened."""
        return node.maps is not None or not (node.in_thread or node.is_resource)

    def _note_start(self, node: Node, course: Course) -> None:
        """Tells of the start of a step, the first time."""
        if not course.started:
            course.started = perf_counter()
            if self._observers:
                self._tell_started(node.name, course.started)

    async def _attempt(self, node: Node, course: Course, instead: Mapping[str, Any] = NOTHING) -> Sequence[Any]:
        """Calls the function once, within the step's time limit; what it made, one value a dataset."""

        def on_start() -> None:
            self._note_start(node, course)
            limit.start()

        values, instead = await self._read(node.call, instead)
        async with TimeLimit(node.step.timeout, self._threads.grace, at_once=not node.in_thread) as limit:
            called = self._call(node, node.call, values, in_thread=node.in_thread, instead=instead, on_start=on_start)
            return outputs_of(node, await called)

    async def _call(
        self,
        node: Node,
        call: Call,
        values: Values,
        *,
        in_thread: bool,
        instead: Mapping[str, Any] = NOTHING,
        on_start: Callable[[], None] | None = None,
    ) -> Any:
        """Calls a step's function, or its predicate, here or in a worker thread."""
        args, kwargs = call.arguments(values, instead)
        if in_thread:
            return await self._call_in_thread(node, functools.partial(call.fn, *args, **kwargs), on_start=on_start)
        value = call.fn(*args, **kwargs)
        return await value if call.is_async else value

    async def _call_in_thread(
        self,
        node: Node,
        call: Callable[[], Any],
        *,
        context: contextvars.Context | None = None,
        on_start: Callable[[], None] | None = None,
    ) -> Any:
        job = CallJob(
            self,
            self._graph.heights[node.index],
            call,
            mailbox=self._threads.mailbox,
            context=context or self._context.copy(),
            on_start=on_start,
            on_abandoned=functools.partial(self._tell, StepAbandoned, node.name),
        )
        return await self._threads.call(job)

    async def _read(self, call: Call, instead: Mapping[str, Any] = NOTHING) -> tuple[Values, Mapping[str, Any]]:
        """The datasets that a call reads, and what it gets instead."""
        return self._values, instead

    async def _attempts(
        self, node: Node, course: Course, attempt: Callable[[], Awaitable[T]], element: int | None = None
    ) -> T:
        """Makes attempts until one succeeds or the policy has none left; raises what the last one raised."""
        course.attempts += 1
        try:
            return await attempt()
        except Exception as error:
            return await self._retried(node, course, attempt, error, element)

    async def _retried(
        self, node: Node, course: Course, attempt: Callable[[], Awaitable[T]], error: BaseException, element: int | None
    ) -> T:
        policy = self._retry_of(node)
        if policy is None or self._stopping or not policy.covers(error):
            raise error

        async def counted() -> T:
            course.attempts += 1
            return await attempt()

        def on_retry(failed: int, error: BaseException, wait: float) -> None:
            self._tell(StepRetrying, node.name, failed, error, wait, element)

        made: T = await try_again(policy, error, counted, on_retry)
        return made

    def _retry_of(self, node: Node) -> Retry | None:
        if node.step.retry is not None or node.step.layer == "publish":
            return node.step.retry
        return self.policies.retry

    async def _after_failure(self, node: Node, course: Course, error: BaseException) -> None:
        """Goes on after a first attempt that was made elsewhere and failed."""
        attempt = functools.partial(self._attempt, node, course)
        await self._conclude(node, course, self._retried(node, course, attempt, error, None))

    # -- the life of a mapped step ---------------------------------------------------------------------

    async def _mapped_step(self, node: Node, course: Course) -> None:
        """The life of a step that is called once an element; each element has a task of its own."""
        if not await self._begins(node, course):
            return
        try:
            source = await self._elements_of(node)
            elements = Elements(len(source), self._threads.grace)
            self._special.elements[node.index] = elements
            self._release_streams(node)
            course.attempts = 1
            made = await elements.all(functools.partial(self._start_element, node, course, source, elements))
        except UpstreamFailed:
            blame = self._blame_for(node)
            if blame is None:
                self._fail(node, course, asyncio.CancelledError())
            else:
                self._skip(node, blame)
        except BaseException as error:
            self._fail(node, course, error)
        else:
            columns = zip(*made, strict=True) if made else [()] * len(node.outputs)
            lists = [self._gathered(column) for column in columns]
            course.use = elements.use
            if course.use is None or not course.use.hit:
                self._note_start(node, course)
            self._succeed(node, lists, self._record(node, lists, course))

    async def _elements_of(self, node: Node) -> Sequence[Any] | Elements:
        """What is mapped over: a list, or the elements of a mapped step as they are made."""
        [(dataset, default)] = [(b.dataset, b.value) for b in node.call.bindings if b.parameter == node.maps]
        assert dataset is not None
        value = self._values[dataset]
        if value is ABSENT:
            if node.streams_from in self._special.elements:
                return self._special.elements[node.streams_from]
            if default is ABSENT:  # its maker has failed since it was started
                raise UpstreamFailed
            value = default
        return listed(node.name, str(node.maps), await self._to_map(dataset, value))

    async def _to_map(self, dataset: int, value: Any) -> Any:
        """A dataset as it is mapped over."""
        return value

    def _start_element(
        self, node: Node, course: Course, source: Sequence[Any] | Elements, elements: Elements, index: int
    ) -> asyncio.Task[Any]:
        life = self._element(node, course, source, elements, index)
        return Task(life, loop=self._loop, name=f"{node.name}[{index}]", context=self._context.copy())

    async def _element(
        self, node: Node, course: Course, source: Sequence[Any] | Elements, elements: Elements, index: int
    ) -> None:
        """The life of one element: its slot, its attempts, its result."""
        try:
            value = await source.item(index) if isinstance(source, Elements) else source[index]
            own, instead = Course(course.ready), {str(node.maps): value}

            async def attempts() -> Sequence[Any]:
                self._note_start(node, course)
                own.started = course.started
                return await self._attempts(node, own, functools.partial(self._attempt, node, own, instead), index)

            made = await self._made_of_element(node, own, attempts, instead, index)
        except BaseException as error:
            elements.failed(index, error)
        else:
            if own.use is not None:
                elements.uses[index] = own.use
            elements.made(index, made)
            self._tell(StepProgressed, node.name, elements.done, len(elements))

    async def _made_of_element(
        self,
        node: Node,
        course: Course,
        attempts: Callable[[], Awaitable[Sequence[Any]]],
        instead: Mapping[str, Any],
        index: int,
    ) -> Sequence[Any]:
        """What an element makes, one value a dataset."""
        async with self._slot(node):
            return await attempts()

    def _gathered(self, elements: Sequence[Any]) -> Any:
        """The dataset that the elements of a mapped step make together."""
        return list(elements)

    def _slot(self, node: Node) -> contextlib.AbstractAsyncContextManager[None]:
        return self._gate.slot(self, self._graph.heights[node.index], node.pool)

    def _release_streams(self, node: Node) -> None:
        """Lets the steps start that take the elements of this one as they are made."""
        ready = []
        with self._lock:
            for other in self._graph.streams.get(node.index, ()):
                if other in self._selection.downstream[node.index]:
                    self._unmet[other] -= 1
                    if not self._unmet[other]:
                        ready.append(other)
        if ready:
            self._release(ready, perf_counter())

    # -- the life of a resource ------------------------------------------------------------------------

    async def _resource(self, node: Node, course: Course) -> None:
        """The life of a context manager: entered, read by others, exited when the last of them has ended."""
        if not await self._begins(node, course):
            return
        try:
            managed, value = await self._attempts(node, course, functools.partial(self._open, node, course))
        except BaseException as error:
            self._fail(node, course, error)
            return
        special = self._special
        close = special.open[node.index] = asyncio.Event()
        selected = set(self._selection.nodes)
        special.readers[node.index] = sum(other in selected for other in self._selection.downstream[node.index])
        with self._lock:
            ready = self._settle(node, (value,))
        self._tell(ResourceOpened, node.name)
        self._release(ready, perf_counter())
        self._close_resources()
        while not close.is_set():
            with contextlib.suppress(asyncio.CancelledError):  # its readers end first
                await close.wait()
        failure = await managed.close(self._error_of_readers(node))
        del special.open[node.index]
        special.is_closing = False
        self._values[node.outputs[0]] = ABSENT
        if failure is None:
            self._finish(node, self._record(node, (), course), ())
        else:
            self._fail(node, course, failure, settled=True)

    async def _open(self, node: Node, course: Course) -> tuple[Managed, Any]:
        """Makes and enters the context manager, within the step's time limit."""

        def on_start() -> None:
            self._note_start(node, course)
            limit.start()

        values, _ = await self._read(node.call)
        args, kwargs = node.call.arguments(values)
        context = self._context.copy()

        async def in_thread(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            call = functools.partial(fn, *args, **kwargs)
            return await self._call_in_thread(node, call, context=context, on_start=on_start)

        managed = Managed(node.call.fn, in_thread)
        async with TimeLimit(node.step.timeout, self._threads.grace, at_once=False) as limit:
            if managed.is_async:
                on_start()
            return managed, await managed.open(args, kwargs)

    def _error_of_readers(self, node: Node) -> BaseException | None:
        """What a `with` block around the readers of a resource would have raised."""
        records = [record for other in self._selection.downstream[node.index] if (record := self._records[other])]
        errors = [record.error for record in records if record.error is not None]
        if errors:
            return errors[0]
        return asyncio.CancelledError() if any(r.status is Status.CANCELLED for r in records) else None

    def _close_resources(self) -> None:
        """Has the resources exited that nobody reads any more: one at a time, the last opened first."""
        special = self._special
        if special.is_closing:
            return
        readers_are_gone = self._stopping and len(self._running) == len(special.open)
        for index in reversed(special.open):
            if readers_are_gone or not special.readers[index]:
                special.is_closing = True
                special.open[index].set()
                return

    # -- the life of a step in a worker thread ---------------------------------------------------------

    def run_job(self, job: StepJob) -> None:
        """Runs a step in the calling worker thread, and releases what waited for it."""
        node, course, post = job.node, job.course, self._threads.mailbox.post
        if self._stopping:
            post(self.job_dropped, job, None, urgent=True)
            return
        course.started, course.attempts = perf_counter(), 1
        if self._observers:
            post(self._tell_started, node.name, course.started)
        try:
            made = self._call_here(node)
            record = self._record(node, made, course)
        except BaseException as error:
            post(self._job_failed, job, error, urgent=True)
            return
        with self._lock:  # told of before any other thread can start what is ready now
            if self._stopping:
                jobs = []
                post(self._job_late, job, made, record, urgent=True)
            else:
                jobs, others = self._split(self._settle(node, made))
                post(self._job_done, job, record, jobs, others, urgent=bool(others))
        if jobs:
            self._threads.put_from_worker(jobs)

    def _call_here(self, node: Node) -> Sequence[Any]:
        args, kwargs = node.call.arguments(self._values)
        return outputs_of(node, self._context.copy().run(node.call.fn, *args, **kwargs))

    def _split(self, ready: Sequence[int]) -> tuple[list[StepJob], Sequence[int]]:
        """Ready steps that a worker may go on with, and those that the loop is to see to."""
        if self._blame or self._gate.limits(None):
            return [], ready  # some may have to be skipped, or to wait for a slot
        at, nodes, heights = perf_counter(), self._nodes, self._graph.heights
        jobs, others = [], []
        for index in ready:
            node = nodes[index]
            if node.in_thread and node.plain and node.pool is None:
                jobs.append(StepJob(self, heights[index], node, at))
            else:
                others.append(index)
        return jobs, others

    def _job_done(self, job: StepJob, record: StepResult, jobs: Sequence[StepJob], ready: Sequence[int]) -> None:
        job.end()
        for released in jobs:
            self._running[released.node.index] = released
            if self._stopping:
                self._threads.cancel(released)
        self._finish(job.node, record, ready)

    def _job_late(self, job: StepJob, made: Sequence[Any], record: StepResult) -> None:
        """A step that was done when the run was already to stop."""
        if job.end():
            self._succeed(job.node, made, record)

    def _job_failed(self, job: StepJob, error: BaseException) -> None:
        if not job.end():
            return
        policy = self._retry_of(job.node)
        if policy is not None and not self._stopping and policy.covers(error):
            self._special.retrying[job.node.index] = job.course
            self._start_task(job.node, self._retry_job(job, error))
        else:
            self._fail(job.node, job.course, error)

    async def _retry_job(self, job: StepJob, error: BaseException) -> None:
        self._ahead -= 1
        await self._after_failure(job.node, job.course, error)

    def job_dropped(self, job: StepJob, error: BaseException | None) -> None:
        """A step that no thread called, or whose thread did not return."""
        if job.end():
            self._fail(job.node, job.course, error or asyncio.CancelledError())

    def job_abandoned(self, job: StepJob) -> None:
        if not job.is_over:
            self._tell(StepAbandoned, job.node.name)
            self.job_dropped(job, None)

    # -- done ------------------------------------------------------------------------------------------

    def _settle(self, node: Node, made: Sequence[Any]) -> Sequence[int]:
        """
        Puts what a step made into the table, drops what nobody reads any more, and tells which steps have all
        their inputs now. Under the lock when threads are about.
        """
        kept, uses, values = self._selection.kept, self._uses, self._values
        if self._ordinary and any(KINDS[type(value)] is not None for value in made):
            self._ordinary = False
        for dataset, value in zip(node.outputs, made, strict=False):
            if (kept is None or uses[dataset] or dataset in kept) and dataset not in self._given:
                values[dataset] = value
        if kept is not None:
            for dataset in node.reads:
                uses[dataset] -= 1
                if not uses[dataset] and dataset not in kept:
                    values[dataset] = ABSENT
        streamed = self._graph.streams.get(node.index, ()) if node.index in self._special.elements else ()
        ready = []
        unmet = self._unmet
        for other in self._selection.downstream[node.index]:
            if other in streamed:
                continue  # released when the first element was started
            unmet[other] -= 1
            if not unmet[other]:
                ready.append(other)
        return ready

    def _record(self, node: Node, made: Sequence[Any], course: Course) -> StepResult:
        kind = KINDS[type(made[0])] if len(made) == 1 else None
        rows = None if kind is None or kind.rows is None else kind.rows(made[0])
        took, queued = perf_counter() - course.started, course.started - course.ready
        at = course.started + self._epoch
        return _step_result(node.name, _done, course.attempts, queued, took, at, None, None, rows, course.use)

    def _succeed(self, node: Node, made: Sequence[Any], record: StepResult) -> None:
        with self._lock:
            ready = self._settle(node, made)
        self._finish(node, record, ready)

    def _fail(self, node: Node, course: Course, error: BaseException, *, settled: bool = False) -> None:
        """The end of a step that raised: a failure, or its cancellation if the run is to stop."""
        element = None
        if isinstance(error, ElementFailed):
            element, error = error.index, error.error
        cancelled = self._stopping and isinstance(error, asyncio.CancelledError)
        record = StepResult(
            name=node.name,
            status=Status.CANCELLED if cancelled else Status.FAILED,
            attempts=course.attempts,
            queue_seconds=course.started - course.ready if course.started else 0.0,
            run_seconds=perf_counter() - course.started if course.started else 0.0,
            at=course.started + self._epoch if course.started else None,
            error=None if cancelled else error,
            cache=course.use,
        )
        if not cancelled:
            self._failures[node.name] = StepError(node.name, error, element)
            self._blame[node.index] = Blame(node.name, failed=True)
        with self._lock:
            ready = () if settled else self._settle(node, ())
        if not cancelled and self.policies.on_error == "raise":
            self.stop()
        self._finish(node, record, ready)

    def _skip(self, node: Node, blame: Blame) -> None:
        """The end of a step that is not to run."""
        self._blame[node.index] = blame
        with self._lock:
            ready = self._settle(node, ())
        self._finish(node, StepResult(name=node.name, status=Status.SKIPPED, skipped_because=blame.step), ready)

    def _blame_for(self, node: Node) -> Blame | None:
        """
        Why a step cannot run though all that it waited for has ended: something failed above it, or what it
        needs was not made. A parameter with a default does without what a false `when` kept from being made.
        """
        needed = None
        for other in self._selection.upstream[node.index]:
            blame = self._blame.get(other)
            if blame is None:
                continue
            if blame.failed:
                return blame
            if any(self._graph.producers[d] == other and self._values[d] is ABSENT for d in node.needs):
                needed = needed or blame
        return needed

    def _finish(self, node: Node, record: StepResult, ready: Sequence[int]) -> None:
        """Books the end of a step and goes on with those that waited for it."""
        self._records[node.index] = record
        self._running.pop(node.index, None)
        self._left -= 1
        if self._observers:
            at = perf_counter() + self._epoch
            self._hear(_step_finished(self.run_id, self._seq, at, node.name, record.status, record))
        special = self._special
        if node.index in special.elements:
            special.elements.pop(node.index).close()
        for other in node.resources:
            if other in special.readers:
                special.readers[other] -= 1
        if special.open:
            self._close_resources()
        if ready:
            self._release(ready, perf_counter())
        if node.index in special.holding:  # now that those it released are among those who wait
            special.holding.remove(node.index)
            self._gate.leave(node.pool)
        if not self._running and (self._stopping or not self._left):
            self._end()

    # -- stop ------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Cancels what runs and starts nothing more; the run ends when all of it has ended."""
        if self._stopping or self._ended.is_set():
            return
        with self._lock:
            self._stopping = True
        self._ordinary = False
        self._backlog.clear()
        self._gate.forget(self)
        if not self._running:
            self._end()
            return
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self._loop.call_later(self._threads.grace, self._look_after)
        self._close_resources()
        told = self._is_closing_down()  # then each has its cancellation: another one would cut its clean-up
        for index, running in list(self._running.items()):
            if isinstance(running, Job):
                self._threads.cancel(running)
            elif index not in self._special.open:  # resources are closed when their readers have ended
                running.add_done_callback(functools.partial(self._task_ended, self._nodes[index]))
                if not told:
                    running.cancel()

    def _is_closing_down(self) -> bool:
        """Whether the loop cancels all its tasks, as `asyncio.run` does at its end."""
        return all(task.cancelling() for task in asyncio.all_tasks(self._loop))

    def _look_after(self) -> None:
        """
        After each grace: cancels again what was cancelled and has not ended; finds tasks that ended without a
        word, since somebody else cancelled them before their first turn.
        """
        for index, running in list(self._running.items()):
            if isinstance(running, Job):
                continue
            if running.done():
                self._task_ended(self._nodes[index], running)
            elif self._stopping:
                running.cancel()
        if not self._ended.is_set():
            self._watch = self._loop.call_later(self._threads.grace, self._look_after)

    def _task_ended(self, node: Node, task: asyncio.Task[None]) -> None:
        """
        Books the end of a step whose task ended without doing so: cancelled before its first turn, or broken by a
        fault of ours, which must not leave the run waiting.
        """
        if self._running.get(node.index) is task:
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            course = self._special.retrying.get(node.index) or Course(0.0)
            self._fail(node, course, error or asyncio.CancelledError())

    def _end(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if self._left:
            self._sweep(iter([index for index in self._selection.nodes if self._records[index] is None]))
        else:
            self._wind_up()

    def _wind_up(self) -> None:
        """The end, when every step has its record."""
        self._ended.set()

    def _sweep(self, unrecorded: Iterator[int]) -> None:
        """Books the steps that never became ready before the run was stopped, some at a time."""
        for index in itertools.islice(unrecorded, AHEAD):
            node = self._nodes[index]
            blames = (self._blame.get(other) for other in self._selection.upstream[index])
            blame = next((blame for blame in blames if blame is not None and blame.failed), None)
            if blame is None:
                record = StepResult(name=node.name, status=Status.CANCELLED)
            else:
                self._blame[index] = blame
                record = StepResult(name=node.name, status=Status.SKIPPED, skipped_because=blame.step)
            self._records[index] = record
            self._left -= 1
            self._tell(StepFinished, node.name, record.status, record)
        if self._left:
            self._loop.call_soon(self._sweep, unrecorded)
        else:
            self._wind_up()

    # -- tell ------------------------------------------------------------------------------------------

    def _tell(self, kind: type[Event], *about: Any) -> None:
        if self._observers:
            self._hear(kind(self.run_id, self._seq, perf_counter() + self._epoch, *about))

    def _tell_started(self, step: str, started: float) -> None:
        self._hear(_step_started(self.run_id, self._seq, started + self._epoch, step))

    def _hear(self, event: Event) -> None:
        """Hands an event to the observers. One that raises is not asked again: it must not break a run."""
        self._seq += 1
        for observer in self._observers:
            try:
                observer(event)
            except BaseException as error:
                self._drop(observer, error)

    def _drop(self, observer: Observer, error: BaseException) -> None:
        _log.error("Observer %r raised and is dropped from run %s.", observer, self.run_id, exc_info=error)
        self._observers = [other for other in self._observers if other is not observer]
        if isinstance(error, KeyboardInterrupt | SystemExit):
            self._loop.call_soon(_reraise, error)  # not here, in the middle of a step's bookkeeping


def _reraise(error: BaseException) -> None:
    raise error


class StepJob(Job):
    """A step that runs in a worker thread, as the threads see it."""

    __slots__ = ("_execution", "course", "node")

    def __init__(self, execution: Execution, priority: int, node: Node, ready_at: float) -> None:
        super().__init__(execution, priority)
        self._execution = execution
        self.node = node
        self.course = Course(ready_at)

    def run(self) -> None:
        self._execution.run_job(self)

    def dropped(self, error: BaseException | None) -> None:
        self._execution.job_dropped(self, error)

    def abandoned(self) -> None:
        self._execution.job_abandoned(self)
