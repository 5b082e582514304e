"""
Steps on a Dask cluster: `run_on="dask"`.

What steps make there stays there, as futures, and is passed on as such; it comes back when a local step or the caller
reads it. Needs the extra `dask`, here, on the scheduler and on the workers.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import operator
import pickle
import secrets
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

from odibi_async.abc import Raised, Work
from odibi_async.dataset import Handle, HandleList
from odibi_async.errors import ClusterError, DataLost, NotPortable, WorkerLost, in_a_line
from odibi_async.executors import remote
from odibi_async.executors.cluster import SECONDS, Cluster, in_thread
from odibi_async.executors.cluster_data import ClusterData, DaskHandle
from odibi_async.executors.pickling import dumps, unpacked_error, variables_of
from odibi_async.executors.process import log_here

LARGE: Final = 2**19
"""Bytes of a call from which on it does not travel through the scheduler."""
CALLS: Final = 10
"""How often a call is made for what is no fault of its step: Dask gives each of them several workers."""
SIMPLE: Final = (type(None), bool, int, float, complex)
"""Values that are pickled on the loop: handing them to a thread would take longer."""


class DaskExecutor:
    """
    Calls functions on the workers of a Dask cluster.

    Without arguments, a cluster of worker processes is started on this machine, and ended with the executor.

    Args:
        address: That of a scheduler: `tcp://10.0.0.1:8786`, or `tls://...` with `security`.
        cluster: A cluster object of Dask, such as a `KubeCluster`; it is not closed.
        client: A `distributed.Client(asynchronous=True)` of the running loop; it is not closed.
        security: A `distributed.Security`: the certificates for TLS.
        timeout: Seconds that the scheduler may take to answer.
        local: For the cluster that is started here: what `distributed.LocalCluster` takes.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        cluster: Any = None,
        client: Any = None,
        security: Any = None,
        timeout: float = SECONDS,
        local: Mapping[str, Any] | None = None,
    ) -> None:
        self._topic = f"odibi_async-{secrets.token_hex(6)}"
        self._starting: dict[str, Callable[[], None]] = {}
        self._known: set[int] = set()
        self._declared: set[str] = set()
        self._suspects: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()
        self.cluster = Cluster(
            address,
            cluster=cluster,
            client=client,
            security=security,
            timeout=timeout,
            local=local,
            on_connect=lambda client: client.subscribe_topic(self._topic, self._hear),
        )
        self.data = ClusterData(self.cluster)

    # -- its life --------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """
        Connects to the cluster.

        Raises:
            ClusterError: The scheduler does not answer, or the cluster has other versions.
        """
        await self.cluster.open()

    async def close(self) -> None:
        """Leaves the cluster; one that was started here is ended."""
        await self.cluster.close()

    def _hear(self, event: Any) -> None:
        """What a worker tells of a call."""
        kind, about = event[1]
        if kind == remote.STARTED:
            self._starting.get(about, _nothing)()  # again when it is called again, and its time runs anew
        elif kind == remote.LOG:
            log_here(pickle.loads(about))

    # -- calls -----------------------------------------------------------------------------------------

    def takes(self, handle: Handle) -> bool:
        """Whether it stands for data of this cluster, or a list of such data."""
        return self.data.takes(handle)

    def submit(self, work: Work) -> asyncio.Task[Sequence[Any]]:
        return asyncio.get_running_loop().create_task(self._call(work), name=f"{work.step} on Dask")

    async def _call(self, work: Work) -> Sequence[Any]:
        """
        A call, and further ones for what is no fault of the step.

        When a worker dies, Dask suspects all that were waiting or running there, and after some deaths fails them, the
        innocent with the guilty. So each of them is called again in a child process of a worker, which has nobody else
        to take along: the one whose child dies is guilty.
        """
        suspects = self._suspects.setdefault(work.owner, set())
        deaths = 0
        for left in range(CALLS - 1, -1, -1):
            try:
                return await self._made(work, alone=work.timeout is not None or work.step in suspects)
            except Killed as killed:
                suspects.add(work.step)
                deaths += killed.deaths
            except Raised as raised:
                if deaths and isinstance(raised.error, WorkerLost):
                    reason = f"{deaths} workers died in turn, and so did a process of its own: {raised.error.reason}"
                    raise WorkerLost(work.step, reason) from None
                raise
            except NotFound:
                for handle in _handles(work):
                    handle.not_there()
                raise
            except DataLost:
                if not left or any(handle.is_lost for handle in _handles(work)):
                    raise  # else it is data that was taken there for this call
        raise WorkerLost(work.step, f"{deaths} workers died in turn while they had it to call.")

    async def _made(self, work: Work, *, alone: bool) -> Sequence[Any]:
        client = await self.cluster.client()
        token = f"{_name_of(work.fn)}-{secrets.token_hex(8)}"  # a name for each step would cost the scheduler dear
        placed = await self.data.place(client, work)
        blob, futures = await self._packed(client, work, placed)
        resources = await self._resources(client, work)
        self.data.let_go()
        future = client.submit(
            remote.call, blob, work.step, self._topic, token, work.timeout, alone, *futures,
            key=token, pure=False, retries=0, priority=work.priority, resources=resources,
        )  # fmt: skip
        if alone:
            self._starting[token] = work.on_start
        else:
            work.on_start()
        try:
            await _ended(future)
        except asyncio.CancelledError:
            await self._cancel(client, token, future)
            raise
        finally:
            self._starting.pop(token, _nothing)()
        await self._check(client, work.step, future)
        if work.datasets == 1:
            return [DaskHandle(self.data, work.step, future)]
        parts = [
            client.submit(operator.getitem, future, place, pure=False, priority=work.priority + 1)
            for place in range(work.datasets)
        ]
        for part in parts:
            await _ended(part)
        return [DaskHandle(self.data, work.step, part) for part in parts]

    async def _cancel(self, client: Any, token: str, future: Any) -> None:
        """Takes a call back: what has begun is stopped where it can be."""
        with contextlib.suppress(Exception):  # whatever has become of the cluster: nobody waits for the call any more
            async with asyncio.timeout(self.cluster.timeout):
                await client.cancel([future], force=True)
                await client.run(remote.stop, token, on_error="ignore")

    async def _check(self, client: Any, step: str, future: Any) -> None:
        """
        Raises:
            Raised: The function raised.
            Killed: Its workers died.
            DataLost: Something that it reads is gone.
            ClusterError: The scheduler is.
            NotPortable: The call or its result cannot travel.
        """
        status = future.status
        if status == "finished":
            return
        if not self.cluster.is_up(client):
            raise ClusterError(self.cluster.no_answer())
        if status != "error":
            raise DataLost(step, "what it reads was on a worker that is gone, and cannot be computed again by Dask.")
        error = await future.exception()
        if isinstance(error, remote.Failed):
            raise Raised(await in_thread(unpacked_error, error.error))
        if isinstance(error, remote.Unportable):
            raise NotPortable(step, error.reason)
        if isinstance(error, remote.NotThere):
            raise NotFound(step, error.reason)
        if type(error).__name__ == "KilledWorker":
            if error.task == future.key:
                raise Killed(error.allowed_failures + 1)
            raise DataLost(step, "the workers died that computed again what it reads.")
        if isinstance(error, concurrent.futures.CancelledError):
            raise DataLost(step, "what it reads was on a worker that is gone.")
        raise ClusterError(f"The cluster cannot call step {step!r}: {in_a_line(error)}") from error

    async def _resources(self, client: Any, work: Work) -> dict[str, int] | None:
        """What Dask is to count for a call: the pools that any worker declares, or once declared, as its resources."""
        if not work.units:
            return None
        try:
            workers = (await client.scheduler.identity(n_workers=-1))["workers"].values()
        except OSError as error:
            raise ClusterError(self.cluster.no_answer()) from error
        self._declared.update(name for worker in workers for name in worker.get("resources", ()))
        unknown = sorted(work.resources.keys() - self._declared) if workers else ()
        if unknown:
            raise ClusterError(
                f"Step {work.step!r} takes of pool {unknown[0]!r}, which neither the limits nor any worker knows: give "
                f"Limits(pools={{{unknown[0]!r}: ...}}), or start workers with --resources '{unknown[0]}=...'."
            )
        counted = self._declared | work.resources.keys()  # with no worker there at the moment, Dask waits for one
        return {name: units for name, units in work.units.items() if name in counted} or None

    async def _packed(self, client: Any, work: Work, placed: Mapping[int, DaskHandle]) -> tuple[Any, list[Any]]:
        """The bytes of a call, and the futures that it refers to."""
        futures: list[Any] = []

        def special(value: Any) -> Any:
            if isinstance(value, HandleList):
                return list, (value.elements,)
            value = placed.get(id(value), value)
            if not isinstance(value, Handle):
                return NotImplemented
            value = self.data.as_taken(value)
            if not isinstance(value, DaskHandle):
                return NotImplemented if value.by_path is None else value.by_path
            futures.append(value.future)
            return remote.argument, (len(futures) - 1,)

        def pack() -> bytes:
            call = (work.fn, tuple(work.args), dict(work.kwargs), work.outputs, variables_of(work.context))
            return dumps(call, special)

        given = (*work.args, *work.kwargs.values())
        is_simple = all(type(each) in SIMPLE or isinstance(each, DaskHandle) for each in given)
        try:
            blob = pack() if is_simple and id(work.fn) in self._known else await in_thread(pack)
        except Exception as error:  # whatever is in it decides what its pickling raises
            raise NotPortable(work.step, f"it cannot be pickled: {type(error).__name__}: {error}") from error
        self._known.add(id(work.fn))
        if len(blob) < LARGE:
            return blob, futures
        return await self.data.scatter(client, remote.Packed(remote.PICKLE, blob)), futures


class NotFound(DataLost):
    """A worker does not find in the shared directory what is to be there."""


class Killed(Exception):
    """
    The workers died that a call was given to, whether it ran or waited there.

    Attributes:
        deaths: How many.
    """

    def __init__(self, deaths: int) -> None:
        super().__init__(deaths)
        self.deaths = deaths


def _name_of(fn: Callable[..., Any]) -> str:
    """What Dask calls all calls of a function; it keeps account of each name."""
    fn = getattr(fn, "func", fn)
    return str(getattr(fn, "__name__", type(fn).__name__))


def _handles(work: Work) -> Iterator[Handle]:
    """What a call reads that lies elsewhere."""
    for each in (*work.args, *work.kwargs.values()):
        if isinstance(each, HandleList):
            yield from (element for element in each.elements if isinstance(element, Handle))
        elif isinstance(each, Handle):
            yield each


async def _ended(future: Any) -> None:
    """Waits until Dask has done a task, whatever it came to."""
    with contextlib.suppress(concurrent.futures.CancelledError):
        await future.exception()


def _nothing() -> None:
    """The start of a call that is over."""
