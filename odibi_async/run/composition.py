"""What a run is made of, put together for what it was asked for."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from odibi_async.abc import Executor
from odibi_async.executors.threads import Threads
from odibi_async.graph.node import Node
from odibi_async.result import Status
from odibi_async.run.calls import Calls
from odibi_async.run.crossing import Crossing
from odibi_async.run.datasets import Datasets
from odibi_async.run.following import Streams
from odibi_async.run.layers import Fetching, Guest, Inner, Reading, Retrying, Slotted, composed
from odibi_async.run.lives.batched import Batched
from odibi_async.run.lives.blocking import Blocking
from odibi_async.run.lives.called import Called
from odibi_async.run.lives.mapped import Mapped
from odibi_async.run.lives.plain import Plain
from odibi_async.run.lives.resources import Resources
from odibi_async.run.lives.streaming import Streaming
from odibi_async.run.policies import Policies
from odibi_async.run.recovery import Recovery
from odibi_async.run.slots import Held, Slots
from odibi_async.run.state import RunState
from odibi_async.run.supervisor import Life, Supervisor
from odibi_async.run.telling import Telling

AT_A_TURN_WITH_GUESTS: Final = 64
"""How many steps are started at a turn of the loop when guests are asked about each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """
    What a guest gets of a run.

    Attributes:
        owner: For whom slots and threads are taken.
        state: What the run knows.
        telling: Hears of what the guest does.
        recovery: Calls steps again.
        may_begin: Whether a call may begin.
        new_task: Makes a task of the run, by its life and its name.
        status: How the run ends, as things are.
    """

    owner: object
    state: RunState
    telling: Telling
    recovery: Recovery
    may_begin: Callable[[], bool]
    new_task: Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]]
    status: Callable[[], Status]


class Parts:
    """
    The parts of a run that its supervisor knows nothing of: how its steps are called, and how each kind lives.

    Attributes:
        datasets: The table of values, some of which may lie elsewhere.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        state: RunState,
        telling: Telling,
        policies: Policies,
        slots: Slots,
        threads: Threads,
        context: contextvars.Context,
        executors: Mapping[str, Executor],
        crossing: Crossing | None = None,
    ) -> None:
        self._crossing = crossing
        self.datasets = Datasets(state)
        self._supervisor = supervisor
        self._state = state
        self._telling = telling
        self._policies = policies
        self._slots = slots
        self._context = context
        self._guests: Sequence[Guest] = ()
        may_begin = supervisor.may_begin
        self._calls = Calls(
            supervisor, state, self.datasets, telling, threads, context, may_begin, executors, slots.pools, crossing
        )
        self._retrying = Retrying(policies, telling, may_begin)
        slotted = Slotted(supervisor, slots, lambda node: state.priorities[node.index], self._hand_on)
        self._inner = (Reading(state, self.datasets, executors), slotted)
        self._fetching = Fetching()
        self._recovery = Recovery(state, self.datasets, self._attempts_of)
        self._streams = Streams(state, telling, functools.partial(threads.mailbox.post, urgent=True))
        self._streaming: Streaming | None = None
        if executors:  # what steps made elsewhere may be lost, and made again from this
            self._recovery.origins = {dataset: state.values[dataset] for dataset in state.given}

    def new_task(self, life: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """A task of the run, in a context of its own."""
        return asyncio.Task(life, loop=self._supervisor.loop, name=name, context=self._context.copy())

    def _hand_on(self, node: Node, held: Held) -> bool:
        """Has a slot given back when its step ends, if there are guests to wait for until then."""
        if not self._guests or node.index not in self._supervisor.running:
            return False
        self._supervisor.held[node.index] = held
        return True

    def inside(self, status: Callable[[], Status]) -> Inside:
        """What a guest gets."""
        return Inside(
            owner=self._supervisor,
            state=self._state,
            telling=self._telling,
            recovery=self._recovery,
            may_begin=self._supervisor.may_begin,
            new_task=self.new_task,
            status=status,
        )

    def begin(self, guests: Sequence[Guest]) -> None:
        """Starts the first steps, with these guests around their calls."""
        self._guests = guests
        if guests:
            self._supervisor.at_a_turn = self._supervisor.budget = AT_A_TURN_WITH_GUESTS
        lives = self._lives()
        if self._streaming is not None:
            self._streams.begin()
        self._supervisor.begin(lives)

    def let_go(self) -> None:
        """Lets go of the parts that refer to it, when the run is over."""
        self._guests = ()
        self.datasets.get_back = self.datasets.get_element = None
        del self._inner, self._recovery, self._streams, self._streaming

    def _row_of(self, node: Node) -> Inner:
        """A call of a step with everything around it."""
        fetching = [self._fetching] if any(guest.wants(node) for guest in self._guests) else []
        return composed([*self._guests, self._retrying, *fetching, *self._inner], node, self._one_of(node))

    def _attempts_of(self, node: Node, attempt: Inner | None = None) -> Inner:
        """A call of a step, or another attempt, that nothing is asked about before."""
        return composed([self._retrying, *self._inner], node, attempt or self._one_of(node))

    def _attempt_of(self, node: Node) -> Inner:
        """One attempt to call a step."""
        return composed(self._inner, node, self._one_of(node))

    def _one_of(self, node: Node) -> Inner:
        """What makes one attempt, with nothing around it."""
        if self._streaming is not None and node.call.yields:
            return self._streaming.attempt
        if self._streaming is not None and node.iterates:
            return self._streaming.follow
        return self._calls.attempt

    def _lives(self) -> list[Life]:
        """How each step lives, by its place."""
        common = (self._supervisor, self._state, self._telling)
        called = Called(
            *common,
            self._calls,
            self._retrying,
            self._row_of,
            self._attempt_of,
            asks_itself=self._state.has_handles,
        )
        plain = Plain(*common, called, self._context)
        blocking = Blocking(*common, self._calls, self._retrying, called, is_bounded=self._slots.is_bounded)
        if self._state.graph.is_simple and not (self._guests or self._state.has_handles or self._crossing):
            return [plain if node.runs_plain else called for node in self._state.graph.nodes]
        mapped = Mapped(
            *common,
            self.datasets,
            called,
            self._row_of,
            self.new_task,
            goes_on=self._policies.on_error == "continue",
        )
        resources = Resources(*common, self._calls, called, self._attempts_of)
        streaming = self._streaming_among(called) if self._state.graph.has_batches else None

        def life_of(node: Node) -> Life:
            if node.is_resource:
                return resources
            if streaming is not None and node.is_stream:
                return streaming
            if node.iterates and node.maps is None:
                return called
            if node.maps is not None:
                return mapped
            if self._guests or self._state.has_handles or (self._crossing and self._crossing.concerns(node)):
                return called  # what it reads may have to be loaded, or brought to its engine
            if node.runs_plain:
                return plain
            return blocking if node.plain and node.in_thread else called

        return [life_of(node) for node in self._state.graph.nodes]

    def _streaming_among(self, called: Called) -> Streaming:
        """The life of the steps that make batches."""
        common = (self._supervisor, self._state, self._telling)
        goes_on = self._policies.on_error == "continue"
        batched = Batched(*common, self._streams, self._row_of, self.new_task, goes_on=goes_on)
        self._streaming = Streaming(*common, self._calls, called, self._streams, batched, self._row_of)
        self._streams.again = self._recovery.batches
        self._supervisor.on_end.append(self._streams.heard)
        return self._streaming
