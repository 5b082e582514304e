"""The one place where a run is put together, from what is given to it and what its runner keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from odibi_async.abc import Executor, FrameKeeper, Observer
from odibi_async.building import Functions, Nodes
from odibi_async.errors import OptionError
from odibi_async.graph.node import NOTHING
from odibi_async.graph.select import Selection
from odibi_async.limits import Limits
from odibi_async.run.composition import Inside
from odibi_async.run.execution import Execution
from odibi_async.run.layers import Guest
from odibi_async.run.policies import Policies
from odibi_async.runner.aside import in_a_thread
from odibi_async.runner.caching import Remembering
from odibi_async.runner.contexts import Engines
from odibi_async.runner.home import Home
from odibi_async.runner.options import (
    Caching,
    Journaling,
    Steps,
    check_engine,
    check_executors,
    check_given,
    check_places,
    check_pools,
    checked,
)
from odibi_async.runner.places import Executors
from odibi_async.runner.plans import Plan, plan
from odibi_async.runner.recording import Recording
from odibi_async.runner.teller import ResultTeller
from odibi_async.secret import given_secrets


class Asked(NamedTuple):
    """What a run asks of a journal; without one, only its id counts."""

    run_id: str
    resume: bool
    journal: Journaling


class Around(NamedTuple):
    """What stands around the calls of a run, outermost first, and the seconds that its steps have taken before."""

    guests: Sequence[Callable[[Inside], Guest]]
    seconds: Mapping[str, float]


class Preparation:
    """
    Puts runs together, and opens what they share: threads, engines, executors, caches and journals.

    Args:
        limits: How much may run at a time, over all runs.
        observers: They hear the events of every run.
        remembering: The caches.
        recording: The journals.
        executors: Name -> executor, for every run.
    """

    def __init__(
        self,
        limits: Limits,
        observers: Sequence[Observer],
        remembering: Remembering,
        recording: Recording,
        executors: Mapping[str, Executor],
    ) -> None:
        self._limits = limits
        self._observers = observers
        self._remembering = remembering
        self._recording = recording
        self._given = check_executors(executors)
        self._executors = Executors(limits)
        self._engines = Engines(limits)
        self._home: Home | None = None

    def home(self, is_busy: bool) -> Home:
        """
        What belongs to the running loop.

        Raises:
            OptionError: There are runs in another loop.
        """
        if self._home is None or self._home.loop() is not asyncio.get_running_loop():
            if is_busy:
                raise OptionError(
                    "This runner has runs in another event loop: wait until they have ended, or use another Runner."
                )
            self._home = Home(self._limits)
            self._remembering.leave()
            self._recording.leave()
            self._executors = Executors(self._limits)
        return self._home

    async def execution(
        self,
        home: Home,
        steps: Steps,
        inputs: Mapping[str, Any] | None,
        asked: Asked,
        policies: Policies,
        *,
        targets: Iterable[Any] | None = None,
        cache: Caching = None,
        engine: Any = None,
        functions: Functions | None = None,
        nodes: Nodes | None = None,
        observers: Sequence[Observer] = (),
        executors: Mapping[str, Executor] | None = None,
    ) -> Execution:
        """A run that has not begun; the arguments are those of `run_pipeline`."""
        if inputs is not None and not isinstance(inputs, Mapping):
            raise OptionError(f"inputs={inputs!r}: a mapping of datasets to values is needed.")
        if asked.resume and inputs is None:
            inputs = await self._recording.recalled(asked.run_id, asked.journal)
        planned = await plan(steps, inputs, functions, nodes)
        graph = planned.graph
        caching = self._remembering.asked(cache, planned.caching)
        given = dict(inputs or {})
        check_given(given)
        secrets = given_secrets(given.values())
        selected = graph.select(given, targets)
        check_pools(self._limits, graph)
        places = {**self._given, **check_executors(executors or {})}
        check_places({"process", *places}, graph)
        check_engine(engine)
        for name, dataset in graph.engines_of(selected).items():
            given[dataset] = await self._engines.context(name, engine)
        crossing = await self._engines.crossing(graph, selected, engine, home.elsewhere)
        around = await self._around(planned, selected, given, asked, caching, crossing.keeper if crossing else None)
        return Execution(
            graph,
            selected,
            given,
            run_id=asked.run_id,
            policies=policies,
            threads=home.threads or await home.workers(),
            slots=home.slots,
            observers=(*self._observers, *checked(observers)),
            secrets=secrets,
            loop_blocked=self._limits.loop_blocked,
            guests=around.guests,
            crossing=crossing,
            teller=ResultTeller(graph.outline, secrets, is_journaled=asked.journal is not None),
            seconds=around.seconds,
            executors=await self._executors.opened(graph.executors, places) if graph.executors else NOTHING,
        )

    async def _around(
        self,
        planned: Plan,
        selected: Selection,
        given: Mapping[str, Any],
        asked: Asked,
        caching: Caching,
        keeper: FrameKeeper | None,
    ) -> Around:
        """The journal stands outermost: what is committed is not even looked up in the cache."""
        cached = await self._remembering.cached(caching, planned.graph, keeper)
        guests = [] if cached is None else [cached.layer]
        if asked.journal is None:
            return Around(guests, NOTHING)
        journals = await self._recording.journals()
        store = None if cached is None else cached.store
        question = journals.asked(
            asked.journal, asked.run_id, asked.resume, planned.name, planned.planned.source, store
        )
        seconds = await in_a_thread(journals.seconds, question)
        self._recording.remember(planned.name, planned.planned)
        return Around([journals.guest(question, planned.graph, selected, given), *guests], seconds)

    async def close(self) -> None:
        """Closes what was opened for runs; a run that comes later opens it again."""
        await self._executors.close()
        await self._engines.close()
        await self._remembering.close()
        await self._recording.close()
