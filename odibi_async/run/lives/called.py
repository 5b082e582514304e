"""The life of a step that is called in a task of its own, with all that it asks for around the call."""

from __future__ import annotations

import functools
from collections.abc import Callable

from odibi_async.cancellation import CURRENT
from odibi_async.graph.node import Node
from odibi_async.run.calls import Calls
from odibi_async.run.course import Course, Invocation
from odibi_async.run.layers import Inner, Retrying
from odibi_async.run.slots import Held
from odibi_async.run.state import Blame, RunState
from odibi_async.run.supervisor import Supervisor
from odibi_async.run.telling import Telling


class Called:
    """
    Calls a step in a task of its own: async or blocking, with a predicate, a time limit, retries, a cache.

    Args:
        row_of: One call of a step with the layers around it.
        attempt_of: One attempt to call it.
        asks_itself: Whether its steps ask for slots themselves, after guests of the run were asked.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        state: RunState,
        telling: Telling,
        calls: Calls,
        retrying: Retrying,
        row_of: Callable[[Node], Inner],
        attempt_of: Callable[[Node], Inner],
        *,
        asks_itself: bool,
    ) -> None:
        self.asks_itself = asks_itself
        self._supervisor = supervisor
        self._state = state
        self._telling = telling
        self._calls = calls
        self._retrying = retrying
        self._row_of = row_of
        self._attempt_of = attempt_of

    def start(self, node: Node, ready_at: float, held: Held | None) -> None:
        """Starts the step."""
        self._supervisor.start_task(node, self._live(node, Course(ready_at), held))

    def start_again(self, node: Node, course: Course, error: BaseException) -> None:
        """Goes on, in a task, after a first attempt that was made elsewhere and failed."""
        self._supervisor.start_task(node, self.go_on(node, course, error))

    async def begins(self, node: Node, course: Course) -> bool:
        """Asks the step's predicate; where it says no, or fails, that is the end of the step."""
        if node.when is None:
            return True
        try:
            wanted = await self._calls.is_wanted(node)
        except BaseException as error:
            self._supervisor.failed(node, course, error)
            return False
        if not wanted:
            self._supervisor.skipped(node, Blame(node.name, failed=False))
        return wanted

    async def _live(self, node: Node, course: Course, held: Held | None) -> None:
        if held is not None:
            CURRENT.set(held)
        if await self.begins(node, course):
            await self._conclude(node, course, self._row_of(node), held)

    async def go_on(self, node: Node, course: Course, error: BaseException) -> None:
        """Goes on after a first attempt that was made elsewhere and failed."""
        again = functools.partial(self._retrying.again, inner=self._attempt_of(node), error=error)
        await self._conclude(node, course, again, None)

    async def _conclude(self, node: Node, course: Course, row: Inner, held: Held | None) -> None:
        """Waits for what the step makes, and books its end."""
        on_begin = functools.partial(self._telling.started, node.name)
        try:
            made = await row(Invocation(node, course, on_begin, held=held))
            record = self._state.success(node, made, course)
        except BaseException as error:
            self._supervisor.failed(node, course, error)
        else:
            self._supervisor.succeeded(node, made, record)
