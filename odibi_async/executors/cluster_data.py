"""Data that travel to a Dask cluster and back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

from odibi_async.abc import Work
from odibi_async.dataset import Handle, HandleList
from odibi_async.errors import ClusterError, DataLost, NotPortable, in_a_line
from odibi_async.executors import remote
from odibi_async.executors.cluster import Cluster, in_thread
from odibi_async.executors.filing import is_large

AGAIN: Final = 0.1
"""Seconds after which data are offered to the cluster again."""
AT_ONCE: Final = 256
"""How many datasets are asked for in one message."""
SMALL: Final = 2**16
"""Bytes that are read on the loop."""
LINGER: Final = 0.05
"""Seconds that the word that a dataset is not needed waits for a call to travel with."""


class ClusterData:
    """
    The data of a cluster that this process has sent there, or asks for.

    Args:
        cluster: The connection.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._placed: weakref.WeakKeyDictionary[Any, dict[int, Placed]] = weakref.WeakKeyDictionary()
        self._fetching: list[tuple[Any, asyncio.Future[Any]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._dropped: list[Any] = []

    def takes(self, handle: Handle) -> bool:
        """Whether it stands for data of this cluster, or a list of such data."""
        if isinstance(handle, HandleList):
            return all(not isinstance(each, Handle) or self.takes(each) for each in handle.elements)
        return handle.by_path is not None or (isinstance(handle, DaskHandle) and handle.data is self)

    def as_taken(self, handle: Handle) -> Handle:
        """The handle, or another one of the same value that is in the memory of this cluster."""
        live = handle.live
        return live if isinstance(live, DaskHandle) and live.data is self and not live.is_lost else handle

    def drop(self, future: Any) -> None:
        """
        Lets go of a future that nobody needs, soon: Dask's client sends a message each 10 ms at most, and the next call
        would have to wait if it did not travel in the same one. From any thread.
        """
        with contextlib.suppress(RuntimeError):  # no loop runs in this thread: the future goes at once
            loop = asyncio.get_running_loop()
            if not self._dropped:
                loop.call_later(LINGER, self._dropped.clear)
            self._dropped.append(future)

    def let_go(self) -> None:
        """Lets go of them now: a call is about to be sent."""
        self._dropped.clear()

    async def place(self, client: Any, work: Work) -> dict[int, DaskHandle]:
        """Takes the large frames among the arguments to the cluster, each once a run: identity -> handle."""
        values = [*work.args, *work.kwargs.values()]
        for each in list(values):
            values += [v for v in each.elements if not isinstance(v, Handle)] if isinstance(each, HandleList) else ()
        placed = self._placed.setdefault(work.owner, {})
        handles = {}
        for value in values:
            if not is_large(value):
                continue
            place = placed.get(id(value))
            if place is None or place.value() is not value or place.is_lost:
                task = asyncio.create_task(self._scattered(client, work.step, value))
                place = placed[id(value)] = Placed(
                    weakref.ref(value, functools.partial(_forget, placed, id(value))), task
                )
            handles[id(value)] = await asyncio.shield(place.task)
        return handles

    async def _scattered(self, client: Any, step: str, value: Any) -> DaskHandle:
        packed = await in_thread(remote.packed, value)
        return DaskHandle(self, step, await self.scatter(client, packed))

    async def scatter(self, client: Any, value: Any) -> Any:
        """
        Takes a value to the cluster, to another worker if the first one dies meanwhile.

        Raises:
            ClusterError: There are no workers, or none of them takes it; or the scheduler is gone.
        """
        loop, patience = asyncio.get_running_loop(), self._cluster.timeout
        began = last_seen = loop.time()
        while client.status == "running":
            with contextlib.suppress(OSError, concurrent.futures.CancelledError):
                async with asyncio.timeout(patience):  # who asks a worker that has just died may wait long
                    [future] = await client.scatter([value], hash=False)
                    return future
            with contextlib.suppress(OSError):
                last_seen = loop.time() if (await client.scheduler.identity())["workers"] else last_seen
            if loop.time() > min(last_seen + 6 * patience, began + 60 * patience):
                raise ClusterError(
                    f"The cluster takes no data, for {loop.time() - began:.0f} s. Are there any workers?"
                )
            await asyncio.sleep(AGAIN)
        raise ClusterError(self._cluster.no_answer())

    async def fetch(self, handle: DaskHandle) -> Any:
        """
        The value of a dataset on the cluster.

        Raises:
            DataLost: It is gone.
            ClusterError: So is the scheduler.
            NotPortable: It cannot be loaded here.
        """
        future = handle.future
        client = future.client
        if not self._cluster.is_up(client):
            raise ClusterError(self._cluster.no_answer())
        if future.status == "finished" and future.type not in (remote.Packed, bytes):
            future = client.submit(remote.packed, future, pure=False, priority=2**20)
        got: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._fetching.append((future, got))
        if len(self._fetching) == 1:
            asyncio.get_running_loop().call_soon(self._fetch_all)
        try:
            packed = await got
        except concurrent.futures.CancelledError as error:
            if not self._cluster.is_up(client):
                raise ClusterError(self._cluster.no_answer()) from error
            raise DataLost(handle.step, "its worker is gone, and it cannot be computed again by Dask.") from error
        if isinstance(packed, bytes) or (isinstance(packed, remote.Packed) and len(packed.data) < SMALL):
            return _unpacked(handle.step, packed)
        return await in_thread(_unpacked, handle.step, packed)

    def _fetch_all(self) -> None:
        wanted, self._fetching = self._fetching, []
        for start in range(0, len(wanted), AT_ONCE):
            task = asyncio.get_running_loop().create_task(_gather(wanted[start : start + AT_ONCE]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


class Placed:
    """
    A local value that was taken to the cluster.

    Attributes:
        value: Gives the value while it lives.
        task: Takes it there; gives the handle.
    """

    __slots__ = ("task", "value")

    def __init__(self, value: Callable[[], Any], task: asyncio.Task[DaskHandle]) -> None:
        self.value = value
        self.task = task

    @property
    def is_lost(self) -> bool:
        """Whether it has to be taken there again."""
        if not self.task.done():
            return False
        return self.task.cancelled() or self.task.exception() is not None or self.task.result().is_lost


def _forget(placed: dict[int, Placed], identity: int, _: object) -> None:
    placed.pop(identity, None)


class DaskHandle(Handle):
    """
    Stands for a dataset on a cluster.

    Attributes:
        data: Of which cluster it is.
        step: The step that made it.
        future: The future of Dask.
    """

    __slots__ = ("data", "future", "step")

    def __init__(self, data: ClusterData, step: str, future: Any) -> None:
        self.data = data
        self.step = step
        self.future = future

    def __del__(self) -> None:
        self.data.drop(self.future)

    @property
    def rows(self) -> int | None:
        return None

    @property
    def is_lost(self) -> bool:
        return self.future.status in ("cancelled", "lost", "error")

    async def load(self) -> Any:
        """The value, which comes here."""
        return await self.data.fetch(self)


def _unpacked(step: str, packed: Any) -> Any:
    """What came from the cluster, whose classes decide what their unpickling raises."""
    try:
        return remote.unpacked(packed)
    except BaseException as error:
        raise NotPortable(step, f"what it returned cannot be loaded here: {type(error).__name__}: {error}") from error


async def _gather(wanted: Sequence[tuple[Any, asyncio.Future[Any]]]) -> None:
    """Gathers futures in one message; where one of them is gone, one by one."""
    try:
        values = await wanted[0][0].client.gather([future for future, _ in wanted])
    except Exception as error:  # of Dask, or of whatever was in a future
        if len(wanted) > 1:
            for each in wanted:
                await _gather([each])
        elif not wanted[0][1].done():
            wanted[0][1].set_exception(_as_lost(error))
        return
    for (_, got), value in zip(wanted, values, strict=True):
        if not got.done():
            got.set_result(value)


def _as_lost(error: Exception) -> Exception:
    is_lost = isinstance(error, OSError | KeyError) or type(error).__name__ == "KilledWorker"
    return concurrent.futures.CancelledError(in_a_line(error)) if is_lost else error
