"""One call of a step's function: its arguments, its time limit, here or in a worker thread, and what it made."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from odibi_async.abc import Executor, Raised, Work
from odibi_async.events import StepAbandoned
from odibi_async.executors.threads import CallJob, Threads, calling
from odibi_async.graph.node import Call, Node
from odibi_async.run.attempts import TimeLimit
from odibi_async.run.course import Invocation
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
    ) -> None:
        self.context = context
        self.threads = threads
        self._owner = owner
        self._state = state
        self._datasets = datasets
        self._telling = telling
        self._may_begin = may_begin
        self._executors = executors
        self._counted = counted

    async def attempt(self, invocation: Invocation) -> Sequence[Any]:
        """Calls a step's function once, within its time limit; what it made, one value a dataset."""
        node, call = invocation.node, invocation.node.call
        if not self._may_begin():
            raise asyncio.CancelledError
        invocation.course.attempts += 1
        values, is_copied = invocation.values or self._state.values, node.executor is None
        args, kwargs = call.arguments(values, invocation.instead, is_copied=is_copied)
        is_here = not node.in_thread and node.executor is None
        async with TimeLimit(node.step.timeout, self.threads.grace, at_once=is_here) as limit:

            def on_start() -> None:
                invocation.begin()
                limit.start()

            if node.executor is not None:
                return await self._elsewhere(node, args, kwargs, on_start)
            if node.in_thread:
                fn = functools.partial(call.fn, *args, **kwargs)
                value = await self.in_thread(node, fn, invocation.held, on_start=on_start)
            else:
                invocation.begin()
                value = await self._here(call, args, kwargs)
            return outputs_of(node, value)

    async def _elsewhere(
        self, node: Node, args: Sequence[Any], kwargs: Mapping[str, Any], on_start: Callable[[], None]
    ) -> Sequence[Any]:
        """What an executor makes of a call. A caller that is cancelled goes on when the call has ended."""
        assert node.executor is not None
        work = Work(
            step=node.name,
            fn=node.call.fn,
            args=args,
            kwargs=kwargs,
            outputs=functools.partial(made_of, node.name, len(node.outputs), node.step.outputs),
            datasets=len(node.outputs),
            timeout=node.step.timeout,
            owner=self._owner,
            priority=self._state.graph.heights[node.index],
            units=dict(node.pool),
            resources={name: units for name, units in node.pool if name not in self._counted},
            context=self.context,
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
        """
        held = held or Held()
        job = held.job = CallJob(
            self.threads,
            self._owner,
            self._state.graph.heights[node.index],
            fn,
            call=held,
            context=context or self.context.copy(),
            on_start=on_start,
            on_abandoned=functools.partial(self._telling.tell, StepAbandoned, node.name),
            sure=sure,
        )
        try:
            return await self.threads.call(job)
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
            wanted = _truth(who, await self._here(when, args, kwargs))
        else:
            ask = functools.partial(_asked, who, when.fn, args, kwargs)
            wanted = bool(await self.in_thread(node, ask, None))
        if not self._may_begin():
            raise asyncio.CancelledError
        return wanted

    @calls_users_code
    def directly(self, node: Node, held: Held) -> Sequence[Any]:
        """Calls a blocking function in the calling worker thread."""
        args, kwargs = node.call.arguments(self._state.values)
        return outputs_of(node, self.context.copy().run(calling, held, node.call.fn, args, kwargs))


@calls_users_code
def _asked(who: str, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """What a blocking predicate says, as a truth value: finding that out may block like the predicate itself."""
    return _truth(who, fn(*args, **kwargs))


@calls_users_code
def _truth(who: str, answer: Any) -> bool:
    refuse_used_up(who, answer)
    return bool(answer)
