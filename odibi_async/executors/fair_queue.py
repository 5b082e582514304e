"""A queue whose owners take turns."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """
    Things that wait, of several owners: the owners take turns, each with its thing of the highest priority.

    Args:
        arrivals: Numbers what is put here; queues that share it know what came first of all.
    """

    def __init__(self, arrivals: Iterator[int] | None = None) -> None:
        self._heaps: dict[object, list[tuple[float, int, T]]] = {}
        self._turns: deque[object] = deque()
        self._arrivals = arrivals or itertools.count()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, owner: object, priority: float, thing: T) -> None:
        self._length += 1
        heap = self._heaps.get(owner)
        if heap is None:
            heap = self._heaps[owner] = []
            self._turns.append(owner)
        heapq.heappush(heap, (-priority, next(self._arrivals), thing))

    @property
    def turn(self) -> object:
        """Whose turn it is."""
        return self._turns[0]

    @property
    def priority(self) -> float:
        """That of the thing whose turn it is."""
        return -self._heaps[self._turns[0]][0][0]

    @property
    def arrival(self) -> int:
        """The number of the thing whose turn it is."""
        return self._heaps[self._turns[0]][0][1]

    def take(self) -> T:
        """
        The thing whose turn it is.

        Raises:
            IndexError: There is none.
        """
        owner = self._turns.popleft()
        heap = self._heaps[owner]
        thing = heapq.heappop(heap)[2]
        self._length -= 1
        if heap:
            self._turns.append(owner)
        else:
            del self._heaps[owner]
        return thing

    def discard(self, owner: object) -> int:
        """Forgets all that this owner has here; how much that was."""
        heap = self._heaps.pop(owner, None)
        if heap is None:
            return 0
        self._length -= len(heap)
        self._turns.remove(owner)
        return len(heap)

    def keep(self, is_wanted: Callable[[T], bool]) -> None:
        """Forgets all that is not wanted; turns and priorities of the others stay as they are."""
        for owner, heap in list(self._heaps.items()):
            wanted = [entry for entry in heap if is_wanted(entry[2])]
            if not wanted:
                self.discard(owner)
            elif len(wanted) < len(heap):
                heapq.heapify(wanted)
                self._length -= len(heap) - len(wanted)
                self._heaps[owner] = wanted
