"""Values that are not in memory: loaded when a step reads them, or at the end for the caller."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from odibi_async.dataset import ABSENT, Handle, HandleList
from odibi_async.errors import DataLost
from odibi_async.graph.node import NOTHING, Call
from odibi_async.run.state import RunState


class Datasets:
    """
    The table of a run's datasets, where some are handles of values that lie elsewhere.

    Args:
        state: Holds the table.

    Attributes:
        get_back: Gets a dataset that was dropped and is needed once more.
        get_element: Gets one element of such a dataset, by its number.
    """

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._loading: dict[int, asyncio.Lock] = {}
        self.get_back: Callable[[int], Awaitable[Any]] | None = None
        self.get_element: Callable[[int, int], Awaitable[Any]] | None = None

    async def read(
        self,
        call: Call,
        instead: Mapping[str, Any] = NOTHING,
        takes: Callable[[Handle], bool] = lambda _: False,
        element: int | None = None,
        without: Collection[int] = (),
    ) -> tuple[Mapping[int, Any], Mapping[str, Any]]:
        """
        The datasets that a call reads, and what it gets in place of some.

        Args:
            call: The call.
            instead: Parameter -> what it gets in place of a dataset.
            takes: Which handles it is given as they are; all others are loaded.
            element: The number of the element, in a call of a mapped step.
            without: The datasets that it does not read from the table.
        """

        def is_taken(value: Any) -> bool:
            return isinstance(value, Handle) and takes(value)

        table, values = self._state.values, {}
        for d in call.datasets:
            if d in without:
                values[d] = ABSENT
                continue
            if isinstance(table[d], Handle) and table[d].is_lost:
                await self._made_again(d, table[d])
            values[d] = table[d] if is_taken(table[d]) else await self.value(d)
        given = dict(instead)
        for parameter, value in instead.items():
            if isinstance(value, Handle) and element is not None:
                [place] = [b.dataset for b in call.bindings if b.parameter == parameter and b.dataset is not None]
                given[parameter] = await self._element(place, element, value, takes)
        return values, given

    async def _element(self, dataset: int, index: int, value: Handle, takes: Callable[[Handle], bool]) -> Any:
        """An element of a list, as a call is given it; one that is gone is made again."""
        made: Any = value
        if value.is_lost and self.get_element is not None:
            made = await self.get_element(dataset, index)
        if isinstance(made, Handle) and takes(made):
            return made
        try:
            return await loaded(made)
        except DataLost:
            if self.get_element is None:
                raise
            return await loaded(await self.get_element(dataset, index))

    async def _made_again(self, dataset: int, lost: Handle) -> None:
        """Puts another value in the place of one that is gone; those who find that out together do it once."""
        async with self._loading.setdefault(dataset, asyncio.Lock()):
            if self._state.values[dataset] is not lost or self.get_back is None or self.get_element is None:
                return
            if isinstance(lost, HandleList):
                elements = [
                    await self.get_element(dataset, index) if isinstance(each, Handle) and each.is_lost else each
                    for index, each in enumerate(lost.elements)
                ]
                self._state.values[dataset] = HandleList(elements)
            else:
                self._state.values[dataset] = await self.get_back(dataset)

    async def value(self, dataset: int) -> Any:
        """A dataset, loaded if it is elsewhere; if it was dropped and is needed again, it is recovered."""
        values = self._state.values
        if isinstance(values[dataset], Handle):
            async with self._loading.setdefault(dataset, asyncio.Lock()):
                handle = values[dataset]
                if isinstance(handle, Handle):  # nobody has loaded it meanwhile
                    made = await self._loaded(dataset, handle)
                    if values[dataset] is not handle:  # dropped meanwhile
                        return made
                    values[dataset] = made
        elif values[dataset] is ABSENT and self.get_back is not None:
            return await self.get_back(dataset)
        return values[dataset]

    async def _loaded(self, dataset: int, handle: Handle) -> Any:
        """What a handle stands for; where that is gone, its step is called again."""
        try:
            return await handle.load()
        except DataLost:
            if self.get_back is None:
                raise
            return await loaded(await self.get_back(dataset))

    def lying(self) -> list[int]:
        """Those of the datasets that the caller gets which are not in memory."""
        kept, values = self._state.selection.kept, self._state.values
        return [d for d in (range(len(values)) if kept is None else kept) if isinstance(values[d], Handle)]


def gathered(elements: list[Any]) -> list[Any] | HandleList:
    """The dataset that the elements of a mapped step make together."""
    return HandleList(elements) if any(isinstance(each, Handle) for each in elements) else elements


async def loaded(value: Any) -> Any:
    """A value, in memory."""
    return await value.load() if isinstance(value, Handle) else value
