"""
What goes around a call of a step.

A run composes, for each step, only what the step asks for, outermost first:

    guests of the run (a cache)  ->  retry  ->  reading  ->  slot  ->  the attempt: time limit, executor, the function

The slot is inside of retry, so it is free while a step waits for its next attempt, and while what it reads is loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Final, Protocol

from odibi_async.abc import Executor
from odibi_async.cancellation import CURRENT
from odibi_async.dataset import Handle
from odibi_async.errors import DataLost
from odibi_async.events import StepRetrying
from odibi_async.graph.node import Node
from odibi_async.run.attempts import try_again
from odibi_async.run.course import Invocation
from odibi_async.run.datasets import Datasets, loaded
from odibi_async.run.policies import Policies
from odibi_async.run.slots import Held, Slots
from odibi_async.run.state import RunState
from odibi_async.run.telling import Telling

Made = Sequence[Any]
"""One value for each dataset of a step."""
LOSSES: Final = 3
"""How often what a step reads may be lost before that is the failure of an attempt."""
Inner = Callable[[Invocation], Awaitable[Made]]


class Layer(Protocol):
    """Something around the calls of steps."""

    def wants(self, node: Node, /) -> bool:
        """Whether it wraps the calls of this step. Must not block."""

    async def __call__(self, invocation: Invocation, inner: Inner, /) -> Made:
        """Answers itself, or calls `inner` and acts on what that made."""


class Guest(Layer, Protocol):
    """A layer with a life of its own, which a run is given."""

    async def open(self) -> None:
        """Before the first step. An error is the run's."""

    async def close(self) -> None:
        """After the last step, also when `open` failed half-way. Called again when it was cancelled at once."""


class Retrying:
    """
    Calls a step again as its policy says.

    Args:
        policies: The policies of the run.
        may_begin: Whether another attempt may begin, however it would end.
    """

    def __init__(self, policies: Policies, telling: Telling, may_begin: Callable[[], bool]) -> None:
        self._policies = policies
        self._telling = telling
        self._may_begin = may_begin

    def wants(self, node: Node) -> bool:
        return self._policies.retry_of(node) is not None

    async def __call__(self, invocation: Invocation, inner: Inner) -> Made:
        try:
            return await inner(invocation)
        except Exception as error:
            return await self.again(invocation, inner, error)

    async def again(self, invocation: Invocation, inner: Inner, error: BaseException) -> Made:
        """The attempts after a first one that failed."""
        policy = self._policies.retry_of(invocation.node)
        if policy is None:
            raise error

        def worth(error: BaseException) -> bool:
            if not self._may_begin():
                return False
            worth, invocation.course.note = policy.judge(error)
            if worth and invocation.spent is not None and (why := invocation.spent()):
                worth, invocation.course.note = False, why
            return worth

        def on_retry(failed: int, error: BaseException, wait: float) -> None:
            self._telling.tell(StepRetrying, invocation.node.name, failed, error, wait, invocation.element)

        made: Made = await try_again(policy, error, functools.partial(inner, invocation), worth, on_retry)
        return made


class Reading:
    """Has what a step reads loaded before it takes a slot: a step that has to be called for that needs one too."""

    def __init__(self, state: RunState, datasets: Datasets, executors: Mapping[str, Executor]) -> None:
        self._state = state
        self._datasets = datasets
        self._executors = executors

    def wants(self, node: Node) -> bool:
        return self._state.has_handles

    async def __call__(self, invocation: Invocation, inner: Inner) -> Made:
        node = invocation.node
        takes = _takes_none if node.executor is None else self._executors[node.executor].takes
        instead = invocation.instead
        for again in range(LOSSES, -1, -1):
            passing = [d for d in node.follows.values() if self._state.graph.producers[d] in self._state.streaming]
            read = self._datasets.read(node.call, instead, takes, invocation.element, passing)
            invocation.values, invocation.instead = await read
            try:
                return await inner(invocation)
            except DataLost:  # no fault of the step: what it reads is made again, and it is called again
                if not again:
                    raise
            finally:
                invocation.values = None
        raise AssertionError


class Fetching:
    """Fetches what a step made elsewhere, for a guest that is to keep it; what is kept there stays there."""

    def wants(self, node: Node) -> bool:
        return node.executor is not None

    async def __call__(self, invocation: Invocation, inner: Inner) -> Made:
        made = await inner(invocation)
        if invocation.keeping is None:
            return [await loaded(value) for value in made]
        *datasets, report = made
        return [*datasets, await loaded(report)]


WORTH: Final = 0.05
"""Seconds that a step has to take for its slot to wait until its guests, the journal say, are done with it."""


class Slotted:
    """
    Has each attempt wait for a slot, and hold it until it is over, also when its thread is abandoned.

    Args:
        handed_on: Told of the slot of a step that took long, when its function has returned: whether the slot is
            given back when the step ends. If it were given back at once, it would go to less urgent steps than those
            that wait for this one.
    """

    def __init__(
        self,
        owner: object,
        slots: Slots,
        priority: Callable[[Node], float],
        handed_on: Callable[[Node, Held], bool],
    ) -> None:
        self._owner = owner
        self._slots = slots
        self._priority = priority
        self._handed_on = handed_on

    def wants(self, node: Node) -> bool:
        return self._slots.limits(node.pool)

    async def __call__(self, invocation: Invocation, inner: Inner) -> Made:
        node = invocation.node
        if invocation.held is None:
            invocation.held = await self._slots.wait(self._owner, self._priority(node), node.pool)
        held = invocation.held
        CURRENT.set(held)
        began, is_handed_on = perf_counter(), False
        try:
            made = await inner(invocation)
            if perf_counter() - began > WORTH and invocation.element is None:
                is_handed_on = self._handed_on(node, held)
            return made
        finally:
            invocation.held = None
            if not is_handed_on:
                held.end()


def composed(layers: Sequence[Layer], node: Node, attempt: Inner) -> Inner:
    """One attempt of a step with the layers around it that it asks for, the first of them outermost."""
    for layer in reversed(layers):
        if layer.wants(node):
            attempt = functools.partial(_around, layer, attempt)
    return attempt


def _takes_none(handle: Handle) -> bool:
    return False


def _around(layer: Layer, inner: Inner, invocation: Invocation) -> Awaitable[Made]:
    return layer(invocation, inner)
