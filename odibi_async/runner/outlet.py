"""What a run makes, handed to its caller while it is made."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Self

from odibi_async.building import Planned
from odibi_async.cancellation import waiting
from odibi_async.errors import GraphError, GraphFault
from odibi_async.graph.graph import Graph
from odibi_async.graph.node import OUTSIDE
from odibi_async.steps import TAP, Step


class Outlet:
    """What a step has put there and the caller of a run takes, one thing at a time."""

    def __init__(self) -> None:
        self._things: deque[Any] = deque()
        self._news = asyncio.Event()
        self._asked = asyncio.Event()
        self._is_over = False

    async def put(self, thing: Any) -> None:
        """Hands something over; returns when the next is asked for."""
        self._asked.clear()
        self._things.append(thing)
        self._news.set()
        async with waiting():
            await self._asked.wait()

    def close(self) -> None:
        """Nothing more will come."""
        self._is_over = True
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        self._asked.set()
        while not self._things:
            if self._is_over:
                raise StopAsyncIteration
            self._news.clear()
            async with waiting():
                await self._news.wait()
        return self._things.popleft()


def tapped(planned: Planned, target: str, outlet: Outlet) -> tuple[Planned, str]:
    """
    The same pipeline with one more step, which puts what another one makes into an outlet; and that step's name.

    Raises:
        GraphError: There is no such dataset.
    """
    graph = planned.graph
    if target not in graph.ids:
        graph.select((), [target])  # raises, unless it is a step without a dataset
        raise GraphError([GraphFault("OA405", f"Target {target!r} makes no dataset, so there is nothing to stream.")])
    producer = graph.producers[graph.ids[target]]
    maker = None if producer == OUTSIDE else graph.nodes[producer]

    async def each_batch(made: AsyncIterator[Any]) -> None:
        async for batch in made:
            await outlet.put(batch)

    async def each_element(made: Any) -> None:
        for element in made:
            await outlet.put(element)

    async def the_value(made: Any) -> None:
        await outlet.put(made)

    tap = the_value
    if maker is not None and (maker.is_stream or maker.maps is not None):
        tap = each_batch if maker.is_stream else each_element
    name = f"stream of {target}"
    while name in graph.names or name in graph.ids:
        name += " "
    step: Step[..., Any, Any] = Step("publish", name, TAP, None, tap, {}, {"made": target})
    declared = [name for name, entry in graph.inputs.items() if entry.required]
    return Planned(Graph([*graph.steps, step], declared), planned.name, planned.source), name
