"""One call of a step's function: its arguments, its time limit, here or in a worker thread, and what it made."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from odibi_async.abc import Executor, Raised, Work
from odibi_async.current import STEP
from odibi_async.events import StepAbandoned
from odibi_async.executors.threads import CallJob, Threads, calling
from odibi_async.graph.node import Call, Node
from odibi_async.run.attempts import TimeLimit
from odibi_async.run.course import Invocation, Outputs
from odibi_async.run.crossing import Crossing
from odibi_async.run.datasets import Datasets
from odibi_async.run.outputs import made_of, outputs_of, refuse_used_up
from odibi_async.run.slots import Held
from odibi_async.run.state import RunState
from odibi_async.run.telling import Telling
from odibi_async.run.tracebacks import calls_users_code


class Calls:
    """
    Calls the functions of a run's steps.

    Args:
        owner: For whom threads are taken: runs take turns at them.
        may_begin: Whether a call may begin.
        crossing: The engines of the steps; `None` where no frame can be one of another engine.
        executors: Name -> what calls the steps that say so.
        counted: The pools that the limits count.

    Attributes:
        context: What each call gets a copy of.
        threads: Where blocking functions are called.
    """

    def __init__(
        self,
        owner: object,
        state: RunState,
        datasets: Datasets,
        telling: Telling,
        threads: Threads,
        context: contextvars.Context,
        may_begin: Callable[[], bool],
        executors: Mapping[str, Executor],
        counted: frozenset[str],
        crossing: Crossing | None = None,
    ) -> None:
        self.context = context
        self.threads = threads
        self._owner = owner
        self._state = state
        self._datasets = datasets
        self._telling = telling
        self._may_begin = may_begin
        self._crossing = crossing
        self._executors = executors
        self._counted = counted

    async def attempt(self, invocation: Invocation) -> Sequence[Any]:
        """Calls a step's function once, within its time limit; what it made, one value a dataset."""
        node, call = invocation.node, invocation.node.call
        if not self._may_begin():
            raise asyncio.CancelledError
        invocation.course.attempts += 1
        values, instead = invocation.values or self._state.values, invocation.instead
        crossing = self._crossing if self._crossing is not None and self._crossing.concerns(node) else None
        STEP.set((node.name, invocation.element))
        is_here = not node.in_thread and node.executor is None
        async with TimeLimit(node.step.timeout, self.threads.grace, at_once=is_here) as limit:

            def on_start() -> None:
                invocation.begin()
                limit.start()

            if crossing is not None and (is_here or node.executor is not None):
                cross = functools.partial(crossing.crossed, node, values, instead)
                values, instead = await self.in_thread(node, cross, None, around=crossing.around)
            context = self.context_of(invocation)
            if node.executor is not None:
                args, kwargs = call.arguments(values, instead, is_copied=False)
                context.run(self.enter, invocation)
                return await self._elsewhere(invocation, args, kwargs, context, on_start)
            if node.in_thread:
                fn: Callable[[], Any]
                if crossing is None:
                    args, kwargs = call.arguments(values, instead)
                    fn = functools.partial(call.fn, *args, **kwargs)
                else:
                    fn = functools.partial(crossing.call, node, values, instead)
                fn = functools.partial(self.entered, invocation, fn)
                value = await self.in_thread(node, fn, invocation.held, context=context, on_start=on_start)
            else:
                invocation.begin()
                args, kwargs = call.arguments(values, instead)
                self.enter(invocation)
                value = await self._here(call, args, kwargs)
            return outputs_of(node, value)

    async def arguments(self, invocation: Invocation) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """What to call a function with that is called elsewhere than here: frames are brought to its engine."""
        node = invocation.node
        values, instead = invocation.values or self._state.values, invocation.instead
        if self._crossing is not None and self._crossing.concerns(node):
            cross = functools.partial(self._crossing.crossed, node, values, instead)
            values, instead = await self.in_thread(node, cross, None, around=self._crossing.around)
        return node.call.arguments(values, instead)

    def context_of(self, invocation: Invocation) -> contextvars.Context:
        """A context for an attempt in a thread."""
        context = self.context.copy()
        context.run(STEP.set, (invocation.node.name, invocation.element))
        return context

    def enter(self, invocation: Invocation) -> None:
        """Notes, in the context of an attempt, which one it is."""
        self._telling.enter(invocation.node.name, invocation.element, invocation.course.attempts)

    @calls_users_code
    def entered(self, invocation: Invocation, fn: Callable[[], Any]) -> Any:
        """What a function returns, in the thread and the context of an attempt."""
        self.enter(invocation)
        return fn()

    async def _elsewhere(
        self,
        invocation: Invocation,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        context: contextvars.Context,
        on_start: Callable[[], None],
    ) -> Sequence[Any]:
        """What an executor makes of a call. A caller that is cancelled goes on when the call has ended."""
        node, keeping = invocation.node, invocation.keeping
        assert node.executor is not None
        outputs: Outputs
        outputs = functools.partial(made_of, node.name, len(node.outputs), node.step.outputs)
        work = Work(
            step=node.name,
            fn=node.call.fn,
            args=args,
            kwargs=kwargs,
            outputs=outputs if keeping is None else keeping(outputs),
            datasets=len(node.outputs) + (keeping is not None),
            timeout=node.step.timeout,
            owner=self._owner,
            priority=self._state.priorities[node.index],
            units=dict(node.pool),
            resources={name: units for name, units in node.pool if name not in self._counted},
            context=context,
            on_start=on_start,
        )
        task = self._executors[node.executor].submit(work)
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                if cancelled is None:
                    task.cancel()
                cancelled = cancelled or error
        if cancelled is not None:
            task.cancelled() or task.exception()  # heard, so that the loop does not complain
            try:
                raise cancelled
            finally:
                del cancelled
        raised = task.exception()
        if isinstance(raised, Raised):
            raise raised.error
        return task.result()

    @calls_users_code
    async def _here(self, call: Call, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        value = call.fn(*args, **kwargs)
        return await value if call.is_async else value

    async def in_thread(
        self,
        node: Node,
        fn: Callable[[], Any],
        held: Held | None,
        *,
        context: contextvars.Context | None = None,
        on_start: Callable[[], None] | None = None,
        late: bool = True,
        sure: bool = False,
        around: Callable[[Node], AbstractContextManager[object]] | None = None,
    ) -> Any:
        """
        What a function returns in a worker thread.

        Args:
            node: The step that it belongs to.
            fn: The function.
            held: What the call holds; its thread is noted there.
            context: What to call it in; `None` for a copy of the run's.
            on_start: Called when a thread has taken it.
            late: Whether one that was cancelled but still ended well counts as ended well.
            sure: Whether it is called also when it is cancelled before a thread has taken it.
            around: What is entered in the thread around the call.
        """
        held = held or Held()
        threads = (self._crossing and self._crossing.threads_of(node)) or self.threads
        if around is not None:
            fn = functools.partial(_within, around, node, fn)
        job = held.job = CallJob(
            threads,
            self._owner,
            self._state.priorities[node.index],
            fn,
            call=held,
            context=context or self.context.copy(),
            on_start=on_start,
            on_abandoned=functools.partial(self._telling.tell, StepAbandoned, node.name),
            sure=sure,
        )
        try:
            return await threads.call(job)
        except asyncio.CancelledError:
            if not (late and job.has_returned):
                raise
            return job.value
        finally:
            if not job.is_away:
                held.job = None

    async def is_wanted(self, node: Node) -> bool:
        """What a step's predicate says."""
        when = node.when
        if when is None:
            return True
        values: Any = self._state.values
        if self._state.has_handles:
            values, _ = await self._datasets.read(when)
        args, kwargs = when.arguments(values)
        who = f"The predicate of step {node.name!r}"
        if when.is_async:
            self._telling.enter(node.name, attempt=0)
            wanted = _truth(who, await self._here(when, args, kwargs))
        else:
            ask = functools.partial(_asked, who, when.fn, args, kwargs)
            context = self.context.copy()
            context.run(self._telling.enter, node.name, attempt=0)
            wanted = bool(await self.in_thread(node, ask, None, context=context))
        if not self._may_begin():
            raise asyncio.CancelledError
        return wanted

    @calls_users_code
    def directly(self, node: Node, held: Held) -> Sequence[Any]:
        """Calls a blocking function in the calling worker thread."""
        args, kwargs = node.call.arguments(self._state.values)
        context = self.context.copy()
        context.run(STEP.set, (node.name, None))
        context.run(self._telling.enter, node.name)
        return outputs_of(node, context.run(calling, held, node.call.fn, args, kwargs))


def _within(around: Callable[[Node], AbstractContextManager[object]], node: Node, fn: Callable[[], Any]) -> Any:
    with around(node):
        return fn()


@calls_users_code
def _asked(who: str, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """What a blocking predicate says, as a truth value: finding that out may block like the predicate itself."""
    return _truth(who, fn(*args, **kwargs))


@calls_users_code
def _truth(who: str, answer: Any) -> bool:
    refuse_used_up(who, answer)
    return bool(answer)
